"""A change: a new backend takes the place of the old one, or everything is as before.

This is ARCHITECTURE's table from top to bottom, beginning when the new backend is open; opening it
is the chardev's business. The commit is one function without a checkpoint: before it every failure
unwinds to the original, after it nothing can fail. It calls nobody but the two backends: it returns
the calls to others as `Effects`, which are made when the state is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import attrs
import trio

from trio_chardev.core.controls import Controls
from trio_chardev.core.effects import Effects
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.kept_line import NOTHING_KEPT, KeptLine
from trio_chardev.core.last_words import DRAIN_LIMIT, LastWords
from trio_chardev.core.parts import Parts, show_event
from trio_chardev.core.runner import CLEANUP_TIMEOUT, MAX_DRAIN_TIMEOUT, Runner
from trio_chardev.core.tap import show
from trio_chardev.errors import BackendError, ChangeFailedError, ChangeRefusedError, reason_of
from trio_chardev.events import Event

log = logging.getLogger(__name__)
Ts = TypeVarTuple("Ts")


@attrs.frozen
class ChangeOptions:
    """How to make a change; see `Chardev.change`."""

    drain_timeout: float
    carry: bool
    keep_peer: bool

    def check(self) -> None:
        """Raise ChangeRefusedError if an option is out of range."""
        if not 0 <= self.drain_timeout <= MAX_DRAIN_TIMEOUT:
            raise ChangeRefusedError(
                f"'drain-timeout' must be from 0 to {MAX_DRAIN_TIMEOUT:g} seconds"
            )


@attrs.define(eq=False, repr=False)
class Change:
    """One change of one chardev, during which the *new* backend is open beside the *old* one."""

    _parts: Parts
    _nursery: trio.Nursery
    """Runs the task that sends the bytes carried over, after the change."""
    _old: Runner
    _new: Runner
    _options: ChangeOptions
    _start_reading: Callable[[Runner], None]
    """Has the new one read, if it has no task that does."""
    _last_words: LastWords = attrs.field(init=False)
    """The old one's last bytes."""
    _asked: set[Frontend] = attrs.field(factory=set, init=False)
    """The users that were asked to take the new one, and have to take the original back."""
    _line: KeptLine = attrs.field(default=NOTHING_KEPT, init=False)
    """What the new one's line was set to."""
    _asking: trio.CancelScope | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._last_words = LastWords(self._parts, self._old)

    @property
    def _carries(self) -> bool:
        return self._options.carry or self._options.keep_peer

    async def make(self) -> None:
        """Put the new backend in place and close the old one.

        If it raises anything, Cancelled included, the old one is in place and the new one closed.
        Raises ChangeRefusedError, ChangeFailedError, ChardevClosedError.
        """
        try:
            if self._options.keep_peer and not self._new.backend.peer.is_kept:
                raise ChangeRefusedError("'keep-peer' requires two sockets of the same address")
            async with self._parts.outbox.exclusive():
                began = trio.current_time()
                try:
                    await self._switch()
                finally:
                    self._parts.counts.note_pause(trio.current_time() - began)
        except BaseException:
            await self._new.retire()  # noqa: ASYNC102 - it shields itself, with a deadline
            raise
        await self._last_words.hear(self._options.drain_timeout)
        await self._old.retire()

    def give_up(self) -> None:
        """Cancel the be_change under way: the chardev is closed, and it might wait for ever."""
        if self._asking is not None:
            self._asking.cancel()

    async def _switch(self) -> None:
        old, new = self._old, self._new
        deadline = trio.current_time() + self._options.drain_timeout
        if self._carries:
            await old.settle(self._options.drain_timeout)
        self._parts.users.hold(closed=old.backend.is_open and not new.backend.is_open)
        try:
            await self._set_up()
            await new.backend.prepare()
            await self._set_up()  # users that have come meanwhile
            while (
                self._carries and old.backend.leaving.is_taking and trio.current_time() < deadline
            ):
                await old.settle(deadline - trio.current_time())
                await self._set_up()  # users that have come meanwhile
            effects = commit(self._parts, self._last_words, new, carry=self._carries)
        except BaseException:
            old.stay()
            await self._roll_back()  # noqa: ASYNC102 - it shields itself, with a deadline
            raise
        self._parts.tell_all(effects)
        self._start_reading(new)
        if new.carried:
            self._nursery.start_soon(self._parts.outbox.push, new)

    async def _set_up(self) -> None:
        """Set up the new backend's line, and let the frontends do so; more may come meanwhile."""
        new = Controls(self._new.backend)
        while (line := self._parts.outbox.line) is not self._line:
            self._line = line
            await self._try(line.set_up, new.line)
        while frontend := next((f for f in self._parts.frontends if f not in self._asked), None):
            self._parts.check_not_closed()
            check_takes_changes(frontend)
            self._asked.add(frontend)
            await self._try(self._ask, frontend, new)

    async def _try(self, set_up: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Await *set_up*, until `give_up`. Raises ChangeFailedError."""
        try:
            with trio.CancelScope() as self._asking:
                await set_up(*args)
        except Exception as exc:
            log.warning("chardev '%s': change failed: %s", self._parts.id, reason_of(exc))
            text = f"Chardev '{self._parts.id}' change failed: {reason_of(exc)}"
            raise ChangeFailedError(text) from exc

    async def _ask(self, frontend: Frontend, backend: Controls) -> None:
        if frontend.calls.be_change is not None:
            with self._parts.outbox.handler_at_work():
                await frontend.calls.be_change(backend)

    async def _roll_back(self) -> None:
        """Have the original set up again, and go on."""
        users, original = self._parts.users, self._old
        try:
            if self._line is not NOTHING_KEPT:  # it may share the line with the new one
                await self._set_line_back(original)
            for frontend in [f for f in self._parts.frontends if f in self._asked]:
                await self._ask_back(frontend, original)
        finally:
            users.release(is_open=users.is_muted and original.backend.is_open)

    async def _set_line_back(self, original: Runner) -> None:
        try:
            with trio.fail_after(CLEANUP_TIMEOUT, shield=True):
                await self._line.set_up(original.backend.line)
        except Exception:
            log.exception("chardev '%s': its line can't be set back", self._parts.id)

    async def _ask_back(self, frontend: Frontend, original: Runner) -> None:
        try:
            with trio.fail_after(CLEANUP_TIMEOUT, shield=True):
                await self._ask(frontend, Controls(original.backend, is_original=True))
        except Exception:
            text = "chardev '%s': its frontend does not take the original back"
            log.exception(text, self._parts.id)


def check_changeable(parts: Parts, *, is_replayed: bool) -> None:
    """Raise ChardevClosedError or ChangeRefusedError for a change that can't succeed."""
    parts.check_not_closed()
    if is_replayed:
        raise ChangeRefusedError(f"Chardev '{parts.id}' cannot be changed in record/replay mode")
    for inbox in parts.users.inboxes:
        if inbox.frontend is None:
            continue
        check_takes_changes(inbox.frontend)
        if (unread := len(inbox.queue)) > DRAIN_LIMIT:
            raise ChangeRefusedError(
                f"Chardev '{parts.id}' has {unread} bytes that its user has not read"
            )


def check_takes_changes(frontend: Frontend) -> None:
    """Raise ChangeRefusedError for a user without be_change."""
    if frontend.calls.be_change is None:
        error = ChangeRefusedError("Chardev user does not support chardev hotswap")
        error.add_note("It was attached without be_change; be_change=stateless needs no set-up.")
        raise error


# ---------------------------------------------------------------- the commit


def put_first(parts: Parts, new: Runner) -> None:
    """Put the first backend of a chardev in place. Raises as `commit` does."""
    parts.tell_all(commit(parts, None, new))


def commit(parts: Parts, old: LastWords | None, new: Runner, *, carry: bool = False) -> Effects:
    """Put *new* in place of *old*. If it raises, the original is untouched.

    Its result must be passed to `Parts.tell_all`, with nothing in between.
    """
    _check_fit(parts, new)
    effects = parts.begin_effects()
    try:
        _give_way(parts, old, new, carry=carry)
    except BaseException:
        parts.tell_all(effects)
        raise
    # From here on nothing raises.
    effects.add(show, new.backend.taps, lambda tap: tap.activate())
    if old is not None:
        if carry:  # first of all, as its peer may begin to read at any moment
            new.carried = old.runner.take_back()
        old.take_received()
    parts.outbox.runner = new
    effects.add(parts.touch)
    if old is not None:
        old.replaced_by(new)
    _let_taps_see(parts, new)
    if new.backend.is_open:
        effects.add(parts.on_event, Event.OPENED, new.backend)
    elif old is not None and old.runner.backend.is_open:
        parts.note(new, Event.CLOSED)
    new.in_place.set()
    if old is not None:
        old.runner.look_again()
    effects.add(_go_on, parts)
    effects.add(parts.users.tell_line)
    return effects


def _check_fit(parts: Parts, new: Runner) -> None:
    """Raise what speaks against *new*."""
    parts.check_not_closed()
    if (users := len(parts.frontends)) > (most := new.backend.stacking.max_frontends):
        raise ChangeRefusedError(
            f"Chardev '{parts.id}' has {users} users, "
            f"but '{new.backend.filename}' can have only {most}"
        )
    if new.is_ending or new.closed.is_set():
        raise BackendError(
            f"the new backend of chardev '{parts.id}' closed before it was in place"
        ) from new.error


def _give_way(parts: Parts, old: LastWords | None, new: Runner, *, carry: bool) -> None:
    """Let both backends do their part; if it raises, the caller has to let the old one `stay`."""
    if old is not None:
        old.runner.backend.leaving.prepare(carry=carry)
    if parts.is_guarded:
        new.backend.peer.guard()
    new.backend.activate()


def _let_taps_see(parts: Parts, new: Runner) -> None:
    """Show the taps of *new* what comes from now on."""
    parts.users.taps = new.backend.taps
    state = Event.OPENED if new.backend.is_open else Event.CLOSED
    parts.tell(show_event, new.backend.taps, state)


def _go_on(parts: Parts) -> None:
    """Make everybody go on with the backend that a commit has put in place."""
    if parts.runner.carried:
        parts.outbox.push_nowait(parts.runner)
    if parts.leaving is None:
        parts.users.release(is_open=parts.backend.is_open)
    else:
        parts.users.let_last_in(is_open=parts.backend.is_open)
