"""The user's end of a chardev: a Trio stream that survives changes of the backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from trio_chardev.core.backend import Backend
from trio_chardev.core.direct_path import DirectPath
from trio_chardev.core.expect import Expected, Pattern, expect
from trio_chardev.core.fast import ways
from trio_chardev.core.handlers import Calls, Handlers
from trio_chardev.core.inbox import Inbox
from trio_chardev.core.line_in_place import LineInPlace
from trio_chardev.core.outbox import Outbox
from trio_chardev.core.relay import Relay
from trio_chardev.core.weak import weakly
from trio_chardev.errors import BackendDisconnectedError, ChardevClosedError
from trio_chardev.events import WindowSize

MAX_CHUNK = 1 << 20  # bytes that receive_some returns at most, by default


@attrs.frozen(kw_only=True)
class FrontendStatistics:
    """The result of `Frontend.statistics`."""

    is_open: bool
    """Is somebody at the other end?"""
    bytes_waiting: int
    """How many bytes were received and not taken yet; an event among them counts as 64."""
    tasks_waiting_send: int
    """How many tasks wait for their turn to send; one more may be sending."""
    is_receiving: bool
    """Does a task wait to receive?"""
    lost: int
    """How many bytes for the chardev the user gave up, as a hub does for a slow chardev."""


class Frontend(trio.abc.Stream):
    """The result of `Chardev.attach`, for the chardev's user; only a mux lets several use one.

    *be_change* is awaited in every change with the new backend's `Controls`, before the
    commit, while nothing can be written: it must not write or wait for a task that does
    (WriteInChangeError where that can be seen, otherwise it waits until it is cancelled).
    If it raises, the change is undone and it is called again with the original's.

    *on_receive* is called by the task that reads the backend, so that a byte needs no second
    task. What it does not take is queued, for `receive_some` or for `accept_input`, and it is
    not called again until that is taken. If a handler raises, `fe_open` and `on_open` included, the
    frontend is detached and the error logged; the chardev, and a change under way, go on.
    """

    def __init__(
        self,
        outbox: Outbox,
        inbox: Inbox[Frontend],
        on_detach: Callable[[Frontend], None],
        handlers: Handlers,
    ) -> None:
        self.id = outbox.id
        """The chardev's id."""
        self._on_detach = on_detach
        self._outbox = outbox
        self._inbox = inbox
        self._is_receiving = False
        self.calls = Calls(self.id, handlers, weakly(Frontend.detach, self))
        """Calls the user's handlers."""
        self.relay = Relay(self, inbox, outbox)
        """Methods for a user that passes bytes on."""

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end now?"""
        return self._outbox.is_open

    @property
    def window_size(self) -> WindowSize:
        """The size of the other end's window, as far as it is known: 0x0 is not.

        `WindowSize` as an event tells of a change while somebody is there; look here when the
        frontend is attached, and at OPENED, MUX_IN and ``be_change``.
        """
        return self._outbox.runner.window_size

    @property
    def backend(self) -> Backend:
        """The chardev's backend that is in place now."""
        return self._outbox.runner.backend

    @property
    def is_attached(self) -> bool:
        """False once it is closed, or was detached because one of its handlers failed."""
        return self._inbox.frontend is self

    def _check(self) -> None:
        if not self.is_attached:
            raise trio.ClosedResourceError("this frontend is not attached any more")

    # ------------------------------------------------------------ bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data* as one piece, across any changes of the backend.

        Several tasks may send: each waits for its turn. Raises BackendDisconnectedError if nobody
        is at the other end, BackendFailedError if the backend can't send now, both
        BrokenResourceErrors, and ChardevClosedError if the chardev is gone. When Cancelled or
        raising, it may have sent a part.
        """
        await self._outbox.send_all(memoryview(data).cast("B"), self._check)

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send a non-empty prefix of *data*; return its length. Cancelled: nothing was sent."""
        view = memoryview(data).cast("B")
        try:
            return await self._outbox.send_some(view, self._check)
        except BackendDisconnectedError:
            self._note_refused(view)
            raise

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what can be sent at once; return how many bytes, maybe 0 (QEMU's chr_fe_write)."""
        if self._inbox.frontend is not self:
            self._check()
        view = memoryview(data)
        try:
            return self._outbox.send_nowait(view if view.format == "B" else view.cast("B"))
        except BackendDisconnectedError:
            self._note_refused(view)
            raise

    def _note_refused(self, data: memoryview) -> None:
        if not self.relay.keeps_refused:
            self.relay.give_up(data)

    async def send_eof(self) -> None:
        """Tell the peer that no more will come, after what was sent; it can go on sending.

        Raises as `send_all`, and NotSupportedError where the backend can't do that. This peer can
        be sent nothing more, the next one can.
        """
        await self._outbox.send_eof(lambda runner: runner.backend.peer.send_eof(), self._check)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until no write or change is under way, and the backend may take something.

        May return too early. Raises as `send_all`.
        """
        self._check()
        await self._outbox.wait_writable(self._check)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait, through disconnects and changes, for 1 to *max_bytes* bytes.

        Returns ``b""`` only when the chardev is gone. When Cancelled, nothing was taken.
        """
        if max_bytes is None:
            max_bytes = MAX_CHUNK
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int, not {max_bytes!r}")
        elif max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._refuse_second_receiver()
        if (data := self.take_ready(max_bytes)) or self._is_over:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        with self._receiving():
            return await self._receive(max_bytes)

    async def expect(self, pattern: Pattern, *, timeout: float = math.inf) -> Expected:
        """Wait until *pattern* has come, through disconnects and changes.

        *pattern* is bytes, text (as UTF-8) or a compiled expression of bytes. Returns what came
        before, and the match; what follows stays. A match that comes in pieces is found if it
        has at most 8 KiB.

        Raises ExpectTimeoutError after *timeout* seconds, ExpectError after 1 MiB without a match,
        ChardevClosedError if the chardev is gone: each says what came. When it raises anything,
        Cancelled included, it has taken nothing.
        """
        await trio.lowlevel.checkpoint()
        self._check()
        with self._receiving():
            return await expect(pattern, timeout, self._receive, self.relay.put_back)

    async def _receive(self, max_bytes: int) -> bytes:
        """Do as `receive_some`, in the one task that receives; a checkpoint only if it waits."""
        data = self.take_ready(max_bytes)
        while not data and not self._is_over:
            await self._inbox.queue.wait_item()
            data = self.take_ready(max_bytes)
        return data

    def _refuse_second_receiver(self) -> None:
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this frontend")

    @contextmanager
    def _receiving(self) -> Iterator[None]:
        """Be the only task that receives."""
        self._refuse_second_receiver()
        self._is_receiving = True
        try:
            yield
        finally:
            self._is_receiving = False

    async def wait_open(self) -> None:
        """Wait until somebody is at the other end.

        Raises ChardevClosedError if the chardev is gone.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._outbox.is_closed:
                raise ChardevClosedError(f"Chardev '{self.id}' is closed")
            if self.is_open:
                return
            await self._inbox.queue.wait_item()

    def take_ready(self, max_bytes: int = MAX_CHUNK) -> bytes:
        """Take what has come already, at most *max_bytes*; ``b""`` if nothing has.

        It never waits, and unlike `receive_some` it does not report the end.
        """
        self._check()
        data = self._inbox.take(max_bytes)
        self._check()  # an on_event that failed meanwhile has detached it
        return data

    @property
    def direct(self) -> DirectPath | None:
        """How bytes can bypass this process; None if all have to come through it now."""
        if not (ways.are_taken and self.is_attached and self.is_open):
            return None
        backend = self.backend
        if backend.taps or (direct := backend.direct) is None:
            return None
        return DirectPath(direct, self._inbox, self._outbox)

    @property
    def _is_over(self) -> bool:
        """Is it certain that no more will come? Not while a change holds bytes back."""
        return self._outbox.is_closed and not self._inbox.is_held

    def pause_input(self) -> None:
        """Keep the backend from reading, and from noticing a hang-up, until `accept_input`.

        A read that is under way may still bring something.
        """
        self._check()
        self._inbox.queue.pause()

    def accept_input(self) -> None:
        """Offer on_receive what it did not take before (QEMU's chr_fe_accept_input)."""
        self._check()
        self._inbox.accept()

    def statistics(self) -> FrontendStatistics:
        """Return what is waiting now."""
        return FrontendStatistics(
            is_open=self.is_open,
            bytes_waiting=len(self._inbox.queue),
            tasks_waiting_send=self._outbox.writers_waiting,
            is_receiving=self._is_receiving,
            lost=self.relay.lost,
        )

    async def aclose(self) -> None:
        """Detach from the chardev, which stays, with what was not read."""
        self.detach()
        await trio.lowlevel.checkpoint()

    def detach(self) -> None:
        """Do as `aclose`, which is a checkpoint; do nothing if it was detached before."""
        if self.is_attached:
            self._on_detach(self)

    @property
    def line(self) -> LineInPlace:
        """The line of the backend in place, whichever that is when it is used."""
        return LineInPlace(self._outbox, self._check)
