"""serial: a serial line; /dev/null can be given in its place, for no line.

A line that the backend to be replaced has open is shared with it (dup(2)), and nothing on it
is altered before the commit. Any other line is set up as soon as it is open, because until it
is raw it echoes, which sends a board its own output. A change that fails restores the line.

When the line goes away (USB), or was never there, it is looked for until it can be opened and set
up as it is wanted.
"""

from __future__ import annotations

import logging
import os
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from trio_chardev.backends.descriptor import FdHolder, read_terminal
from trio_chardev.backends.holder import closed_holder, owned
from trio_chardev.backends.serial.breaks import BreakDecoder
from trio_chardev.backends.serial.controls import SerialLine
from trio_chardev.backends.serial.device import Device, may_come
from trio_chardev.backends.serial.holders import explain_busy
from trio_chardev.backends.serial.line import are_breaks_marked, is_locked_unless_told
from trio_chardev.backends.serial.modem import is_hung_up, write_break
from trio_chardev.backends.serial.options import SerialOptions as SerialOptions
from trio_chardev.backends.serial.peer import HangUp, SerialPeer
from trio_chardev.backends.serial.plain import PlainBackend
from trio_chardev.backends.serial.remote import is_remote, open_remote
from trio_chardev.backends.serial.search import Search
from trio_chardev.backends.serial.usb import Roots
from trio_chardev.backends.serial.wanted import Found, WantedLine
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.errors import BackendDisconnectedError, BackendError, backend_errors
from trio_chardev.events import Event

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 3.0  # seconds for the last bytes to be sent
BREAKS_AT_ONCE = 1024  # without a byte in between; then other tasks run
ROOTS = Roots()


class SerialBackend(PlainBackend):
    """A serial line."""

    is_polled = True
    gives_all = True

    def __init__(
        self,
        request: OpenRequest,
        options: SerialOptions,
        device: Device,
        holder: FdHolder | None,
        *,
        found: Found | None = None,
        owner: SerialBackend | None = None,
        absence: str = "",
    ) -> None:
        """Take *holder* over; None if the line is absent, for the reason *absence*.

        Without a commit *found* is restored; until the commit the line belongs to *owner*.
        """
        super().__init__(request, holder, holder or closed_holder())
        self._device = device
        self._check_free = partial(_check_free, options, request)
        wanted = WantedLine.of(options)
        line_of_owner = owner._line if owner is not None else None
        self._line: SerialLine = SerialLine(wanted, self.sink, request.on_event, line_of_owner)
        self._search = Search(
            self.id, device, options.reopen_ms / 1000, absence, request.on_failure
        )
        self._may_be_absent = options.wait is False
        self._told_refused: frozenset[str] = frozenset()
        self._owner = owner  # until the commit
        self._found = found
        self._breaks = BreakDecoder()
        self._hang_up = HangUp()

    @property
    def filename(self) -> str:
        return "disconnected:serial" if self.source is None else "serial"

    @property
    def line(self) -> Line:
        return self._line

    @property
    def peer(self) -> Peer:
        return SerialPeer(self.filename, self._hang_up, self._attend, self._search)

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
        """Set the line up, unless another backend owns it, or it is absent. Raises BackendError."""
        if not self.sink.closed and self._line.owner is None:
            try:
                await self._line.wanted.set_up(self.sink.fd)
            except BackendError as exc:
                if not (self._may_be_absent and may_come(exc)):
                    raise
                self._search.error = str(exc)
                self._device.links = None  # it was not ours
                self.close()
                self.source = None
            else:
                self._tell_refused()
        if self.sink.closed:
            self._line.absence = "is not there yet"
            self._search.note_loss(self._search.error)
            log.warning("chardev '%s': %s; it is looked for", self.id, self._search.error)
        else:
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
        if self._found is not None:
            self._line.wanted.restore(fd, self._found)
        else:
            if self._line.wanted.is_break:
                with suppress(OSError):
                    write_break(fd, False)
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
            if not self._breaks.items:
                raw = self.read_nowait(max_bytes)
                if b"\xff" not in raw and not (raw and self._breaks.tail):
                    return raw
                self._decode(raw)
            item = self._breaks.take(max_bytes)
            self.gives_all = not self._breaks.items
            if isinstance(item, Event):
                self._on_event(item)
                breaks += 1
            elif item:
                return item
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
            self._search.note_loss(f"'{self._device.path}' went away")
            log.warning("chardev '%s': %s", self.id, self._search.error)
            self.close()
            self.source = None
            self._line.absence = "went away"
            self._breaks = BreakDecoder()
            self.set_open(False)

    @property
    def input_fd(self) -> int | None:
        return None if self.source is None else self.source.input_fd()

    async def wait_readable(self) -> None:
        if self._breaks.items:
            await trio.lowlevel.checkpoint()
        elif self.source is not None:
            await self.source.wait_readable()
        else:
            await self._reopen()

    async def _attend(self) -> None:
        """See `Peer.attend`."""
        if self.source is None:
            await self._reopen()
        elif self._hang_up.has_come:  # and there is no room at all for what came before it
            await trio.sleep_forever()
        else:
            await self._hang_up.wait(self.source.fd)

    def close(self) -> None:
        self._hang_up.reset()
        super().close()

    def send_nowait(self, data: memoryview) -> int:
        if self.sink.fd == -1:
            self._line.check_there()
        return super().send_nowait(data)

    def send_failed(self, error: OSError) -> BackendError:
        # The reader reports CLOSED, after the bytes that came before it. A line that is still
        # there will take more: drivers report the failure of a single USB transfer as well.
        kind = BackendDisconnectedError if is_hung_up(self.sink.fd) else BackendError
        return kind.from_os_error(f"Could not write to '{self._device.path}'", error)

    async def wait_writable(self) -> None:
        try:
            await super().wait_writable()
        except BackendError:  # closed by the reader
            self._line.check_there()

    async def _reopen(self) -> None:
        """Wait until the line is there again, and open it."""
        if not self._search.interval:
            raise BackendError(f"'{self._device.path}' went away")
        await self._search.run(self._open_again)

    async def _open_again(self) -> None:
        opened = await self._device.open()
        holder = opened.holder
        try:
            with backend_errors(f"Could not open '{self._device.path}'"):
                self._check_free(os.fstat(holder.fd))
            await self._line.wanted.set_up(holder.fd)
        except BaseException:
            holder.close()
            raise
        was_here = self._device.links is not None
        self._device.links = opened.links
        self.source = self.sink = self._line.holder = holder
        how = "back" if was_here else "there"
        log.info("chardev '%s': '%s' is %s", self.id, self._device.path, how)
        self._tell_refused()
        self.set_open(True)

    def _tell_refused(self) -> None:
        """Log what the driver has refused, once."""
        wanted = self._line.wanted
        if wanted.refused - self._told_refused:
            words = ", ".join(wanted.words_for_refused())
            log.warning("chardev '%s': '%s' does without %s", self.id, self._device.path, words)
        self._told_refused = wanted.refused


