"""What the commands behind the escape character of ``trio-chardev attach`` do."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from trio_chardev.cli.attach_session import AttachError, Session
from trio_chardev.cli.table import Row, duration, lines
from trio_chardev.cli.terminal import LocalTerminal
from trio_chardev.protocols.attach_menu import Action
from trio_chardev.protocols.terminal import QueryFilter

ROWS: Final = 24  # of a window whose size is not known
MAX_HISTORY: Final = 1 << 16  # bytes that are looked at for one screen
HEADER: Final = ("", "CLIENT", "WHO", "ROLE", "HERE FOR", "WINDOW")

Act = Callable[[Session, LocalTerminal, str], Awaitable[None]]
"""Raises ChardevError if it fails."""


async def send_break(session: Session, local: LocalTerminal, line: str) -> None:
    """Send a break to the device."""
    await session.ask("chardev-client-break")
    local.tell("break sent")


async def show_clients(session: Session, local: LocalTerminal, line: str) -> None:
    """Show who is there: ``*`` is this client, and ``w`` those who may type."""
    clients = await session.service.ask("query-clients", {"id": session.console})
    rows = table_of(clients, session.client, time.time())
    local.tell_lines(list(lines(rows, local.size.cols or None)))


def table_of(clients: list[dict[str, Any]], mine: int, now: float) -> list[Row]:
    """Make a table of *clients*, rows of query-clients."""
    rows: list[Row] = [HEADER]
    for row in clients:
        marks = ("*" if row["client"] == mine else " ") + ("w" if row["types"] else " ")
        window = f"{row['cols']}x{row['rows']}" if "cols" in row else "-"
        here = duration(now - row["since"])
        rows.append((marks, str(row["client"]), row["who"], row["role"], here, window))
    return rows


async def show_history(session: Session, local: LocalTerminal, line: str) -> None:
    """Show the last screen of what was printed, without what would make the terminal answer."""
    arguments = {"id": session.console, "start": -MAX_HISTORY, "max": MAX_HISTORY}
    answer = await session.service.ask("chardev-history", arguments | {"format": "base64"})
    data = QueryFilter().feed(base64.b64decode(answer["data"]))
    rows = (local.size.rows or ROWS) - 2
    last = data.splitlines(keepends=True)[-max(1, rows) :]
    local.show_aside(b"\r\n" + b"".join(last).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


async def change_device(session: Session, local: LocalTerminal, line: str) -> None:
    """Give the device side the backend *line*."""
    from trio_chardev.backends.table import BACKEND
    from trio_chardev.cli.change import parse_backend
    from trio_chardev.cli.options import GRAMMAR
    from trio_chardev.cli.paths import with_absolute_paths
    from trio_chardev.options.keyval import HelpRequested

    device = session.board.device
    if device is None:
        raise AttachError(f"console '{session.console}' has no device: no bridge leads to one")
    try:
        backend = parse_backend(device, line, local.tell)
    except HelpRequested as request:
        local.tell_lines(GRAMMAR.help_text(request.subject).splitlines())
        return
    if session.service.is_local:
        backend = with_absolute_paths(BACKEND, backend)
    result = await session.service.execute("chardev-change", {"id": device, "backend": backend})
    pty = result.get("pty")
    local.tell(f"'{device}' is changed" if pty is None else f"'{device}' is at {pty}")


async def take_right(session: Session, local: LocalTerminal, line: str) -> None:
    """Take the right to write; one who has it already is told that, as nothing else would."""
    if await session.may_type():
        local.tell("you have the right to write already")
    else:
        await session.ask("chardev-give-write")


async def give_right(session: Session, local: LocalTerminal, line: str) -> None:
    """Give the right to write to the client whose number is *line*."""
    if not (line.isascii() and line.isdigit()):
        raise AttachError(f"'{line}' is no number of a client")
    await session.ask("chardev-give-write", {"client": int(line)})
    local.tell(f"client {int(line)} has the right to write")


ACTIONS: Final[dict[Action, Act]] = {
    Action.BREAK: send_break,
    Action.WHO: show_clients,
    Action.HISTORY: show_history,
    Action.CHANGE: change_device,
    Action.TAKE: take_right,
    Action.GIVE: give_right,
}
"""Those that need a connection."""
