"""One running backend, from opening to closing.

It has a task and a cancel scope of its own, which opens, reads and closes it; if it is opened at
once (`AtOnce`), only reading it has, from the commit on, and a kind that is never read has none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import trio

from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.pump import Pump
from trio_chardev.core.tap import show
from trio_chardev.core.users import Users
from trio_chardev.core.waiting import Once
from trio_chardev.errors import BackendError, ChardevError
from trio_chardev.events import UNKNOWN_SIZE, WindowSize

log = logging.getLogger(__name__)

CLEANUP_TIMEOUT = 5.0  # seconds; bounds every shielded wait of the core
DRAIN_TIMEOUT = 0.2  # seconds that a peer that is left behind may take for its last bytes
MAX_DRAIN_TIMEOUT = 60.0  # seconds; nothing but the end of the chardev interrupts a drain
PASSES_TO_CLOSE = 2  # of the scheduler; closing that does not wait needs no scope with a deadline
NOTHING = memoryview(b"")


@attrs.define(eq=False, repr=False)
class Runner:
    """A backend with the cancel scope in which it runs, as its chardev sees it."""

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    backend: Backend = attrs.field(init=False)
    started: bool = False
    """Was the backend opened?"""
    ready: Once = attrs.Factory(Once)
    """Set when the backend is open, or will never be."""
    in_place: Once = attrs.Factory(Once)
    """Set by the commit: from then on the backend is read."""
    window_size: WindowSize = UNKNOWN_SIZE
    """What the backend has reported last, in place or not, or what it was said to be."""
    is_replaced: bool = False
    """Has a commit replaced it? Then nothing it reports counts any more."""
    carried: memoryview = NOTHING
    """What a change has carried over and the backend has not taken: it goes before all else."""
    may_send: trio.Event | None = None
    """Wakes the sender of `carried` once a peer is there again."""
    is_ending: bool = False
    """Has it begun to close, so that it can't be put in place any more?"""
    closed: Once = attrs.Factory(Once)
    """Set when the task is over, whatever ended it."""
    _draining: trio.CancelScope | None = attrs.field(default=None, init=False)
    _at_once: AtOnce[Backend] | None = attrs.field(default=None, init=False)
    """What closes the backend, if it was opened at once and is not closed yet."""
    error: ChardevError | None = None
    """What ended it, if it was not cancelled."""

    async def run(
        self,
        opening: AbstractAsyncContextManager[Backend],
        request: OpenRequest,
        users: Users[Any],
        when_open: Callable[[Runner], None] | None = None,
    ) -> None:
        """Open the backend, call *when_open*, read from it once it is in place, close it.

        Raises nothing but Cancelled: what kept it from opening, or ended it, is in `error`.
        """
        try:
            with self.scope:
                async with opening as self.backend:
                    if when_open is not None:
                        when_open(self)
                    self.started = True
                    self.ready.set()
                    try:
                        if not self.in_place.is_set():
                            await self.in_place.wait()
                        request.replaces = None  # which would live as long as this one
                        await Pump(self, self.backend, users).run()
                    finally:
                        self.is_ending = True
        except* Exception as group:  # a Cancelled in the group is raised again
            self.error = as_one_error(group)
        finally:
            self._note_closed()
            self.ready.set()

    def _note_closed(self) -> None:
        self.closed.set()
        if self._draining is not None:
            self._draining.cancel()

    def open_at_once(self, opening: AtOnce[Backend]) -> None:
        """Open the backend now, without a task; `close_at_once` closes it. Raises as it does."""
        self.backend = opening.open()
        self._at_once = opening
        self.started = True

    @property
    def needs_reading(self) -> bool:
        """Is it to be read by `read`, once it is in place?"""
        return self._at_once is not None and not self.backend.is_silent

    async def read(self, users: Users[Any]) -> None:
        """Read a backend that was opened at once and is in place; close it at the end.

        Raises nothing but Cancelled, as `run`.
        """
        try:
            with self.scope:
                await Pump(self, self.backend, users).run()
        except* Exception as group:
            if self._at_once is not None:  # else it was closed while it was waited for
                self.error = as_one_error(group)
        finally:
            self.close_at_once()

    def close_at_once(self) -> None:
        """Close a backend that was opened at once, unless it is closed. Raises nothing."""
        opening, self._at_once = self._at_once, None
        if opening is not None:
            try:
                opening.close()
            except Exception:
                log.exception("%s: cannot close", self.backend.filename, extra=self._about)
            self._note_closed()

    async def drain(self, timeout: float, take: Callable[[bytes], None]) -> None:
        """Let the peer take what it was sent, for *timeout* seconds. It can't be Cancelled.

        *take* gets what the peer sends until it knows. Ends at once when the backend does.
        """
        leaving = self.backend.leaving
        if not self.carried and leaving.is_finished and leaving.is_drained:
            return
        with trio.move_on_after(timeout, shield=True) as self._draining:
            try:
                while self.carried:
                    self.carried = self.carried[await self.backend.send_some(self.carried) :]
                await leaving.finish(take)
                await leaving.drain()
            except Exception as exc:
                log.warning("%s: cannot drain: %r", self.backend.filename, exc, extra=self._about)
        self._draining = None
        if self.carried:
            text = "%s: %d bytes are lost"
            log.warning(text, self.backend.filename, len(self.carried), extra=self._about)

    async def settle(self, timeout: float) -> None:
        """Let a peer that is taking what it was sent finish, for *timeout* seconds at most.

        Ends at once when the backend does. Raises BackendError if it can't be known.
        """
        may_go = False
        try:
            with trio.move_on_after(timeout) as self._draining:
                await self.backend.leaving.settle(timeout)
            may_go = True
        except BackendError:
            raise
        except Exception as exc:
            log.warning("%s: cannot settle: %r", self.backend.filename, exc, extra=self._about)
            may_go = True
        finally:
            if not may_go:
                self.stay()

    def stay(self) -> None:
        """Undo what the backend did to leave, as there is no change after all."""
        try:
            self.backend.leaving.stay()
        except Exception as exc:
            log.warning(
                "%s: cannot undo its leaving: %r", self.backend.filename, exc, extra=self._about
            )

    def take_back(self) -> memoryview:
        """Take back what the peer has not taken: what was sent, then what is still to be sent."""
        try:
            sent = self.backend.leaving.take_back()
        except Exception as exc:
            log.warning("%s: cannot take back: %r", self.backend.filename, exc, extra=self._about)
            sent = b""
        carried, self.carried = self.carried, NOTHING
        return memoryview(sent + carried) if sent else carried

    @property
    def _about(self) -> dict[str, dict[str, str]]:
        """Which chardev it is, for the log."""
        return {"fields": {"chardev": self.backend.id}}

    def look_again(self) -> None:
        """Wake the task that waits for `may_send`."""
        if self.may_send is not None:
            self.may_send.set()

    async def retire(self) -> None:
        """Cancel the backend and wait until it is closed. It can't be Cancelled."""
        self.scope.cancel()
        if self._at_once is not None:
            self.close_at_once()
            return
        for _ in range(PASSES_TO_CLOSE):
            await trio.lowlevel.cancel_shielded_checkpoint()
            if self.closed.is_set():
                return
        with trio.move_on_after(CLEANUP_TIMEOUT, shield=True) as cut:
            await self.closed.wait()
        if cut.cancelled_caught:
            name, about = ("a backend", None)
            if self.started:
                name, about = self.backend.filename, self._about
            log.error("%s does not close", name, extra=about)

    def show_sent(self, data: memoryview) -> None:
        """Show the taps that *data* went to the backend."""
        show(self.backend.taps, lambda tap: tap.sent(data))

    def show_note(self, text: str) -> None:
        """Have the taps note *text*, see `Tap.note`."""
        show(self.backend.taps, lambda tap: tap.note(text))

    def show_refused(self, data: memoryview) -> None:
        """Show the taps that *data* will not be sent."""
        show(self.backend.taps, lambda tap: tap.refused(data))


def as_one_error(raised: Exception) -> ChardevError:
    """Reduce an error or group to one that may leave the core; a backend's bug is logged in full."""
    error: BaseException = raised
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ChardevError):
        return error
    log.error("a backend raised what it must not", exc_info=error)
    one = BackendError(f"{type(error).__name__}: {error}")
    one.__cause__ = raised
    return one
