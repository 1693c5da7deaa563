"""What mux and hub share: a backend that stands on other chardevs, its bases.

It is the one user of each base, by a `Base`. If it is changed to another backend over the same
base, the commit hands that `Base` over; until then, and if the change fails, the old one has it.

A base that is left behind by a change gets what it is owed in the time for draining.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from trio_chardev.backends.stacked.base import ON_FAILURE, Base
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.core.stacking import Stacking
from trio_chardev.core.tap import Tap
from trio_chardev.core.users import Users
from trio_chardev.errors import (
    BackendError,
)
from trio_chardev.events import BackendEvent

log = logging.getLogger(__name__)


class _GivenUp(Tap):
    """Passes what a user gives up on to the bases' own logs."""

    def __init__(self, bases: Sequence[Base]) -> None:
        self._bases = bases

    def refused(self, data: memoryview) -> None:
        for base in self._bases:
            base.frontend.relay.give_up(data)


class BackendOnBases(Backend):
    """A backend that stands on other chardevs."""

    def __init__(self, request: OpenRequest, bases: Sequence[Base], nursery: trio.Nursery) -> None:
        super().__init__(request)
        assert request.users is not None, "it is of a chardev"
        self.on_bases = bases
        self.taps = (_GivenUp(bases),)
        self._users: Users[Frontend] = request.users
        self._request = request
        self._nursery = nursery
        self._waited_for: set[Base] = set()
        self._senders = trio.lowlevel.ParkingLot()

    @property
    def peer(self) -> Peer:
        return BasesPeer(self)

    @property
    def stacking(self) -> Stacking:
        return BasesStacking(self)

    @property
    def leaving(self) -> Leaving:
        return _BasesLeaving(self)

    @property
    def is_used(self) -> bool:
        """Are any of its users open?"""
        return any(frontend.calls.is_ready() for frontend in self._users.frontends)

    @property
    def answers_line(self) -> bool:
        """Does one of its users acknowledge what a base's peer asks of the line?"""
        return self._users.answers_line

    @abstractmethod
    def base_received(self, data: bytes) -> int:
        """Take some of the *data* that a base offers. Returns how many bytes."""

    def base_opened(self) -> None:
        """Tell the users that somebody has come to a base, before its OPENED event."""
        self._users.tell_opened()

    def base_line_changed(self) -> None:
        """Tell the users that the line may be another, as a base's is."""
        self._users.tell_line()

    @abstractmethod
    def base_event(self, base: Base, event: BackendEvent) -> None:
        """Handle *event*, which came from *base*."""

    async def base_changes(self, backend: Controls) -> None:
        """Let every user set up its line on *backend*, a base's new one.

        The first user that refuses ends that. But when a change is undone all are asked, each in
        its share of the time, and the last error is raised.
        """
        asked: set[Frontend] = set()  # as users may come meanwhile
        error: Exception | None = None
        while frontend := next((f for f in self._users.frontends if f not in asked), None):
            asked.add(frontend)
            if frontend.calls.be_change is None:
                continue
            if not backend.is_original:
                await frontend.calls.be_change(backend)
                continue
            try:
                with trio.fail_after(CLEANUP_TIMEOUT / (2 * len(self._users.frontends))):
                    await frontend.calls.be_change(backend)
            except Exception as exc:
                log.warning("chardev '%s': a user does not take the original: %r", self.id, exc)
                error = exc
        if error is not None:
            raise error

    # ------------------------------------------------------------ life

    def activate(self) -> None:
        """Receive the bases' events from now on. Raises BackendError.

        A base may have come to stand on this one since the check, as its change may overlap.
        """
        for base in self.on_bases:
            check_no_ring(base.chardev, self._request)
        for base in self.on_bases:
            base.owner = self
            if base.owed:
                self.pay_soon(base)

    # ------------------------------------------------------------ output

    def pay_soon(self, base: Base) -> None:
        """Send *base* what it is owed, as it takes it. When it can take more, senders retry."""
        if base not in self._waited_for:
            self._waited_for.add(base)
            self._nursery.start_soon(self._pay, base)

    async def _pay(self, base: Base) -> None:
        try:
            is_paid = False
            while not is_paid:
                await base.frontend.wait_send_all_might_not_block()
                is_paid = base.pay_nowait()
        except ON_FAILURE as exc:
            base.forgive(exc)
        finally:
            self._waited_for.discard(base)
            self._senders.unpark_all()

    async def wait_paid(self) -> None:
        """Wait until `pay_soon` has finished with a base, or until `wake_senders`."""
        await self._senders.park()

    def wake_senders(self) -> None:
        """Make the waiting senders retry."""
        self._senders.unpark_all()


