"""What the user of a PTY has not read: how to see it, and take it, at the slave.

How Linux handles it (n_tty.c, tty_buffer.c), tried on 6.18:

* The line discipline holds up to 4095 bytes, and the kernel up to 25 KiB behind it, which it moves
  on when a reader has made room: then, for a moment, there is nothing to see. But each look
  moves it on, by as much as the line discipline holds, so that can't happen often in a row.
* FIONREAD counts what the line discipline holds: with a user that reads 4095 bytes at a time it
  is the same before and after. Only inotify(7) reports that read.
* One read(2) at a time is served, and gets no more than 4095 bytes, so two readers get pieces by
  turns, and neither can be kept away. The bytes of one read stay together.
* While the user is in canonical mode, the last line, which has no end yet, can't be seen or
  read. It can be once that mode is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios

import trio

from trio_chardev.backends.descriptor import DRAIN_INTERVAL, READ_SIZE, count_unread
from trio_chardev.backends.pty.opens import OpenWatcher

LOOKS = 10  # the kernel holds up to 25 KiB for a PTY (pty.c, tty_buffer.c), 4095 bytes a look
QUIET_TIME = 0.02  # seconds without a read, after which the user does not read
QUIET_SHARE = 0.25  # of the drain timeout, if that is longer: the client knows how slow a user is
LAST_SHARE = 0.25  # of the drain timeout: a user that reads until then won't pause in this part
IFLAG, LFLAG = 0, 3  # indexes into what Python's tcgetattr() gives


def is_empty(slave: int) -> bool:
    """Has the slave's user read everything, and is nothing in the kernel on the way there?"""
    return not any(_has_input(slave) for _ in range(LOOKS))


def _has_input(slave: int) -> bool:
    poll = select.poll()
    poll.register(slave, select.POLLIN)
    # poll(2) waits for what is on its way (n_tty_poll), FIONREAD for a reader (n_tty_ioctl).
    return bool(poll.poll(0)) or count_unread(slave) > 0


async def wait_empty(slave: int) -> None:
    """Wait until `is_empty`."""
    while not is_empty(slave):  # noqa: ASYNC110 - there is no event
        await trio.sleep(DRAIN_INTERVAL)


class UserReads:
    """Notes whether the user of a PTY reads, from `begin` to `end`, where inotify reports it."""

    def __init__(self) -> None:
        self._watcher: OpenWatcher | None = None
        self._path = ""
        self._have_come = False

    def begin(self, watcher: OpenWatcher, path: str) -> None:
        """Start anew, with the slave at *path*, which *watcher* watches."""
        self.end()
        with contextlib.suppress(OSError):
            watcher.hear_reads(path, self._note)
            self._watcher, self._path = watcher, path

    def end(self) -> None:
        """Stop, and forget the reads."""
        if self._watcher is not None:
            self._watcher.hear_no_reads(self._path)
        self._watcher, self._have_come = None, False

    def _note(self) -> None:
        self._have_come = True

    @property
    def have_come(self) -> bool:
        """Were there reads since `begin` or `take`?"""
        if self._watcher is not None:
            self._watcher.catch_up()
        return self._have_come

    def take(self) -> bool:
        """Return `have_come`, and reset it."""
        have_come, self._have_come = self.have_come, False
        return have_come


async def wait_quiet(slave: int, reads: UserReads, timeout: float) -> None:
    """Wait while the slave's user reads: until it is empty, or there was no read for some time.

    If the user still reads when *timeout* seconds are nearly over, wait until right after a read,
    as the next one won't come that soon.
    """
    quiet_time = max(QUIET_TIME, timeout * QUIET_SHARE)
    last_part = trio.current_time() + timeout * (1 - LAST_SHARE)
    quiet, before = 0.0, -1
    while quiet < quiet_time and not is_empty(slave):
        unread = count_unread(slave)
        has_read = reads.take() or unread != before
        if has_read and trio.current_time() > last_part:
            break
        # Looks are counted, not time: on a machine too busy for us, the user gets no time either.
        quiet = 0.0 if has_read else quiet + DRAIN_INTERVAL
        before = unread
        await trio.sleep(DRAIN_INTERVAL)


def take_all(slave: int, reads: UserReads) -> tuple[bytes, bool]:
    """Read everything. Returns it, and whether its user was seen to read in the midst of it.

    If so, the bytes that the user has got belong behind the first of these.
    """
    _make_raw(slave)
    data, is_torn, looks = b"", False, 0
    while looks < LOOKS:
        is_torn |= bool(data) and reads.take()
        if piece := _read_piece(slave):
            data += piece
            reads.take()  # that was this read
        elif is_empty(slave):
            break
        else:  # another reader is served now
            looks += 1
    return data, is_torn or (bool(data) and reads.take())


def _read_piece(slave: int) -> bytes:
    try:
        return os.read(slave, READ_SIZE)
    except BlockingIOError:
        return b""


def _make_raw(slave: int) -> None:
    """Make everything readable as it is, but for what the user's modes have changed already."""
    with contextlib.suppress(termios.error):  # then a line without an end is not read
        modes = termios.tcgetattr(slave)
        if modes[IFLAG] or modes[LFLAG]:
            modes[IFLAG] = modes[LFLAG] = 0
            termios.tcsetattr(slave, termios.TCSANOW, modes)
