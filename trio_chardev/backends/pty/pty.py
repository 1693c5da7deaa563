"""pty: a pseudoterminal (pty(7)); its users open the slave, /dev/pts/N or a link to it.

What the master reports:

* with the slave open, reading gives bytes or EAGAIN; with nobody there and nothing left to
  read, it gives EIO. So bytes that were written before a close come before CLOSED.
* a user may have locked the slave (TIOCEXCL, as GNU screen does), which lasts as long as the
  master is open: nobody but root can open it any more. The lock can be undone at the slave only,
  not at the master (nor by TIOCGPTPEER), so without root's rights another PTY is needed.
* when the last user closes, epoll reports a hang-up, and goes on doing so for ever. While
  nobody is there, inotify(7) is waited for instead, until it reports that the slave was opened.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import struct
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio

from trio_chardev.access.sandbox import Sandbox
from trio_chardev.backends.descriptor import (
    DescriptorBackend,
    FdHolder,
    read_terminal,
    slow_errors,
)
from trio_chardev.backends.holder import owned
from trio_chardev.backends.pty.leaving import PtyLeaving, is_hung_up
from trio_chardev.backends.pty.line import PtyLine
from trio_chardev.backends.pty.link import SlaveLink
from trio_chardev.backends.pty.opens import OpenWatcher, get_watcher
from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.errors import BackendDisconnectedError, BackendError, backend_errors, strerror
from trio_chardev.files import end_on_files, finish_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text_or_none

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class PtyOptions(BackendOptions):
    """Makes a pseudoterminal."""

    open_timeout = math.inf  # opening does not wait

    path: str | None = attrs.field(default=None, converter=path_text_or_none)
    """Symbolic link to make to the pseudoterminal's slave."""


LOOK_INTERVAL = 0.1  # seconds between looks for a user, where inotify(7) does not report
RETRY_INTERVAL = 5.0  # seconds until the next attempt to get another PTY
TIOCGPTN = 0x80045430  # asm-generic/ioctls.h, as the next one
TIOCGEXCL = 0x80045440


