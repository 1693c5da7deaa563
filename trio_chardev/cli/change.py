"""``trio-chardev add`` and ``change``: chardev-add and chardev-change, spelt as ``--chardev``.

As with QEMU's ``chardev-change`` for people, the id comes first and is not an option.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.asking import Service
from trio_chardev.cli.control import say_pty
from trio_chardev.cli.options import GRAMMAR
from trio_chardev.cli.paths import with_absolute_paths
from trio_chardev.options.keyval import split_items
from trio_chardev.plain_errors import OptionsError


def parse_backend(id: str, text: str, warn: Callable[[str], object]) -> Any:
    """Parse ``KIND[,KEY=VALUE...]`` to what chardev-change takes.

    Raises OptionsError, and HelpRequested.
    """
    items = list(split_items(text, "backend"))
    spec = GRAMMAR.from_items(id, items, warn)
    for item in items:
        if item.key in ("id", "mux"):  # mux=on would make a second chardev
            raise OptionsError(f"Unexpected '{item.key}' parameter")
    return spec.backend


def open_backend(service: Service, command: str, arguments: dict[str, Any], as_json: bool) -> None:
    """Run *command*, chardev-add or chardev-change, and print the path of a PTY.

    Relative paths are ours, if the service is of this machine.
    """
    backend = arguments["backend"]
    if service.is_local:
        backend = with_absolute_paths(BACKEND, backend)
    say_pty(service.execute(command, {**arguments, "backend": backend}), as_json)