class BasesPeer(Peer):
    """The peers at the other ends of the bases."""

    def __init__(self, backend: BackendOnBases) -> None:
        super().__init__(backend.filename)
        self._backend = backend

    @property
    def may_have_left(self) -> bool:
        return any(base.chardev.backend.peer.may_have_left for base in self._backend.on_bases)

    @property
    def is_lingering(self) -> bool:
        is_closed = not self._backend.is_open
        return is_closed and any(base.takes_output for base in self._backend.on_bases)

    @property
    def outlook(self) -> Outlook:
        """Why nobody is at a base is shown there."""
        return Outlook(
            may_come=any(
                base.chardev.is_open or base.chardev.backend.peer.outlook.may_come
                for base in self._backend.on_bases
            )
        )

    def guard(self) -> None:
        """Guard the bases, as it is to them that peers come."""
        for base in self._backend.on_bases:
            base.chardev.guard()


class BasesStacking(Stacking):
    """What a backend with bases stands on."""

    def __init__(self, backend: BackendOnBases) -> None:
        self._backend = backend

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(base.id for base in self._backend.on_bases)

    def touch(self) -> None:
        """Touch the bases, as they are used if this chardev is."""
        for base in self._backend.on_bases:
            base.chardev.touch()


class _BasesLeaving(Leaving):
    """How a backend leaves its bases."""

    def __init__(self, backend: BackendOnBases) -> None:
        self._backend = backend

    @property
    def is_drained(self) -> bool:
        return False

    async def drain(self) -> None:
        """Wait until the bases that are left behind have got what they are owed.

        Their input from now on is for their next users.
        """
        left = [base for base in self._backend.on_bases if base.owner is self._backend]
        for base in left:
            base.owner = None
        while any(base.owed for base in left):
            await self._backend.wait_paid()


B = TypeVar("B", bound=BackendOnBases)


@asynccontextmanager
async def open_on_bases(
    chardevs: Sequence[Chardev],
    request: OpenRequest,
    make: Callable[[Sequence[Base], trio.Nursery], B],
) -> AsyncIterator[B]:
    """Give the backend that *make* makes on *chardevs*, which it leaves when the block ends.

    Raises BackendError if one of them is in use.
    """
    bases: list[Base] = []
    backend: B | None = None
    async with open_background_nursery() as nursery:
        try:
            for chardev in chardevs:
                check_no_ring(chardev, request)
                base = _of_replaced(chardev, request) or Base(chardev)
                if base in bases:
                    raise BackendError(f"Device '{chardev.id}' is in use")
                bases.append(base)
            backend = make(bases, nursery)
            yield backend
        finally:
            for base in bases:
                if base.owner in (backend, None):  # it was not handed over
                    base.leave()
            if backend is not None:
                backend.wake_senders()


def _of_replaced(chardev: Chardev, request: OpenRequest) -> Base | None:
    """Find the base in the replaced backend; the commit will hand it over."""
    replaced = request.replaces
    if not isinstance(replaced, BackendOnBases):
        return None
    return next((base for base in replaced.on_bases if base.chardev is chardev), None)


def check_no_ring(chardev: Chardev, request: OpenRequest) -> None:
    """Raise BackendError if *chardev* stands on the one that *request* is for."""
    below = list(chardev.backend.stacking.bases)
    while below:
        lower = below.pop()
        if lower == request.id:
            raise BackendError(f"Chardev '{chardev.id}' stands on '{lower}' itself")
        if lower in request.environment.chardevs:
            below += request.environment.chardevs[lower].backend.stacking.bases