class PtyBackend(DescriptorBackend):
    """The master of a pseudoterminal."""

    pty: str
    is_polled = True

    def __init__(self, request: OpenRequest, master: FdHolder, slave: str) -> None:
        super().__init__(request, master, master)
        self.pty = slave
        self.slave_opened = trio.Event()
        """Set by the watcher, when it is worthwhile to read again."""
        self._watch: tuple[OpenWatcher, int] | None = None
        self._link: SlaveLink | None = None
        self._line = PtyLine(self.filename, master, request.on_event)
        self._wants_another = False
        """Its last user has left it locked, so it has to become another PTY."""
        self._is_locked = False
        """It was left locked, and no other PTY could be had."""
        self._leaving = PtyLeaving(self.id, master, slave)

    @property
    def filename(self) -> str:
        return f"pty:{self.pty}"

    @property
    def line(self) -> Line:
        return self._line

    @property
    def peer(self) -> Peer:
        return _PtyPeer(self.filename)

    @property
    def leaving(self) -> Leaving:
        return self._leaving

    def set_open(self, is_open: bool) -> None:
        self.gives_all = is_open  # else only reading finds the end
        super().set_open(is_open)

    def receive_nowait(self, max_bytes: int) -> bytes:
        if max_bytes == 0:
            return b""
        try:
            data = read_terminal(self.sink.fd, max_bytes)
        except BlockingIOError:
            data = b""
        except OSError as exc:
            if exc.errno == errno.EIO:
                self._slave_closed()
                if self._line.is_looked_at:  # someone like stty(1) has come and gone
                    self._line.look()
            else:
                self.input_ended(exc)
            return b""
        if not self._leaving.is_only_user:
            self.set_open(True)
        if self._line.is_looked_at and data:
            self._line.look()
        return data

    def _slave_closed(self) -> None:
        has_left = self.is_open or self.slave_opened.is_set()
        if self.slave_opened.is_set():
            self.slave_opened = trio.Event()
        if (has_left or self._is_locked) and not self._leaving.has_slave:
            self._free()
        if not self._wants_another:
            self.set_open(False)

    def _free(self) -> None:
        """Undo the lock that the user has perhaps left on the slave. Raises nothing."""
        try:
            was_locked = unlock(self.pty)
        except OSError as exc:
            self._wants_another = exc.errno == errno.EBUSY  # not for want of a descriptor
            return
        if was_locked:
            log.info(
                "chardev '%s': '%s' was left locked by its user, and is free", self.id, self.pty
            )
        self._forget_user()

    def _forget_user(self) -> None:
        """Expect nobody to be there, unless somebody has opened the slave since."""
        self._wants_another = self._is_locked = False
        if self._watch is not None:  # it has seen the open of `unlock`
            self._watch[0].catch_up()
            self.slave_opened = trio.Event()
            if not is_hung_up(self.sink):
                self.slave_opened.set()

    async def _become_another(self) -> None:
        """Become another PTY, at the same link. While that is changed, it can't be Cancelled."""
        await trio.lowlevel.checkpoint()
        try:
            master, slave = _open_pair()
            with owned(master.close):
                if self._link is not None:
                    before, lead_to = self.pty, self._link.lead_to
                    await finish_on_files(lead_to, slave, discard=lambda _: lead_to(before))
        except (BackendError, OSError) as failure:
            if not self._is_locked:
                log.warning("'%s' was left locked by its user: %s", self.pty, failure)
            self._wants_another, self._is_locked = False, True
            self.set_open(False)
        else:
            self._move(master, slave)

    def _move(self, master: FdHolder, slave: str) -> None:
        self.set_open(True)  # in case the user was not noticed: CLOSED tells of the new PTY
        log.warning(
            "chardev '%s': '%s' was left locked by its user; it is at '%s' now",
            *(self.id, self.pty, slave),
        )
        self._unwatch()
        self._line.move(f"pty:{slave}", master)
        self.sink.close()
        self.source = self.sink = master
        self.pty = slave
        self._leaving.move(master, slave)
        self.watch()
        self._forget_user()
        self.set_open(False)

    def send_nowait(self, data: memoryview) -> int:
        """Make one attempt: what is sent to a closed slave would be lost, or go to a later user."""
        if is_hung_up(self.sink):
            raise BackendDisconnectedError(f"Nobody has '{self.pty}' open")
        self.set_open(True)
        return super().send_nowait(data)

    @property
    def input_fd(self) -> int | None:
        return self.sink.input_fd() if self.is_open else None

    async def wait_readable(self) -> None:
        if self._wants_another:
            await self._become_another()
        elif self.is_open:
            await super().wait_readable()
        elif self._is_locked:
            with trio.move_on_after(RETRY_INTERVAL):
                await self._wait_opened()
        else:
            await self._wait_opened()

    async def _wait_opened(self) -> None:
        if self._watch is not None and self._watch[0].works:
            await self.slave_opened.wait()
        else:
            await trio.sleep(LOOK_INTERVAL)

    async def wait_writable(self) -> None:
        sink = self.sink
        try:
            await super().wait_writable()
        except BackendError:
            if self.sink is sink:  # else it is another PTY now
                raise

    async def prepare(self) -> None:
        """Rename the link to its path, over the replaced backend's. Raises BackendError."""
        if self._link is not None:
            with slow_errors(f"Failed to create PTY symlink '{self._link.path}'"):
                await finish_on_files(self._link.move)

    def activate(self) -> None:
        """Keep the link where it is."""
        if self._link is not None:
            self._link.keep()

    def watch(self) -> None:
        """Watch for opens of the slave; without an inotify watch they are polled for."""
        try:
            watcher = get_watcher()
            self._watch = (watcher, watcher.add(self.pty, lambda: self.slave_opened.set()))
            self._leaving.watch(watcher)
        except OSError as exc:
            text = "chardev '%s': no inotify watch to be had (%s): looks for users now and then"
            log.warning(text, self.id, strerror(exc))

    async def link(self, path: str, replaces: Backend | None, sandbox: Sandbox) -> None:
        """Make the link at *path*, within *sandbox*. Raises BackendError."""
        replaced = replaces._link if isinstance(replaces, PtyBackend) else None
        make = partial(SlaveLink, path, self.pty, replaced=replaced, sandbox=sandbox)
        with slow_errors(f"Failed to create PTY symlink '{path}'"):
            self._link = await finish_on_files(make, discard=SlaveLink.remove)

    async def unlink(self) -> None:
        """Undo `link`, if it has made one. It can't be Cancelled."""
        if self._link is not None:
            await end_on_files(f"PTY symlink '{self._link.path}'", self._link.remove)

    def close(self) -> None:
        """Undo everything else; the opener calls it at its end."""
        self._leaving.stay()
        self._unwatch()
        super().close()

    def _unwatch(self) -> None:
        self._leaving.watch(None)
        if self._watch is not None:
            watcher, wd = self._watch
            self._watch = None
            watcher.remove(wd)


