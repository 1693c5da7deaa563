"""pty: a pseudoterminal (pty(7)); its users open the slave, /dev/pts/N or a link to it.

The master tells what happens there:

* with the slave open, reading gives bytes or EAGAIN; with nobody there and nothing left to
  read, it gives EIO. So bytes that were written before a close come before CLOSED.
* when the last user closes, epoll reports a hang-up, and goes on doing so for ever. While
  nobody is there we therefore wait for inotify(7)'s word that the slave was opened.

One inotify instance serves all PTYs of a trio run, because a user may have only 128 (sysctl
fs.inotify.max_user_instances). From the first PTY on a system task reads it, to the end of
the run: to close it takes 0.3 to 10 ms, because the kernel waits for all who may look at it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import math
import os
import select
import struct
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from trio_chardev.backends.descriptor import (
    DRAIN_INTERVAL,
    DescriptorBackend,
    FdHolder,
    count_unread,
    read_all,
)
from trio_chardev.backends.pty_line import PtyLine
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import LineSettings
from trio_chardev.options import BackendOptions

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class PtyOptions(BackendOptions):
    """Makes a pseudoterminal."""

    open_timeout = math.inf  # it does not wait

    path: str | None = None
    """Symbolic link to make to the pseudoterminal's slave."""


LOOKS = 10  # the kernel holds up to 25 KiB for a PTY (pty.c, tty_buffer.c), 4095 bytes a look
QUIET_TIME = 0.02  # seconds; whose unread bytes are as many as before does not read


# ---------------------------------------------------------------- inotify

IN_OPEN = 0x20  # inotify(7), <sys/inotify.h>
IN_Q_OVERFLOW = 0x4000
_RECORD = struct.Struct("iIII")  # wd, mask, cookie, length of the name (none for a file)
_READ_SIZE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *args: int | bytes) -> int:
    """Call the C library, which Python's os has no inotify of. Raises OSError."""
    result: int = getattr(_libc, function)(*args)
    if result < 0:
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
    return result


class _OpenWatcher:
    """Tells PTYs that their slave was opened, by their `trio.Event`."""

    def __init__(self) -> None:
        self.inotify = FdHolder(_call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC))
        self._watches: dict[int, PtyBackend] = {}

    def add(self, backend: PtyBackend) -> int:
        """Watch the slave of *backend*; gives what `remove` needs. Raises OSError."""
        wd = _call("inotify_add_watch", self.inotify.fd, os.fsencode(backend.pty), IN_OPEN)
        self._watches[wd] = backend
        return wd

    def remove(self, wd: int) -> None:
        """Watch no more."""
        del self._watches[wd]
        with contextlib.suppress(OSError):  # it went with the slave's file
            _call("inotify_rm_watch", self.inotify.fd, wd)

    async def run(self) -> None:
        """The system task: wake the PTYs whose slave was opened."""
        try:
            while not self.inotify.closed:
                await self.inotify.wait_readable()
                self._read()
        except BackendError:
            pass  # closed while it waited
        finally:
            self.inotify.close()

    def _read(self) -> None:
        try:
            records = os.read(self.inotify.fd, _READ_SIZE)
        except OSError:  # nothing there, or closed since the wait
            return
        for wd, mask, _, _ in _RECORD.iter_unpack(records):
            if mask & IN_Q_OVERFLOW:  # some records were lost: all have to look
                for backend in self._watches.values():
                    backend.slave_opened.set()
            elif wd in self._watches:
                self._watches[wd].slave_opened.set()


_watcher_of_run: trio.lowlevel.RunVar[_OpenWatcher | None] = trio.lowlevel.RunVar("PTY watcher")


def _get_watcher() -> _OpenWatcher:
    """The one of this trio run, started if there is none. Raises OSError."""
    watcher = _watcher_of_run.get(None)
    if watcher is None or watcher.inotify.closed:
        watcher = _OpenWatcher()
        _watcher_of_run.set(watcher)
        trio.lowlevel.spawn_system_task(watcher.run)
    return watcher


# ---------------------------------------------------------------- the link


