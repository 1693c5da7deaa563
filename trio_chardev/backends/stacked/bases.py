"""What mux and hub share: a backend that stands on other chardevs, its bases.

It is the one user of each base, by a `Base`. A change to another such backend over the same
base hands that `Base` over in its commit; until then, and if it fails, the old one has it.

Sending to a base is synchronous, so a send that is cancelled has sent nothing. What counts as
sent before its base has taken it is *owed*: it stays with the `Base`, is sent before anything
else, as soon as the base takes it, and is handed over with it. One that is left behind by a
change gets what it is owed in the time for draining.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.peer import Peer
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.core.stacking import Stacking
from trio_chardev.core.tap import Tap
from trio_chardev.core.users import Users
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevError,
    NotSupportedError,
)
from trio_chardev.events import BackendEvent, ModemLines

log = logging.getLogger(__name__)

ON_FAILURE = ChardevError, trio.ClosedResourceError
"""What the base's frontend raises."""


class Base:
    """The one user of a chardev that others stand on."""

    def __init__(self, chardev: Chardev) -> None:
        """Raises BackendError if the chardev has another user."""
        self.chardev = chardev
        self.owner: BackendOnBases | None = None
        """Who hears of it: None before the commit, and once its owner was replaced."""
        self.owed = bytearray()
        self.driven = ModemLines(0)
        """The modem lines that it was last told to be on."""
        self._lost_in_a_row = 0
        try:
            self.frontend = chardev.attach(
                be_change=self._be_change,
                on_event=self._on_event,
                on_receive=self._on_receive,
                on_open=self._on_open,
                fe_open=lambda: self.owner is not None and self.owner.is_used,
            )
        except ChardevError as exc:
            raise BackendError(str(exc)) from exc
        self.frontend.relay.keeps_refused = True  # who has sent it to us decides, see `_GivenUp`

    @property
    def id(self) -> str:
        return self.chardev.id

    @property
    def is_open(self) -> bool:
        """Is somebody at its other end, now?"""
        return self.frontend.is_attached and self.chardev.is_open

    @property
    def takes_output(self) -> bool:
        """Is somebody there, or was and still reads?"""
        return self.frontend.is_attached and (
            self.chardev.is_open or self.chardev.backend.peer.is_lingering
        )

    async def _be_change(self, backend: Controls) -> None:
        if self.owner is not None:
            await self.owner.base_changes(backend)

    def _on_open(self) -> None:
        if self.owner is not None:
            self.owner.base_opened()

    def _on_event(self, event: BackendEvent) -> None:
        if self.owner is not None:
            self.owner.base_event(self, event)

    def _on_receive(self, data: bytes) -> int:
        return self.owner.base_received(data) if self.owner is not None else 0

    # ------------------------------------------------------------ output

    def send_nowait(self, data: memoryview) -> int:
        """One attempt; 0 if it would block, or while something is owed. Raises BackendError."""
        return self._attempt(data) if self.pay_nowait() else 0

    def pay_nowait(self) -> bool:
        """Send what is owed, as far as that goes; is nothing owed now? Raises BackendError."""
        if self.owed:
            self._attempt(memoryview(bytes(self.owed)))
        return not self.owed

    def is_paid(self) -> bool:
        """`pay_nowait`, but an error ends what is owed."""
        try:
            return self.pay_nowait()
        except BackendError as exc:
            self.forgive(exc)
            return True

    def _attempt(self, data: memoryview) -> int:
        """Send *data*, which is what is owed if anything is."""
        try:
            sent = self.frontend.try_send(data)
        except ON_FAILURE as exc:
            raise as_backend_error(exc) from exc
        del self.owed[:sent]
        if sent and not self.owed:
            self._tell_lost()
        return sent

    def lose(self, data: memoryview, why: object) -> None:
        """Give *data* up; it is counted, and told of when it begins and ends."""
        if data:
            if not self._lost_in_a_row:
                log.warning("chardev '%s' loses output: %s", self.id, why)
            self._lost_in_a_row += len(data)
            self.frontend.relay.lost += len(data)
            self.frontend.relay.give_up(data)
            self.chardev.touch()

    def _tell_lost(self) -> None:
        if self._lost_in_a_row:
            log.warning("chardev '%s' has lost %d bytes", self.id, self._lost_in_a_row)
            self._lost_in_a_row = 0

    def forgive(self, why: object) -> None:
        """Give up what is owed."""
        self.lose(memoryview(bytes(self.owed)), why)
        self.owed.clear()

    def leave(self) -> None:
        """Be its user no more."""
        self.forgive("its user was closed")
        self._tell_lost()
        self.chardev.detach(self.frontend)


class _GivenUp(Tap):
    """Tells the bases what a user had for them and has given up, for the logs that they have."""

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
        """Has it users that are open?"""
        return any(frontend.calls.is_ready() for frontend in self._users.frontends)

    @abstractmethod
    def base_received(self, data: bytes) -> int:
        """A base offers *data*; how much was taken."""

    def base_opened(self) -> None:
        """Somebody has come to a base, and can be sent to before its event has its turn."""
        self._users.tell_opened()

    @abstractmethod
    def base_event(self, base: Base, event: BackendEvent) -> None:
        """*event* has come from *base*."""

    async def base_changes(self, backend: Controls) -> None:
        """Have every user that has a line to set up do it on a base's new *backend*.

        The first that refuses it ends that; but when a change is undone all are asked,
        each in its share of the time, and the last error is raised.
        """
        asked: set[Frontend] = set()  # others may come meanwhile
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
        """Become the one that hears of the bases. Raises BackendError.

        One may have come to stand on us since it was found: a change of it may overlap.
        """
        for base in self.on_bases:
            check_no_ring(base.chardev, self._request)
        for base in self.on_bases:
            base.owner = self
            if base.owed:
                self.pay_soon(base)

    # ------------------------------------------------------------ output

    def pay_soon(self, base: Base) -> None:
        """Give *base* what it is owed, as it takes it; once it can take more, senders look again."""
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
        """Wait until a base has been paid by `pay_soon`, or `wake_senders`."""
        await self._senders.park()

    def wake_senders(self) -> None:
        """Make those who wait to send look again."""
        self._senders.unpark_all()


class BasesPeer(Peer):
    """Those at the other ends of the bases."""

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

    def guard(self) -> None:
        """Guard the bases: it is there that somebody comes."""
        for base in self._backend.on_bases:
            base.chardev.guard()


class BasesStacking(Stacking):
    """What a backend stands on that has bases."""

    def __init__(self, backend: BackendOnBases) -> None:
        self._backend = backend

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(base.id for base in self._backend.on_bases)

    def touch(self) -> None:
        """Whether the bases are used depends on whether this is."""
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
        """Have the bases that are left behind given what they are owed.

        What they receive from now on is for their next users.
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
    """*make* a backend that stands on *chardevs*, which it leaves when the block ends.

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
    """The base of the backend in place, which the commit will hand over."""
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
        if lower in request.chardevs:
            below += request.chardevs[lower].backend.stacking.bases


@contextmanager
def base_errors() -> Iterator[None]:
    """Around the use of a base's frontend: what may leave a backend is raised instead."""
    try:
        yield
    except NotSupportedError:
        raise
    except ON_FAILURE as exc:
        raise as_backend_error(exc) from exc


def as_backend_error(error: Exception) -> BackendError:
    """What may leave a backend of what a base's frontend raises."""
    if isinstance(error, BackendError):
        return error
    return BackendDisconnectedError(str(error) or "the base is gone")
