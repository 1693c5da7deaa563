"""serial: a serial line; /dev/null can be given in its place, for no line.

A line that the backend to be replaced has open is shared with it (dup(2)), and nothing on it
is altered before the commit. Any other line is set up as soon as it is open, because until it
is raw it echoes, which sends a board its own output. A change that fails restores the line.

When the line goes away (USB), its path is looked at now and then, until it can be opened and
set up as it was.
"""

from __future__ import annotations

import logging
import os
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from trio_chardev.backends.descriptor import (
    DescriptorBackend,
    FdHolder,
    open_fd,
    read_terminal,
    slow_errors,
    status_in_worker,
)
from trio_chardev.backends.holder import owned
from trio_chardev.backends.serial.breaks import BreakDecoder
from trio_chardev.backends.serial.controls import SerialLine
from trio_chardev.backends.serial.holders import explain_busy
from trio_chardev.backends.serial.line import (
    NO_SUCH_CONTROL,
    Found,
    WantedLine,
    are_breaks_marked,
    check_speed,
    is_hung_up,
    is_locked_unless_told,
    write_break,
)
from trio_chardev.backends.serial.options import SerialOptions as SerialOptions
from trio_chardev.backends.serial.remote import is_remote, open_remote
from trio_chardev.backends.serial.same_line import Links, links_to, links_to_return
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.line import Line
from trio_chardev.errors import BackendDisconnectedError, BackendError, OptionsError, backend_errors
from trio_chardev.events import Event
from trio_chardev.files import work_on_files

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 3.0  # seconds for the last bytes to be sent
BREAKS_AT_ONCE = 1024  # without a byte in between; then other tasks run
NULL_DEVICE = os.makedev(1, 3)  # devices.txt of the kernel


class PlainBackend(DescriptorBackend):
    """/dev/null in place of a serial line: it has no settings."""

    @property
    def filename(self) -> str:
        return "serial"

    async def open(self) -> None:
        """Set up what is needed, and become open."""
        self.set_open(True)

    async def aclose(self) -> None:
        """Close, after what takes time has been done."""
        self.close()


class SerialBackend(PlainBackend):
    """A serial line."""

    is_polled = True

    def __init__(
        self,
        request: OpenRequest,
        holder: FdHolder,
        options: SerialOptions,
        found: Found | None = None,
        owner: SerialBackend | None = None,
    ) -> None:
        """Without a commit *found* is restored; until the commit the line belongs to *owner*."""
        super().__init__(request, holder, holder)
        self._open_path = request.files.open
        self.device = options.device
        exclusive = options.exclusive
        if exclusive is None:
            exclusive = is_locked_unless_told(os.fstat(holder.fd))
        wanted = WantedLine(options.device, options.line, exclusive)
        line_of_owner = owner._line if owner is not None else None
        self._line: SerialLine = SerialLine(wanted, holder, request.on_event, line_of_owner)
        self._reopen_interval = options.reopen_ms / 1000
        self._owner = owner  # until the commit
        self.links: Links = ()
        """The links that led to the line when it was opened."""
        self._found = found
        self._breaks = BreakDecoder()

    @property
    def line(self) -> Line:
        return self._line

    # ------------------------------------------------------------ opening, the commit, closing

    @property
    def is_locked(self) -> bool:
        """Is the line locked against other programs?"""
        return self._line.wanted.is_locked

    def has_open(self, device: os.stat_result) -> bool:
        """Does this backend have the line *device* open?"""
        try:
            same = os.fstat(self.sink.fd).st_rdev == device.st_rdev
        except OSError:  # it is away
            return False
        return same and not is_hung_up(self.sink.fd)

    async def open(self) -> None:
        """Set the line up, unless another backend owns it. Raises BackendError."""
        if self._line.owner is None:
            await self._line.wanted.set_up(self.sink.fd)
        self.set_open(True)

    def activate(self) -> None:
        """Set a shared line up. Raises BackendError, and then the line has not changed."""
        self._line.take_over()
        if self._owner is not None:
            self._breaks = self._owner._breaks  # it may hold the first bytes of a mark
            self._owner = None
        self._found = None

    async def aclose(self) -> None:
        """Close within `CLOSE_TIMEOUT`, in which accepted bytes are sent if they can be."""
        try:
            if not self.sink.closed and self._line.owner is None:
                await self._leave_line(self.sink.fd)
        finally:
            self.close()

    async def _leave_line(self, fd: int) -> None:
        if self._line.wanted.is_break:
            write_break(fd, False)
        if self._found is not None:
            self._found.restore(fd)
        else:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as cut:
                await self._line.wait_sent()
            if cut.cancelled_caught:  # else close(2) would block every task, for half a minute
                with suppress(termios.error):
                    termios.tcflush(fd, termios.TCOFLUSH)
        self._line.wanted.unlock(fd)

    # ------------------------------------------------------------ bytes

    def receive_nowait(self, max_bytes: int) -> bytes:
        # Only the owner reads a shared line. Even for a drain that is soon enough, and after the
        # commit a late read of the old backend can't take bytes that are the new one's.
        breaks = 0
        while max_bytes > 0 and self._line.owner is None and breaks < BREAKS_AT_ONCE:
            item = self._breaks.take(max_bytes)
            if isinstance(item, Event):
                self._on_event(item)
                breaks += 1
            elif item:
                return item
            else:
                raw = super().receive_nowait(max_bytes)
                if not raw or self._breaks.is_plain(raw):
                    return raw
                self._decode(raw)
        return b""

    def read(self, source: FdHolder, max_bytes: int) -> bytes:
        return read_terminal(source.fd, max_bytes)

    def _decode(self, raw: bytes) -> None:
        """Decode *raw* if PARMRK is still on: every program that opens a line sets it up anew."""
        try:
            is_marked = are_breaks_marked(self.sink.fd)
        except OSError:  # hung up
            is_marked = True
        if is_marked:
            self._breaks.feed(raw)
        else:
            self._breaks.feed_unmarked(raw)

    def input_ended(self, error: OSError | None) -> None:
        # Another program may have set VMIN to 0, and then having no data reads as the end.
        if error is not None or is_hung_up(self.sink.fd):
            log.warning("chardev '%s': '%s' went away", self.id, self.device)
            self.source = None
            self.sink.close()
            self._breaks = BreakDecoder()
            self.set_open(False)

    async def wait_readable(self) -> None:
        if self._breaks.items:
            await trio.lowlevel.checkpoint()
        elif self.source is not None:
            await super().wait_readable()
        else:
            await self._reopen()

    def send_nowait(self, data: memoryview) -> int:
        self._line.check_there()
        return super().send_nowait(data)

    def send_failed(self, error: OSError) -> BackendError:
        # The reader reports CLOSED, after the bytes that came before it. A line that is still
        # there will take more: drivers report the failure of a single USB transfer as well.
        kind = BackendDisconnectedError if is_hung_up(self.sink.fd) else BackendError
        return kind.from_os_error(f"Could not write to '{self.device}'", error)

    async def wait_writable(self) -> None:
        try:
            await super().wait_writable()
        except BackendError:  # closed by the reader
            self._line.check_there()

    async def _reopen(self) -> None:
        """Wait until the line is there again, and open it."""
        if not self._reopen_interval:
            raise BackendError(f"'{self.device}' went away")
        trouble = ""
        while self.source is None:
            await trio.sleep(self._reopen_interval)
            try:
                await self._open_again()
            except BackendError as exc:
                if str(exc) != trouble:
                    trouble = str(exc)
                    log.info("chardev '%s': %s", self.id, trouble)

    async def _open_again(self) -> None:
        links = await links_to_return(self.device, self.links)
        holder, _ = await _open_line(self.device, self._open_path)
        try:
            await self._line.wanted.set_up(holder.fd)
        except BaseException:
            holder.close()
            raise
        self.links = links
        self.source = self.sink = self._line.holder = holder
        log.info("chardev '%s': '%s' is back", self.id, self.device)
        self.set_open(True)


