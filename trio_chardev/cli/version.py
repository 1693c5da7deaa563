"""``trio-chardev version``: the versions of the program and of the service."""

from __future__ import annotations

from typing import Any

from trio_chardev.cli import asking
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.output import printable, say, say_json
from trio_chardev.cli.table import terminal_width, wrapped
from trio_chardev.qmp.errors import QmpConnectionError
from trio_chardev.version import __version__


def show(socket: str | None, as_json: bool) -> None:
    """Print both; that nobody answers is no error. Raises OptionsError for a wrong address."""
    answer: Any = None
    reason = ""

    def ask(service: asking.Service) -> None:
        nonlocal answer
        answer = service.ask("query-version")

    try:
        asking.run(socket, ask)
    except QmpConnectionError as exc:
        reason = str(exc)
    if as_json:
        say_json({"program": __version__, "service": answer})
        return
    say(f"trio-chardev {__version__}")
    name = parse_address(socket).name
    text = printable(f"service at {name}: {reason if answer is None else _text(answer)}")
    for line in wrapped(text, terminal_width()):
        say(line.rstrip())


def _text(answer: dict[str, Any]) -> str:
    qemu = answer["qemu"]
    number = "{major}.{minor}.{micro}".format(**qemu)
    package = answer["package"].strip()
    return f"{package}, QMP as of QEMU {number}" if package else f"QEMU {number}"