def slave_of(master: int) -> str:
    """The path of the slave of *master*. Raises OSError.

    That is ptsname(3). ttyname(3) of the slave looks whether it is there, by readlink(2) and two stat(2).
    """
    (number,) = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))
    return f"/dev/pts/{number}"


def unlock(slave: str) -> bool:
    """Undo TIOCEXCL. Returns whether it was set. Raises OSError, EBUSY if only root may do that."""
    fd = os.open(slave, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        (is_locked,) = struct.unpack("i", fcntl.ioctl(fd, TIOCGEXCL, bytes(4)))
        if is_locked:
            fcntl.ioctl(fd, termios.TIOCNXCL)
        return bool(is_locked)
    finally:
        os.close(fd)


class _PtyPeer(Peer):
    """Whoever opens the slave."""

    outlook = Outlook(may_come=True)


def open_pty(options: PtyOptions, request: OpenRequest) -> AbstractAsyncContextManager[PtyBackend]:
    """Give what makes a pseudoterminal in raw mode.

    Entering it raises BackendError: ``Failed to create PTY: strerror``, or ``Failed to create PTY
    symlink 'PATH': strerror`` if anything but the replaced backend's link is at that path.
    """
    opening = AtOnce(partial(_open_without_link, request), PtyBackend.close)
    return opening if options.path is None else _open_with_link(opening, options.path, request)


def _open_without_link(request: OpenRequest) -> PtyBackend:
    master, slave = _open_pair()
    with owned(master.close), backend_errors("Failed to create PTY"):
        backend = PtyBackend(request, master, slave)
    with owned(backend.close):
        backend.watch()
    return backend


@asynccontextmanager
async def _open_with_link(
    opening: AtOnce[PtyBackend], path: str, request: OpenRequest
) -> AsyncIterator[PtyBackend]:
    async with opening as backend:
        try:
            await backend.link(path, request.replaces, request.files.sandbox)
            yield backend
        finally:
            await backend.unlink()  # noqa: ASYNC102 - it shields itself, with a deadline


def _open_pair() -> tuple[FdHolder, str]:
    """Return the master, and the path of the slave, which nobody has open."""
    with backend_errors("Failed to create PTY"):
        master, slave = os.openpty()
        try:
            with owned(lambda: os.close(master)):
                os.set_blocking(master, False)  # not shared, so it need not be restored
            holder = FdHolder(master)
            with owned(holder.close):
                tty.setraw(slave)
                return holder, slave_of(master)
        finally:
            os.close(slave)


PTY = Kind(PtyOptions, open_pty)
