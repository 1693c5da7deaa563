"""How bytes get from a frontend to the backend in place, whichever that is.

Two locks: the *write lock* is held for a whole `send_all`, so that no other writer's bytes
come in between, even when the backend is changed meanwhile. The *backend lock* is held for one
`send_some` or for one change. A change that finds a writer stuck in `send_some` cancels that call,
which then has sent nothing; the writer goes on with the next backend once the change lets go of the
runner. The lock is fair, so a change is next in line after the one call that it cancels.

As long as the kernel takes the bytes at once, nobody can come in between, and a write is one
synchronous `send_nowait`.

What a change has carried over (`Runner.carried`) goes before everything else: the next sender sends
it first, and `push` does if there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import attrs
import trio

from trio_chardev.core.counts import Counts
from trio_chardev.core.kept_line import NOTHING_KEPT, KeptLine
from trio_chardev.core.runner import NOTHING, Runner
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.core.waiting import Lock
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    BackendFailedError,
    ChardevClosedError,
    ChardevError,
    WriteInChangeError,
)

log = logging.getLogger(__name__)
T = TypeVar("T")


@attrs.frozen(eq=False, repr=False)
class eagerly:  # noqa: N801 - used as a context manager is
    """Hold *lock*, without a pass of the scheduler if it is free."""

    lock: Lock

    async def __aenter__(self) -> None:
        try:
            self.lock.acquire_nowait()
        except trio.WouldBlock:
            await self.lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.lock.release()


@attrs.define(eq=False, repr=False)
class _Handler:
    """A be_change handler that is running; tasks that it starts inherit this in their context."""

    outbox: Outbox
    outer: _Handler | None
    at_work: bool = True


_handler: ContextVar[_Handler | None] = ContextVar("be_change handler", default=None)


@attrs.define(eq=False, repr=False)
class Outbox:
    """The way to the backend in place."""

    id: str
    runner: Runner = attrs.Factory(Runner)
    """The backend in place; a change replaces it under `exclusive`."""
    is_closed: bool = False
    counts: Counts = attrs.Factory(Counts)
    """The chardev's."""
    blocked_at: float | None = None
    """Since when somebody waits to send, by Trio's clock; None while nobody does."""
    line: KeptLine = NOTHING_KEPT
    """What was set of the line; a change sets the new backend likewise."""
    on_line: Callable[[], None] = lambda: None
    """Called when a user has set the line of the backend in place."""
    _write_lock: Lock = attrs.Factory(Lock)
    _backend_lock: Lock = attrs.Factory(Lock)
    _send_scope: trio.CancelScope | None = None

    def send_nowait(self, data: memoryview) -> int:
        """Make one attempt. Returns how many bytes were accepted, 0 if it would block or is in use.

        Raises as `send_all`.
        """
        if self._write_lock.locked():
            self.refuse_in_handler()
            return 0
        return self._try(data)

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end of the backend in place?"""
        return not self.is_closed and self.runner.started and self.runner.backend.is_open

    @property
    def is_idle(self) -> bool:
        """Does nobody send or change the backend, and is there nothing to send first?"""
        return not (
            self._write_lock.locked()
            or self._backend_lock.locked()
            or self.runner.carried
            or self.runner.closed.is_set()
            or self.is_closed
        )

    def splice_nowait(self, pipe: SplicePipe) -> int:
        """Do as `send_nowait` with what is in *pipe*.

        Raises CannotSplice as well, if bytes have to be looked at.
        """
        if self._write_lock.locked() or self._backend_lock.locked():
            self.refuse_in_handler()
            return 0
        runner = self.usable_runner()
        direct = runner.backend.direct
        if direct is None or runner.carried or runner.backend.taps:
            raise CannotSplice
        sent = direct.send_from(pipe)
        self.counts.sent += sent
        return sent

    async def send_some(self, data: memoryview, check: Callable[[], None]) -> int:
        """Send a non-empty prefix of *data*. When Cancelled, nothing was sent.

        *check* is called before each attempt; what it raises ends the call.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._acquire_write_lock()
        try:
            check()
            sent = self._try(data)
            if sent or not data:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return sent
            return await self._send_blocking(data, check)
        finally:
            self._write_lock.release()

    async def send_all(self, data: memoryview, check: Callable[[], None]) -> None:
        """Send all of *data* as one piece.

        When Cancelled, or raising BackendDisconnectedError, it may have sent a part.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._acquire_write_lock()
        sent = 0
        try:
            check()
            sent = self._try(data)
            if sent == len(data):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            while sent < len(data):
                sent += await self._send_blocking(data[sent:], check)
        except BackendDisconnectedError:
            self.give_up(data[sent:])
            raise
        finally:
            self._write_lock.release()

    def give_up(self, data: memoryview) -> None:
        """Tell the taps that *data*, for which nobody was there, will not be sent."""
        if not self.runner.closed.is_set():
            self.runner.show_refused(data)

    async def send_eof(self, end: Callable[[Runner], None], check: Callable[[], None]) -> None:
        """Call *end* to tell the peer that no more will come, after what was sent or carried."""

        async def use(runner: Runner) -> None:
            while carried := runner.carried:
                runner.carried = carried[await runner.backend.send_some(carried) :]
            await trio.lowlevel.checkpoint_if_cancelled()  # another may have taken over by now
            end(runner)
            await trio.lowlevel.cancel_shielded_checkpoint()

        await trio.lowlevel.checkpoint_if_cancelled()
        await self._acquire_write_lock()
        try:
            await self._with_runner(use, check)
        finally:
            self._write_lock.release()

    def push_nowait(self, runner: Runner) -> None:
        """Send to *runner* as much of what was carried over as goes at once. Raises nothing."""
        try:
            _send_carried(runner)
        except BackendDisconnectedError:
            pass  # it is sent when a peer comes
        except Exception as exc:
            about = {"fields": {"chardev": self.id}}
            name = runner.backend.filename
            log.warning("%s: cannot send what was carried: %r", name, exc, extra=about)

    async def push(self, runner: Runner) -> None:
        """Send what was carried over to *runner*, as its peer takes it, while it is in place.

        Raises nothing but Cancelled.
        """

        def check() -> None:
            if runner is not self.runner:
                raise BackendDisconnectedError("it was replaced")

        while runner.carried and runner is self.runner and not self.is_closed:
            runner.may_send = may_send = trio.Event()
            try:
                async with self._write_lock:
                    await self._send_blocking(NOTHING, check)
            except ChardevError:
                await may_send.wait()
            except Exception:
                log.exception("chardev '%s': what was carried can't be sent", self.id)
                return

    def close(self) -> None:
        """Make every write raise ChardevClosedError from now on."""
        self.is_closed = True
        self.interrupt()

    def interrupt(self) -> None:
        """Make the `send_some` that is under way, if any, look at the runner again."""
        if self._send_scope is not None:
            self._send_scope.cancel()

    def exclusive(self) -> eagerly:
        """Use the runner exclusively: nothing is being sent and no change is under way."""
        self.refuse_in_handler()
        self.interrupt()
        return eagerly(self._backend_lock)

    @property
    def writers_waiting(self) -> int:
        """How many tasks wait for their turn to send; one more may be sending."""
        return self._write_lock.waiting

    @contextmanager
    def handler_at_work(self) -> Iterator[None]:
        """Mark the body as a be_change handler, which has the runner locked and must not write."""
        mark = _Handler(self, _handler.get())
        token = _handler.set(mark)
        try:
            yield
        finally:
            mark.at_work = False
            _handler.reset(token)

    async def wait_writable(self, check: Callable[[], None]) -> None:
        """Wait until no write or change is under way, and the backend may take something.

        May return too early. Raises as `send_all`.
        """
        self.refuse_in_handler()
        async with self._write_lock:
            self.blocked_at = trio.current_time()
            try:
                await self._with_runner(lambda runner: runner.backend.wait_writable(), check)
            finally:
                self.blocked_at = None

    async def _acquire_write_lock(self) -> None:
        try:  # without contention there is no pass of the scheduler
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            self.refuse_in_handler()
            await self._write_lock.acquire()

    def _try(self, data: memoryview) -> int:
        """Send what the backend takes at once, if nobody has locked it."""
        if self._backend_lock.locked():
            self.refuse_in_handler()
            return 0
        runner = self.usable_runner()
        try:
            if runner.carried and not _send_carried(runner):
                return 0
            sent = runner.backend.send_nowait(data)
        except BackendError as exc:
            raise _as_broken(exc) from exc.__cause__
        self.counts.sent += sent
        if sent and runner.backend.taps:
            runner.show_sent(data[:sent])
        return sent

    async def _send_blocking(self, data: memoryview, check: Callable[[], None]) -> int:
        """Send a non-empty prefix, across any changes of the backend.

        What was carried over goes first; with empty *data* only that.
        """

        async def send_some(runner: Runner) -> int:
            while carried := runner.carried:
                sent = await runner.backend.send_some(carried)
                runner.carried = carried[sent:]
            sent = await runner.backend.send_some(data) if data else 0
            self.counts.sent += sent
            runner.show_sent(data[:sent])
            return sent

        self.blocked_at = trio.current_time()
        try:
            return await self._with_runner(send_some, check)
        finally:
            self.blocked_at = None

    async def _with_runner(
        self, use: Callable[[Runner], Awaitable[T]], check: Callable[[], None]
    ) -> T:
        """Return what *use* of the runner returns; if a change cancels *use*, it is called again.

        The write lock must be held: then only `exclusive` can wait for the runner.
        """
        while True:
            async with self._backend_lock:
                if self._backend_lock.waiting:
                    continue  # `exclusive` came while we waited, when it could not interrupt us
                check()
                runner = self.usable_runner()
                with trio.CancelScope() as self._send_scope:
                    try:
                        return await use(runner)
                    except (BackendError, trio.ClosedResourceError) as exc:
                        self.usable_runner()  # raises if the chardev was closed meanwhile
                        if isinstance(exc, BackendError):
                            raise _as_broken(exc) from exc.__cause__
                        raise BackendDisconnectedError("closed while sending") from exc
                    finally:
                        self._send_scope = None

    def usable_runner(self) -> Runner:
        """Return it. Raises ChardevClosedError, BackendDisconnectedError if the backend died."""
        if self.is_closed:
            raise ChardevClosedError(f"Chardev '{self.id}' is closed")
        runner = self.runner
        if runner.closed.is_set():
            raise BackendDisconnectedError(
                f"the backend of chardev '{self.id}' is gone"
            ) from runner.error
        return runner

    def refuse_in_handler(self) -> None:
        """Raise WriteInChangeError in a be_change handler, which would wait for itself."""
        mark = _handler.get()
        while mark is not None:
            if mark.at_work and mark.outbox is self:
                raise WriteInChangeError(
                    f"be_change of chardev '{self.id}' must not write or use its frontend: "
                    "use the backend that it is given"
                )
            mark = mark.outer


def _send_carried(runner: Runner) -> bool:
    """Send as much of what was carried over as goes at once. Is nothing left?

    The taps of the backend that had it first have seen it. Raises as `Backend.send_nowait`.
    """
    while runner.carried and (sent := runner.backend.send_nowait(runner.carried)):
        runner.carried = runner.carried[sent:]
    return not runner.carried


def _as_broken(error: BackendError) -> BackendError:
    """Convert *error* to one that the send methods of a Trio stream may raise."""
    return error if isinstance(error, trio.BrokenResourceError) else BackendFailedError(str(error))
