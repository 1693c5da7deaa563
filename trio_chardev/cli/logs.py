"""``trio-chardev logs``: the log file of a console or another chardev."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final

from trio_chardev.cli.asking import Service
from trio_chardev.cli.log_reader import LogReader
from trio_chardev.cli.names import STATS, board_in
from trio_chardev.cli.output import complain, is_terminal, printable, say_bytes
from trio_chardev.plain_errors import OptionsError
from trio_chardev.protocols.terminal import QueryFilter

INTERVAL: Final = 0.25  # seconds between two looks at a file
PASSED: Final = "/dev/fdset/"  # log files that are descriptors of the service


def logs(service: Service, name: str, *, lines: int | None, follow: bool) -> None:
    """Print the log of *name*: all of the file that is there now, or its last *lines*.

    With *follow* go on until interrupted, over rotations. Raises OptionsError, QmpError.
    """
    path = path_of(service, name)
    service.leave()  # its events would pile up
    with contextlib.closing(LogReader(path)) as reader:
        if lines is not None:
            reader.go_to_last(lines)
        _print(reader, follow)


def path_of(service: Service, name: str) -> str:
    """The path of the log file of *name*, from the root. Raises OptionsError, QmpError."""
    if not service.is_local:
        raise OptionsError(
            f"the log file is where the service is: run 'logs' there; 'history {name}' works from here"
        )
    board = board_in(service.ask_if_known(STATS), name)
    rows = service.ask_if_known("query-chardev-details")
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


def _print(reader: LogReader, follow: bool) -> None:
    shown = QueryFilter() if is_terminal() else None
    has_told = False
    while True:
        while data := reader.read():
            say_bytes(data if shown is None else shown.feed(data))
        if not follow:
            return
        if not reader.go_on():
            time.sleep(INTERVAL)
        if reader.may_be_missing and not has_told:
            complain(printable(f"trio-chardev: of '{reader.path}' something may be missing"))
            has_told = True
