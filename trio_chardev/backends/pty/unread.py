"""What the user of a PTY has not read: looked at, and read, by the slave.

What Linux makes of it (n_tty.c, tty_buffer.c), tried on 6.18:

* The line discipline holds up to 4095 bytes, and the kernel up to 25 KiB behind it, which it moves
  on when a reader has made room: then, for a moment, there is nothing to see. But each look
  moves it on, by as much as the line discipline holds, so that it can't be that often.
* FIONREAD counts what the line discipline holds: of one who reads 4095 bytes at a time it is
  the same before and after. That he has read only inotify(7) tells.
* One read(2) at a time is served, and gets no more than 4095 bytes, so two who read get pieces by
  turns, and nothing can keep the other one away. What one read finds can't be torn apart.
* While the user has lines put together (canonical mode) the last one, which has no end yet, can't be
  seen or read. It can be once that mode is left.
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
QUIET_TIME = 0.02  # seconds; who has read nothing for so long does not read
QUIET_SHARE = 0.25  # of the drain timeout, if that is longer: its client knows how slow a user is
LAST_SHARE = 0.25  # of the drain timeout: who reads on until then is not quiet in the rest of it
IFLAG, LFLAG = 0, 3  # of what tcgetattr(3) gives in Python


def is_empty(slave: int) -> bool:
    """Has the slave's user read all that he can, and is nothing on its way to him?"""
    return not any(_has_input(slave) for _ in range(LOOKS))


def _has_input(slave: int) -> bool:
    poll = select.poll()
    poll.register(slave, select.POLLIN)
    # poll(2) waits for what is on its way (n_tty_poll), FIONREAD for a reader (n_tty_ioctl).
    return bool(poll.poll(0)) or count_unread(slave) > 0


async def wait_empty(slave: int) -> None:
    """Wait until it is."""
    while not is_empty(slave):  # noqa: ASYNC110 - there is no event
        await trio.sleep(DRAIN_INTERVAL)


class UserReads:
    """Hears whether the user of a PTY reads, from `begin` to `end`, where inotify can tell."""

    def __init__(self) -> None:
        self._watcher: OpenWatcher | None = None
        self._path = ""
        self._have_come = False

    def begin(self, watcher: OpenWatcher, path: str) -> None:
        """Forget what has come, and hear of the slave at *path*, which *watcher* watches."""
        self.end()
        with contextlib.suppress(OSError):
            watcher.hear_reads(path, self._note)
            self._watcher, self._path = watcher, path

    def end(self) -> None:
        """Hear no more, and forget."""
        if self._watcher is not None:
            self._watcher.hear_no_reads(self._path)
        self._watcher, self._have_come = None, False

    def _note(self) -> None:
        self._have_come = True

    @property
    def have_come(self) -> bool:
        """Has he read, since `begin` or `take`?"""
        if self._watcher is not None:
            self._watcher.catch_up()
        return self._have_come

    def take(self) -> bool:
        """As `have_come`, once."""
        have_come, self._have_come = self.have_come, False
        return have_come


async def wait_quiet(slave: int, reads: UserReads, timeout: float) -> None:
    """Wait while the slave's user reads: until it is empty, or he has read nothing for some time.

    Of one who reads on and on until *timeout* seconds are nearly over, until he has just read: so
    soon he won't again.
    """
    quiet_time = max(QUIET_TIME, timeout * QUIET_SHARE)
    last_part = trio.current_time() + timeout * (1 - LAST_SHARE)
    quiet, before = 0.0, -1
    while quiet < quiet_time and not is_empty(slave):
        unread = count_unread(slave)
        has_read = reads.take() or unread != before
        if has_read and trio.current_time() > last_part:
            break
        # Counted by looks: on a machine that has no time for us, he may have none either.
        quiet = 0.0 if has_read else quiet + DRAIN_INTERVAL
        before = unread
        await trio.sleep(DRAIN_INTERVAL)


def take_all(slave: int, reads: UserReads) -> tuple[bytes, bool]:
    """Read it all, as its user would, or the next one; and was he seen to read in the midst of it?

    Then what he has got comes behind the first of these bytes.
    """
    _make_raw(slave)
    data, is_torn, looks = b"", False, 0
    while looks < LOOKS:
        is_torn |= bool(data) and reads.take()
        if piece := _read_piece(slave):
            data += piece
            reads.take()  # this one
        elif is_empty(slave):
            break
        else:  # another's read is under way
            looks += 1
    return data, is_torn or (bool(data) and reads.take())


def _read_piece(slave: int) -> bytes:
    try:
        return os.read(slave, READ_SIZE)
    except BlockingIOError:
        return b""


def _make_raw(slave: int) -> None:
    """Have it all be read as it is, but for what the user's modes have changed already."""
    with contextlib.suppress(termios.error):  # then a line without an end is not read
        modes = termios.tcgetattr(slave)
        if modes[IFLAG] or modes[LFLAG]:
            modes[IFLAG] = modes[LFLAG] = 0
            termios.tcsetattr(slave, termios.TCSANOW, modes)
