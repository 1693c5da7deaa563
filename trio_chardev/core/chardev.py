"""A chardev: a stable id over a backend that can be changed while its frontend stays.

Each chardev has a nursery; each backend runs in it, in a task and a cancel scope of its own. A
change opens the new backend beside the old one, has a `Change` swap them, and only then
cancels the old scope.

    task of run()         owns the nursery, runs the first backend, then sleeps
    tasks of Runner.run   one for each later backend: opens it, reads it into the queue, closes it
    tasks of Runner.read  the same for a later one that the caller has opened at once
    the caller of change  opens, takes the backend lock, awaits be_change, commits, retires the old
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import trio

from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.change import Change, ChangeOptions, check_changeable, put_first
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import BeChange, Handlers, OnEvent, OnReceive
from trio_chardev.core.info import (
    ChardevInfo,
    ChardevState,
    ChardevStatistics,
    state_of,
    statistics_of,
)
from trio_chardev.core.last_words import LastWords
from trio_chardev.core.line_in_place import LineInPlace
from trio_chardev.core.outbox import eagerly
from trio_chardev.core.parts import Parts
from trio_chardev.core.runner import CLEANUP_TIMEOUT, DRAIN_TIMEOUT, Runner, as_one_error
from trio_chardev.core.waiting import Lock, Once
from trio_chardev.core.weak import weakly
from trio_chardev.errors import (
    BackendError,
    ChardevBusyError,
    ChardevClosedError,
)
from trio_chardev.events import BackendEvent, Event, WindowSize

log = logging.getLogger(__name__)


@attrs.define(eq=False, repr=False)
class Chardev:
    """A character device. `Registry` makes it; its users `attach` to it."""

    id: str
    is_replayed: bool = False
    """In record/replay mode, where a change would break determinism; it is refused."""
    on_event: Callable[[Chardev, BackendEvent, Backend], None] | None = None
    """Called with every event of the backend in place, whether a frontend is there or not.

    When it is called for a change, the change, and what came before in it, is done.
    """
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _over: Once = attrs.Factory(Once)
    _first: Callable[[], Awaitable[None]] | None = None  # from `open`, if before `run`
    _change_lock: Lock = attrs.Factory(Lock)
    _change: Change | None = attrs.field(default=None, init=False)  # the one under way
    _parts: Parts = attrs.field(init=False)
    _since: float = attrs.field(
        default=0.0, init=False
    )  # when it was opened, or closed, by the clock

    def __attrs_post_init__(self) -> None:
        self._parts = Parts(self.id, weakly(Chardev._observe, self))

    @property
    def backend(self) -> Backend:
        """The backend in place."""
        return self._parts.backend

    @property
    def pty(self) -> str | None:
        """The path of the PTY's other side, if the backend is a PTY now."""
        return self.backend.pty

    @property
    def port(self) -> int | None:
        """The TCP or UDP port it listens at or is bound to now, chosen by the system if 0 was."""
        return self.backend.port

    @property
    def line(self) -> LineInPlace:
        """The line of the backend in place, for others than its user, who has `Frontend.line`."""
        return LineInPlace(self._parts.outbox)

    @property
    def frontends(self) -> list[Frontend]:
        """Its users now; more than one only with a mux."""
        return self._parts.frontends

    @property
    def info(self) -> ChardevInfo:
        """What query-chardev shows."""
        lost = sum(frontend.relay.lost for frontend in self.frontends)
        waiting = self.backend.peer.waiting
        return ChardevInfo(self.id, self.backend.filename, self.frontend_open, lost, waiting)

    @property
    def state(self) -> ChardevState:
        """Is somebody there? If not, why, and when is it tried again?"""
        return state_of(self._parts.runner, self._since)

    def statistics(self) -> ChardevStatistics:
        """Return what has happened since it was added, and what is waiting now."""
        return statistics_of(self._parts)

    def retry(self) -> None:
        """Try now to reach somebody, or look for the device; nothing if somebody is there.

        Raises NotSupportedError if the backend does not try again and again by itself,
        BackendDisconnectedError if it has ended, ChardevClosedError.
        """
        self._parts.outbox.usable_runner().backend.peer.retry()

    @property
    def row(self) -> bytes | None:
        """What a lister has kept of it; None once something that lists show has changed."""
        return self._parts.row

    @row.setter
    def row(self, row: bytes) -> None:
        self._parts.row = row

    def touch(self) -> None:
        """Note that something that lists show has changed, here or in what it stands on."""
        self._parts.touch()

    @property
    def frontend_open(self) -> bool:
        """Does any user consider itself open? A mux does while it is used itself."""
        return any(frontend.calls.is_ready() for frontend in self.frontends)

    @property
    def is_started(self) -> bool:
        """Does it have a backend yet?"""
        return self._parts.runner.started

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end of the backend in place?"""
        return self._parts.outbox.is_open

    @property
    def window_size(self) -> WindowSize:
        """The window size that the backend in place has reported, or `resized` has told, last."""
        return self._parts.runner.window_size

    @property
    def is_closed(self) -> bool:
        """Was the chardev removed, or is its service stopping?"""
        return self._parts.outbox.is_closed

    # ------------------------------------------------------------ life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the nursery in which the backends live, until cancelled or closed."""
        try:
            async with trio.open_nursery() as self._nursery:
                # Nothing that can fail goes in here: it would come out as a group.
                try:
                    task_status.started()
                    await self._run_first()
                    if not self.is_closed:
                        await trio.sleep_forever()
                finally:
                    self.shut()
        finally:
            self._parts.runner.close_at_once()
            self._over.set()

    async def open(self, opener: Opener, *, timeout: float = math.inf) -> None:
        """Put the first backend in place, within *timeout* seconds.

        Raises BackendError. After it has raised anything, Cancelled included, close the chardev.
        """
        runner = await self._start(opener, None, timeout)
        if not runner.in_place.is_set():  # it was opened at once
            try:
                self._commit_first(runner)
            except Exception as exc:
                runner.close_at_once()
                raise as_one_error(exc) from exc.__cause__
            self._start_reading(runner)
            while self._nursery is None:  # `run` has not begun yet
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close the backend and end `run`; readers get ``b""``. Cancelled does not undo that.

        Users that are attached first get what the peer had sent, see `Leaving.finish`.
        """
        was_closed = self.is_closed
        self.shut()
        if not was_closed and not self._change_lock.locked():
            await LastWords(self._parts, self._parts.runner).hear_before_close(DRAIN_TIMEOUT)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            with trio.move_on_after(2 * CLEANUP_TIMEOUT, shield=True) as cut:
                await self._over.wait()
            if cut.cancelled_caught:
                log.error("chardev '%s' does not close", self.id)

    def shut(self) -> None:
        """Refuse everything from now on; `aclose` or the end of `run` does the rest."""
        self._parts.outbox.close()
        self._parts.users.wake_readers()
        if self._change is not None:  # its be_change waits in the scopes of the change's caller
            self._change.give_up()

    # ------------------------------------------------------------ frontends

    def attach(
        self,
        *,
        be_change: BeChange | None = None,
        on_event: OnEvent | None = None,
        on_receive: OnReceive | None = None,
        on_open: Callable[[], None] = lambda: None,
        on_line: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
        fe_open: Callable[[], bool] = lambda: True,
        answers_line: Callable[[], bool] = lambda: False,
    ) -> Frontend:
        """Become a user of this chardev; only with a mux it may have several.

        Closing the frontend ends that.

        *be_change* is awaited in every change, see `Frontend`; without it changes are
        refused. *on_event* is called with OPENED before this returns, if the backend is
        open. For the handlers see `Handlers`. Raises ChardevBusyError, ChardevClosedError.
        """
        self._parts.check_not_closed()
        has_backend = self._parts.runner.started
        if len(self.frontends) >= (self.backend.stacking.max_frontends if has_backend else 1):
            raise ChardevBusyError(f"Device '{self.id}' is in use")
        inbox = self._parts.users.vacant()
        handlers = Handlers(
            be_change=be_change,
            on_event=on_event,
            on_receive=on_receive,
            on_open=on_open,
            on_line=on_line,
            on_failure=on_failure,
            fe_open=fe_open,
            answers_line=answers_line,
        )
        frontend = Frontend(self._parts.outbox, inbox, self.detach, handlers)
        self._parts.users.attach(inbox, frontend, is_open=self.is_open)
        self.touch()
        if has_backend:
            self.backend.stacking.attached(inbox)
        return frontend

    def detach(self, frontend: Frontend) -> None:
        """End the use by *frontend*: its calls that wait raise ClosedResourceError."""
        if frontend.is_attached:
            users = self._parts.users
            users.detach(users.inbox_of(frontend))
            self.touch()
            self._parts.outbox.interrupt()

    def guard(self) -> None:
        """See `Peer.guard`; later backends are guarded, too. Raises BackendError."""
        self.backend.peer.guard()
        self._parts.is_guarded = True

    def send_event(self, event: BackendEvent) -> None:
        """Pass *event* to the frontend as if the backend had sent it (chardev-send-break)."""
        self._parts.users.focus_event(event)

    def resized(self, size: WindowSize) -> None:
        """Note *size* as the other end's, as if the backend had reported it.

        The user with the focus is told, if it is another than before and somebody is there. It
        does not resize anything itself (QEMU's chardev-window-size-changed).
        """
        self._parts.resized(self._parts.runner, size)

    # ------------------------------------------------------------ the change

    @trio.lowlevel.enable_ki_protection  # control-C comes at a checkpoint, as Cancelled does
    async def change(
        self,
        opener: Opener,
        *,
        timeout: float = math.inf,
        drain_timeout: float = DRAIN_TIMEOUT,
        carry: bool = False,
        keep_peer: bool = False,
    ) -> Backend:
        """Replace the backend in place.

        *timeout* bounds the opening of the new one, and *drain_timeout* how long the old one's peer
        may take for what the kernel would drop; both in seconds. With *carry*, what the old
        one's peer has not taken goes to the new one's, before anything else. With *keep_peer* the
        new one takes over the old one's peer, if both are sockets of the same address.

        When it returns, the new backend is in place, its frontend set up for it, and the old one
        closed. When it raises anything, Cancelled included, the original is in place, the frontend
        set up for it, the new one closed, and nothing harmed that the original uses.

        Raises ChangeRefusedError before anything is opened, BackendError if the new backend
        does not open, ChangeFailedError if the frontend does not take it,
        ChardevClosedError. Overlapping changes are made in the order of the calls.
        """
        self._parts.outbox.refuse_in_handler()
        options = ChangeOptions(drain_timeout, carry, keep_peer)
        try:
            backend = await self._make_change(opener, timeout, options)
        except BaseException as exc:
            self._parts.counts.note_failed_change(exc)
            raise
        self._parts.counts.note_change()
        return backend

    async def _make_change(self, opener: Opener, timeout: float, options: ChangeOptions) -> Backend:
        options.check()
        async with eagerly(self._change_lock):
            check_changeable(self._parts, is_replayed=self.is_replayed)
            old = self._parts.runner
            new = await self._start(opener, old, timeout, keep_peer=options.keep_peer)
            assert self._nursery is not None, "it has had a backend before"
            self._change = Change(
                self._parts, self._nursery, old, new, options, self._start_reading
            )
            try:
                await self._change.make()
            finally:
                self._change = None
            return new.backend

    # ------------------------------------------------------------ running a backend

    async def _start(
        self, opener: Opener, replaces: Runner | None, timeout: float, *, keep_peer: bool = False
    ) -> Runner:
        """Open a backend at once, or in a task of its own; it is not read before the commit.

        If this raises anything, Cancelled included, there is none. (nursery.start() would do as
        well, but it costs another nursery, and its child runs in the caller's cancel scopes.)
        """
        self._parts.check_not_closed()
        runner = Runner()
        request = OpenRequest(
            id=self.id,
            on_event=weakly(Parts.backend_event, self._parts, runner),
            replaces=replaces.backend.shared if replaces else None,
            keep_peer=keep_peer,
            is_guarded=self._parts.is_guarded,
            users=self._parts.users,
            touch=weakly(Parts.touch, self._parts),
            on_failure=self._parts.counts.note_failure,
        )
        try:
            opening = opener(request)
            if isinstance(opening, AtOnce):
                await trio.lowlevel.checkpoint()  # here, as then the reply to a command comes first
                runner.open_at_once(opening)
                return runner
        except Exception as exc:
            raise as_one_error(exc) from exc.__cause__
        if self._nursery is None:
            self._first = partial(self._run_backend, runner, opening, request)
        else:
            self._nursery.start_soon(self._run_backend, runner, opening, request)
        await self._wait_ready(runner, timeout)
        return runner

    async def _wait_ready(self, runner: Runner, timeout: float) -> None:
        """Wait until *runner* is open. Raises as `_start`."""
        try:
            with contextlib.nullcontext() if math.isinf(timeout) else trio.fail_after(timeout):
                await runner.ready.wait()
        except trio.TooSlowError:
            await runner.retire()  # noqa: ASYNC120 - as above
            raise BackendError(f"not open after {timeout:g} seconds") from None
        except BaseException:
            await runner.retire()  # noqa: ASYNC102 - it shields itself, with a deadline
            raise
        if not runner.started:
            error, runner.error = runner.error, None
            try:
                raise error or ChardevClosedError(f"Chardev '{self.id}' is closed")
            finally:
                del error  # its traceback has this frame, and the runner's

    async def _run_first(self) -> None:
        """Run the backend that `open` has asked for, if any; that spares an idle chardev a task."""
        first, self._first = self._first, None
        if first is not None:
            await first()

    async def _run_backend(
        self, runner: Runner, opening: AbstractAsyncContextManager[Backend], request: OpenRequest
    ) -> None:
        """Run a backend; the first one is put in place as soon as it is open."""
        when_open = self._commit_first if request.replaces is None else None
        await runner.run(opening, request, self._parts.users, when_open)
        self._parts.note_end(runner)

    def _start_reading(self, runner: Runner) -> None:
        """Have the backend of *runner* read, which is in place, if nobody does that yet."""
        if runner.needs_reading:
            if self._nursery is None:
                self._first = partial(self._read_backend, runner)
            else:
                self._nursery.start_soon(self._read_backend, runner)

    async def _read_backend(self, runner: Runner) -> None:
        await runner.read(self._parts.users)
        self._parts.note_end(runner)

    @trio.lowlevel.enable_ki_protection
    def _commit_first(self, runner: Runner) -> None:
        self._since = time.time()
        put_first(self._parts, runner)

    def _observe(self, event: BackendEvent, backend: Backend) -> None:
        if event is Event.OPENED:
            self._parts.counts.note_connect()
        if event is Event.OPENED or event is Event.CLOSED:
            self._since = time.time()
        if self.on_event is not None:
            try:
                self.on_event(self, event, backend)
            except Exception:
                log.exception("chardev '%s': its on_event failed", self.id)