async def _open_line(
    device: str, opener: Callable[[str, int], int]
) -> tuple[FdHolder, Found | None]:
    """Open the line, and read its state; None if it is /dev/null. Raises BackendError.

    This runs in a thread, as the driver of an adaptor that hangs may block, also in closing.
    """
    with slow_errors(f"Could not open '{device}'"):
        return await work_on_files(_open_and_look, device, opener, discard=_close_line)


def _close_line(opened: tuple[FdHolder, Found | None]) -> None:
    opened[0].close()


def _open_and_look(device: str, opener: Callable[[str, int], int]) -> tuple[FdHolder, Found | None]:
    holder = open_fd(device, os.O_RDWR, opener)
    with owned(holder.close), backend_errors(f"Could not open '{device}'"):
        try:
            return holder, Found.at(holder.fd)
        except OSError as exc:
            if os.fstat(holder.fd).st_rdev == NULL_DEVICE:
                return holder, None
            if exc.errno in NO_SUCH_CONTROL:
                raise BackendError(f"Could not open '{device}': it is not a tty") from exc
            raise  # such as EIO from a serial port that the machine lacks


async def _make(
    options: SerialOptions, request: OpenRequest, device: os.stat_result | None
) -> PlainBackend:
    original = request.replaces
    if isinstance(original, SerialBackend) and device and original.has_open(device):
        with backend_errors(f"Could not open '{options.device}'"):
            holder = FdHolder(os.dup(original.sink.fd))
            with owned(holder.close):
                return SerialBackend(request, holder, options, owner=original)
    holder, found = await _open_line(options.device, request.files.open)
    with owned(holder.close), backend_errors(f"Could not open '{options.device}'"):
        if found is None:
            return PlainBackend(request, holder, holder)
        return SerialBackend(request, holder, options, found=found)


def _check_free(options: SerialOptions, request: OpenRequest, device: os.stat_result) -> None:
    """Raise BackendError if another chardev has the line, and one of the two is exclusive."""
    wants = is_locked_unless_told(device) if options.exclusive is None else options.exclusive
    for id, chardev in request.environment.chardevs.items():
        other = chardev.backend
        if id == request.id or not isinstance(other, SerialBackend):
            continue
        if (wants or other.is_locked) and other.has_open(device):
            raise BackendError(f"'{options.device}' is in use by chardev '{id}'")


@asynccontextmanager
async def open_serial(options: SerialOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open the line. Raises BackendError, also for what is neither a tty nor /dev/null, OptionsError."""
    if options.reopen_ms < 0:
        raise OptionsError("reopen-ms must not be negative")
    check_speed(options.device, options.line)
    if is_remote(options.device):
        async with open_remote(options, request) as remote:
            yield remote
        return
    device = await status_in_worker(options.device, request)
    if device is not None:
        _check_free(options, request, device)
    try:
        backend = await _make(options, request, device)
    except BackendError as exc:
        raise await explain_busy(options.device, exc) from exc.__cause__
    try:
        if isinstance(backend, SerialBackend):
            backend.links = await links_to(options.device)
        await backend.open()
        yield backend
    finally:
        await backend.aclose()
