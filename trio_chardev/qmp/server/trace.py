"""The trace of QMP: each message of all monitors, as lines of JSON in a file.

It is written in the background, and what does not fit is lost and counted, see
`trio_chardev.backends.taps.background_file`: a disk that is full, or hangs, holds up no client.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import attrs

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.taps.background_file import BackgroundFile
from trio_chardev.backends.taps.log_output import Keeping, LogOutput
from trio_chardev.backends.taps.output import Output, create
from trio_chardev.core.environment import open_path
from trio_chardev.files import in_time, work_on_files
from trio_chardev.qmp.commands.context import Direction
from trio_chardev.qmp.json.codec import encode
from trio_chardev.qmp.masking import masked, masked_reply

ROOM_FOR_LOSS = 1 << 12  # bytes: more than the line that tells of it
SIZE = 8  # of the buffer, in `BackgroundFile`'s units


@asynccontextmanager
async def open_trace(path: str) -> AsyncIterator[Trace]:
    """Append what comes in the block to the file *path*; at its end all is written, or given up.

    Raises BackendError, ``Could not create 'PATH': ...``.
    """
    open_again = functools.partial(create, path, open_path)
    with slow_errors(f"Could not create '{path}'"):
        output = await work_on_files(_open, path, open_again, discard=Output.close)
    background = BackgroundFile(f"QMP trace '{path}'", output, keeps=True, gathers=True, times=SIZE)
    trace = Trace(path, background)
    background.on_room = trace.tell_loss
    async with background.running():
        yield trace


def _open(path: str, open_again: functools.partial[int]) -> LogOutput:
    return LogOutput(open_again(), path, open_again, Keeping(0), has_lines=True)


@attrs.define(eq=False, repr=False)
class Trace:
    """An open trace."""

    path: str
    _background: BackgroundFile
    _lost: int = 0
    """How many messages are missing at the end, which the file does not tell yet."""

    def note(self, direction: Direction, monitor: str, peer: str, message: Any) -> None:
        """Have *message*, without secrets, written soon; *monitor* and *peer* say who it is."""
        shown = masked(message) if direction == "in" else masked_reply(message)
        line = b'{"time": "%b", %b, "message": %b}\n' % (
            _now().encode(),
            _who(direction, monitor, peer),
            encode(shown)[:-2],
        )
        self.tell_loss()
        if self._lost or len(line) > self._background.room:
            self._lost += 1
            self._background.drop(len(line))
        else:
            self._background.put(line)

    def tell_loss(self) -> None:
        """Tell in the file how many are missing at this place, if there is room for that."""
        if self._lost and self._background.room >= ROOM_FOR_LOSS:
            lost, self._lost = self._lost, 0
            self._background.put(encode({"time": _now(), "lost": lost})[:-2] + b"\n")

    async def reopen(self) -> None:
        """Go on in the file that has the name now. Raises BackendError."""
        with slow_errors(f"Could not reopen '{self.path}'"):
            await in_time(self._background.reopen)


@functools.lru_cache(256)
def _who(direction: Direction, monitor: str, peer: str) -> bytes:
    """Print these members, which are the same for many messages."""
    members = {"monitor": monitor, "peer": peer, "direction": direction}
    return encode(members)[1:-3]


def _now() -> str:
    moment = datetime.fromtimestamp(time.time(), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"