class _Link:
    """A symbolic link to a slave.

    It is made beside its place if the backend to be replaced has its own there, and is moved
    by the commit.
    """

    def __init__(self, path: str, slave: str, replaces: Backend | None) -> None:
        """Raises BackendError, also if anything else is at *path*."""
        self.path = path
        self._slave = slave
        self._made = path
        if isinstance(replaces, PtyBackend) and replaces.has_link(path):
            self._made = f"{path}.{os.path.basename(slave)}"
        with _link_errors(path):
            if _is_left_behind(path, slave):
                os.unlink(path)
            os.symlink(slave, self._made)

    @property
    def is_ours(self) -> bool:
        """Nobody has put another link, or file, in its place."""
        try:
            return os.readlink(self._made) == self._slave
        except OSError:
            return False

    def move(self) -> None:
        """Put it in its place. Raises BackendError."""
        if self._made != self.path:
            with _link_errors(self.path):
                os.rename(self._made, self.path)
            self._made = self.path

    def remove(self) -> None:
        """Unlink it, if it is still ours."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                os.unlink(self._made)


def _is_left_behind(path: str, slave: str) -> bool:
    """Is it a link to a PTY that is gone, or is ours now? A crash leaves such."""
    try:
        leads_to = os.readlink(path)
    except OSError:  # nothing, or no link
        return False
    return leads_to.startswith("/dev/pts/") and (leads_to == slave or not os.path.exists(path))


@contextmanager
def _link_errors(path: str) -> Iterator[None]:
    failed = f"Failed to create PTY symlink '{path}'"
    try:
        yield
    except OSError as exc:
        raise BackendError.from_os_error(failed, exc) from exc
    except ValueError as exc:  # a NUL, or what the file system's encoding does not have
        raise BackendError(f"{failed}: {exc}") from exc


# ---------------------------------------------------------------- the backend


class PtyBackend(DescriptorBackend):
    """The master of a pseudoterminal."""

    pty: str
    is_polled = True

    def __init__(self, request: OpenRequest, master: FdHolder, slave: str) -> None:
        super().__init__(request, master, master)
        self.pty = slave
        self.slave_opened = trio.Event()
        """Set by the watcher: it is worth while to read again."""
        self._watch: tuple[_OpenWatcher, int] | None = None
        self._link: _Link | None = None
        self._line = PtyLine(master)
        self._is_looked_at = False
        self._slave: int | None = None
        """Open from the commit of a change on, to look at what is left and to read it."""
        self._has_user = False
        """When that was opened somebody else had it open, too."""

    @property
    def filename(self) -> str:
        return f"pty:{self.pty}"

    def has_link(self, path: str) -> bool:
        """Is the link at *path* this backend's?"""
        return self._link is not None and self._link.path == path and self._link.is_ours

    def receive_nowait(self, max_bytes: int) -> bytes:
        if max_bytes == 0:
            return b""
        try:
            data = os.read(self.sink.fd, max_bytes)
        except BlockingIOError:
            data = b""
        except OSError as exc:
            if exc.errno == errno.EIO:
                self._slave_closed()
                if self._is_looked_at:  # stty(1) has come and gone
                    self.look_at_line()
            else:
                self.input_ended(exc)
            return b""
        if self._slave is None or self._has_user:  # else nobody is there but we
            self.set_open(True)
        if self._is_looked_at and data:
            self.look_at_line()
        return data

    def look_at_line(self) -> None:
        """See LineWatch. From the first look on it also looks when bytes come, before them."""
        self._is_looked_at = True
        if settings := self._line.look():
            self._on_event(settings)

    def show_line(self, settings: LineSettings) -> None:
        """See LineDisplay. What the user has set itself, and nobody has seen yet, is left."""
        if news := self._line.look():
            self._on_event(news)
        else:
            self._line.show(settings)

    def _slave_closed(self) -> None:
        if self.slave_opened.is_set():
            self.slave_opened = trio.Event()
        self.set_open(False)

    def send_nowait(self, data: memoryview) -> int:
        """One attempt. What is sent to a closed slave would get lost or to a later user."""
        if self._is_hung_up():
            raise BackendDisconnectedError(f"Nobody has '{self.pty}' open")
        self.set_open(True)
        return super().send_nowait(data)

    def _is_hung_up(self) -> bool:
        if self.sink.closed:
            return True
        poll = select.poll()
        poll.register(self.sink.fd, 0)  # POLLHUP is reported unasked
        return bool(poll.poll(0))

    async def wait_readable(self) -> None:
        if self.is_open:
            await super().wait_readable()
        else:
            await self.slave_opened.wait()

    def activate(self) -> None:
        """Put the link in place of the replaced backend's. Raises BackendError."""
        if self._link is not None:
            self._link.move()

    def prepare_to_leave(self, *, carry: bool) -> None:
        """Open the slave, if there is anything to do with it, and its user has not locked it.

        Raises BackendError.
        """
        if not self.sink.closed:
            self._has_user = not self._is_hung_up()
            if self._has_user or carry:  # an open wakes the watcher, too
                self._slave = self._open_slave()

    def stay(self) -> None:
        """Close the slave."""
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    async def drain(self) -> None:
        """Wait until the slave's user has read everything: closing the master drops the rest."""
        if self._slave is not None and self._has_user:
            while not _is_empty(self._slave):  # noqa: ASYNC110 - there is no event
                await trio.sleep(DRAIN_INTERVAL)

    async def settle(self) -> None:
        """Wait while the slave's user reads: two who read at a time get pieces by turns."""
        if self._is_hung_up():
            return
        slave = self._open_slave()
        if slave is None:
            return
        try:
            quiet, before = 0.0, -1
            while quiet < QUIET_TIME and not _is_empty(slave):
                unread = count_unread(slave)
                quiet = quiet + DRAIN_INTERVAL if unread == before else 0.0
                before = unread
                await trio.sleep(DRAIN_INTERVAL)
        finally:
            os.close(slave)

    def take_back(self) -> bytes:
        """Read it as its user would, or the next one, who get it from this PTY no more."""
        data = b""
        if self._slave is not None:
            for _ in range(LOOKS):  # a read may fail only because another is under way
                data += read_all(self._slave)
                if _is_empty(self._slave):
                    break
        return data

    def _open_slave(self) -> int | None:
        try:
            return os.open(self.pty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno == errno.EBUSY:  # TIOCEXCL (ioctl_tty(2)), as picocom and tio set it
                log.warning("'%s' is locked by its user: what is unread is lost", self.pty)
                return None
            raise BackendError.from_os_error(f"Could not open '{self.pty}'", exc) from exc

    def watch(self) -> None:
        """Begin to hear of opens. Raises BackendError."""
        try:
            watcher = _get_watcher()
            self._watch = (watcher, watcher.add(self))
        except OSError as exc:
            raise BackendError.from_os_error("Failed to create PTY", exc) from exc

    def link(self, path: str, replaces: Backend | None) -> None:
        """Make the link. Raises BackendError."""
        self._link = _Link(path, self.pty, replaces)

    def close(self) -> None:
        """Undo all; for the opener, when it leaves."""
        self.stay()
        if self._link is not None:
            self._link.remove()
        if self._watch is not None:
            watcher, wd = self._watch
            watcher.remove(wd)
        super().close()


def _is_empty(slave: int) -> bool:
    """Has the slave's user read everything, and is nothing on its way to him?

    The kernel holds what the line discipline has no room for, and moves it on when a reader
    has made room: then, for a moment, there is nothing to see. But each look moves it on, by
    as much as the line discipline holds, so that it can't be that often.
    """
    return not any(_has_input(slave) for _ in range(LOOKS))


def _has_input(slave: int) -> bool:
    poll = select.poll()
    poll.register(slave, select.POLLIN)
    # poll(2) waits for what is on its way (n_tty_poll), FIONREAD for a reader (n_tty_ioctl).
    return bool(poll.poll(0)) or count_unread(slave) > 0


@asynccontextmanager
async def open_pty(options: PtyOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Make a pseudoterminal in raw mode.

    Raises BackendError, ``Failed to create PTY: strerror``, or ``Failed to create PTY
    symlink: strerror`` if anything is at that path but the replaced backend's link.
    """
    backend = PtyBackend(request, *_open_pair())
    try:
        backend.watch()
        if options.path is not None:
            request.sandbox.check(options.path, follow=False)
            backend.link(options.path, request.replaces)
        yield backend
    finally:
        backend.close()


def _open_pair() -> tuple[FdHolder, str]:
    """The master, and the path of the slave, which nobody has open."""
    try:
        master, slave = os.openpty()
    except OSError as exc:
        raise BackendError.from_os_error("Failed to create PTY", exc) from exc
    holder = FdHolder(master)
    try:
        tty.setraw(slave)
        return holder, os.ttyname(slave)
    except (OSError, termios.error) as exc:
        holder.close()
        raise BackendError(f"Failed to create PTY: {exc}") from exc
    finally:
        os.close(slave)
