"""``trio-chardev change``: chardev-change, with the backend spelt as in ``--chardev``.

As with QEMU's ``chardev-change`` for people, the id comes first and is not an option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.options import GRAMMAR
from trio_chardev.cli.output import printable, say
from trio_chardev.cli.qmp import Client, connected
from trio_chardev.errors import OptionsError
from trio_chardev.options.keyval import split_items


def change(
    id: str, text: str, warn: Callable[[str], object], more: Mapping[str, Any] | None = None
) -> Client:
    """Make a client that gives chardev *id* the backend *text*, and prints the path of a PTY.

    *more* are arguments of chardev-change that QEMU does not have. Raises OptionsError, and
    HelpRequested.
    """
    arguments = {"id": id, "backend": parse_backend(id, text, warn), **(more or {})}

    async def client(address: SocketAddress) -> None:
        async with connected(address) as qmp:
            result = await qmp.execute("chardev-change", arguments)
        if "pty" in result:
            say(printable(str(result["pty"])))

    return client


def parse_backend(id: str, text: str, warn: Callable[[str], object]) -> Any:
    """Parse ``KIND[,KEY=VALUE...]`` to what chardev-change takes."""
    items = list(split_items(text, "backend"))
    spec = GRAMMAR.from_items(id, items, warn)
    for item in items:
        if item.key in ("id", "mux"):  # mux=on would make a second chardev
            raise OptionsError(f"Unexpected '{item.key}' parameter")
    return spec.backend