async def _make(options: SerialOptions, request: OpenRequest, device: Device) -> PlainBackend:
    seen = await device.look()
    if seen is not None:
        _check_free(options, request, seen.status)
    original = request.replaces
    if isinstance(original, SerialBackend) and seen and original.has_open(seen.status):
        with backend_errors(f"Could not open '{options.path}'"):
            holder = FdHolder(os.dup(original.sink.fd))
            with owned(holder.close):
                device.links = seen.links
                return SerialBackend(request, options, device, holder, owner=original)
    try:
        opened = await device.open()
    except BackendError as exc:
        explained = await explain_busy(options.path, exc)  # noqa: ASYNC120 - Cancelled says enough
        if options.wait is False and may_come(exc):
            return SerialBackend(request, options, device, None, absence=str(explained))
        raise explained from exc.__cause__
    with owned(opened.close), backend_errors(f"Could not open '{options.path}'"):
        if opened.found is None:
            return PlainBackend(request, opened.holder, opened.holder)
        device.links = opened.links
        return SerialBackend(request, options, device, opened.holder, found=opened.found)


def _check_free(options: SerialOptions, request: OpenRequest, device: os.stat_result) -> None:
    """Raise BackendError if another chardev has the line, and one of the two is exclusive."""
    wants = is_locked_unless_told(device) if options.exclusive is None else options.exclusive
    for id, chardev in request.environment.chardevs.items():
        other = chardev.backend
        if id == request.id or not isinstance(other, SerialBackend):
            continue
        if (wants or other.is_locked) and other.has_open(device):
            raise BackendError(f"'{options.path}' is in use by chardev '{id}'")


@asynccontextmanager
async def open_serial(
    options: SerialOptions, request: OpenRequest, roots: Roots = ROOTS
) -> AsyncIterator[Backend]:
    """Open the line, or look for it.

    Raises BackendError, also for what is neither a tty nor /dev/null, OptionsError.
    """
    options.check()
    if is_remote(options.path):
        async with open_remote(options, request) as remote:
            yield remote
        return
    backend = await _make(options, request, Device(options.path, request.files.open, roots))
    try:
        await backend.open()
        yield backend
    finally:
        await backend.aclose()


SERIAL = Kind(SerialOptions, open_serial)
