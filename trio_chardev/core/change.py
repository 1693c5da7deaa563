"""A change: another backend takes the place of one, or all is as it was.

`Change.make` is ARCHITECTURE's table from top to bottom, behind the opening, which is the chardev's.
"""

from __future__ import annotations

import logging

import attrs
import trio

from trio_chardev.core.backend import Backend
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.seat import DRAIN_LIMIT, Seat
from trio_chardev.core.slot import CLEANUP_TIMEOUT, MAX_DRAIN_TIMEOUT, Slot
from trio_chardev.errors import ChangeFailedError, ChangeRefusedError, reason_of

log = logging.getLogger(__name__)


@attrs.frozen
class ChangeOptions:
    """How a change is to be made; see `Chardev.change`."""

    drain_timeout: float
    carry: bool
    keep_peer: bool

    def check(self) -> None:
        """Raise ChangeRefusedError if they can't be followed."""
        if not 0 <= self.drain_timeout <= MAX_DRAIN_TIMEOUT:
            raise ChangeRefusedError(
                f"'drain-timeout' must be from 0 to {MAX_DRAIN_TIMEOUT:g} seconds"
            )


@attrs.define(eq=False)
class Change:
    """One change of one chardev, in which the *new* backend is open beside the *old* one."""

    _seat: Seat
    _nursery: trio.Nursery
    """For what goes on behind the change: bytes that it has carried over."""
    _old: Slot
    _new: Slot
    _options: ChangeOptions
    _asked: set[Frontend] = attrs.field(factory=set, init=False)
    """Who has been asked to take the new one, and then has to take the original back."""
    _asking: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def _carries(self) -> bool:
        return self._options.carry or self._options.keep_peer

    async def make(self) -> None:
        """Put the new one in place and close the old one.

        Raising anything, Cancelled included, it leaves the old one in place and closes the new one.
        Raises ChangeRefusedError, ChangeFailedError, ChardevClosedError.
        """
        try:
            if self._options.keep_peer and not self._new.backend.keeps_peer:
                raise ChangeRefusedError("'keep-peer' requires two sockets of the same address")
            async with self._seat.outbound.exclusive():
                await self._switch()
        except BaseException:
            await self._new.retire()  # noqa: ASYNC102 - it shields itself, with a deadline
            raise
        await self._seat.see_off(self._old, self._options.drain_timeout)
        await self._old.retire()

    def give_up(self) -> None:
        """Ask nobody any more: the chardev is closed, and a be_change might wait for ever."""
        self._asking.cancel()

    async def _switch(self) -> None:
        old, new = self._old, self._new
        deadline = trio.current_time() + self._options.drain_timeout
        if self._carries:
            await old.settle(self._options.drain_timeout)
        self._seat.outlets.hold(closed=old.backend.is_open and not new.backend.is_open)
        try:
            await self._set_up()
            if type(new.backend).prepare is not Backend.prepare:
                await new.backend.prepare()
                await self._set_up()  # who has come meanwhile
            while self._carries and old.backend.is_taking and trio.current_time() < deadline:
                await old.settle(deadline - trio.current_time())
                await self._set_up()  # who has come meanwhile
            effects = self._seat.commit(old, new, carry=self._carries)
        except BaseException:
            old.stay()
            await self._roll_back()  # noqa: ASYNC102 - it shields itself, with a deadline
            raise
        self._seat.tell_all(effects)
        if new.carried:
            self._nursery.start_soon(self._seat.outbound.push, new)

    async def _set_up(self) -> None:
        """Have the frontends set up for the new one; others may come meanwhile."""
        while frontend := next((f for f in self._seat.frontends if f not in self._asked), None):
            self._seat.check_not_closed()
            check_takes_changes(frontend)
            self._asked.add(frontend)
            try:
                with trio.CancelScope() as self._asking:
                    await self._ask(frontend, Controls(self._new.backend))
            except Exception as exc:
                log.warning("chardev '%s': change failed: %r", self._seat.id, exc)
                text = f"Chardev '{self._seat.id}' change failed: {reason_of(exc)}"
                raise ChangeFailedError(text) from exc

    async def _ask(self, frontend: Frontend, backend: Controls) -> None:
        if frontend.handlers.be_change is not None:
            with self._seat.outbound.handler_at_work():
                await frontend.handlers.be_change(backend)

    async def _roll_back(self) -> None:
        """Set the frontends up for the original again, and let them go on."""
        outlets, original = self._seat.outlets, self._old
        try:
            for frontend in [f for f in self._seat.frontends if f in self._asked]:
                await self._ask_back(frontend, original)
        finally:
            outlets.release(is_open=outlets.is_muted and original.backend.is_open)

    async def _ask_back(self, frontend: Frontend, original: Slot) -> None:
        try:
            with trio.fail_after(CLEANUP_TIMEOUT, shield=True):
                await self._ask(frontend, Controls(original.backend, is_original=True))
        except Exception:
            text = "chardev '%s': its frontend does not take the original back"
            log.exception(text, self._seat.id)


def check_changeable(seat: Seat, *, is_replayed: bool) -> None:
    """Raise ChardevClosedError or ChangeRefusedError where a change need not be begun."""
    seat.check_not_closed()
    if is_replayed:
        raise ChangeRefusedError(f"Chardev '{seat.id}' cannot be changed in record/replay mode")
    for frontend in seat.frontends:
        check_takes_changes(frontend)
        if (unread := len(frontend.delivery.inbound)) > DRAIN_LIMIT:
            raise ChangeRefusedError(
                f"Chardev '{seat.id}' has {unread} bytes that its user has not read"
            )


def check_takes_changes(frontend: Frontend) -> None:
    """Raise ChangeRefusedError for a user that could not follow a change."""
    if frontend.handlers.be_change is None:
        error = ChangeRefusedError("Chardev user does not support chardev hotswap")
        error.add_note("It was attached without be_change; be_change=stateless needs no set-up.")
        raise error
