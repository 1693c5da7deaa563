"""``trio-chardev logs``: the log file of a console or another chardev."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import trio

from trio_chardev.cli.client import Service
from trio_chardev.cli.log_reader import LogReader
from trio_chardev.cli.names import board_of
from trio_chardev.cli.output import complain, is_terminal, printable, say_bytes
from trio_chardev.errors import OptionsError
from trio_chardev.protocols.terminal import QueryFilter
from trio_chardev.workers import run_in_worker

INTERVAL: Final = 0.25  # seconds between two looks at a file
PASSED: Final = "/dev/fdset/"  # log files that are descriptors of the service


async def logs(service: Service, name: str, *, lines: int | None, follow: bool) -> None:
    """Print the log of *name*: all of the file that is there now, or its last *lines*.

    With *follow* go on until cancelled, over rotations. Raises OptionsError, QmpError.
    """
    path = await path_of(service, name)
    reader = await run_in_worker(LogReader, path, discard=LogReader.close)
    try:
        if lines is not None:
            await run_in_worker(reader.go_to_last, lines)
        await _print(reader, follow)
    finally:
        reader.close()


async def path_of(service: Service, name: str) -> str:
    """The path of the log file of *name*, from the root. Raises OptionsError, QmpError."""
    if not service.is_local:
        raise OptionsError(
            f"the log file is where the service is: run 'logs' there; 'history {name}' works from here"
        )
    board = await board_of(service, name)
    rows = await service.ask_if_known("query-chardev-details")
    if rows is None:
        raise OptionsError("the server does not say where its log files are")
    by_id: dict[str, Mapping[str, Any]] = {row["label"]: row for row in rows}
    for id in (name, board.console, board.device):
        path = by_id.get(id or "", {}).get("logfile")
        if path is not None:
            if path.startswith(PASSED):
                raise OptionsError(f"the log file of '{id}' was passed to the service ({path})")
            return str(path)
    hint = "" if board.console is None else f"; 'history {name}' shows what its console keeps"
    raise OptionsError(f"'{name}' has no log file: it is made with logfile=FILE{hint}")


async def _print(reader: LogReader, follow: bool) -> None:
    shown = QueryFilter() if is_terminal() else None
    has_told = False
    while True:
        while data := await run_in_worker(reader.read):
            say_bytes(data if shown is None else shown.feed(data))
        if not follow:
            return
        if not await run_in_worker(reader.go_on):
            await trio.sleep(INTERVAL)
        if reader.may_be_missing and not has_told:
            complain(printable(f"trio-chardev: of '{reader.path}' something may be missing"))
            has_told = True
