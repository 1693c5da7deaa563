"""The one user of a chardev that others stand on, which a mux or hub has for each of its bases.

Sending to a base is synchronous, so a send that is cancelled has sent nothing. What counts as
sent before its base has taken it is *owed*: it stays with the `Base`, is sent before anything
else, as soon as the base takes it, and is handed over with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevError,
    NotSupportedError,
)
from trio_chardev.events import BackendEvent, ModemLines

log = logging.getLogger(__name__)

ON_FAILURE = ChardevError, trio.ClosedResourceError
"""The exceptions that a base's frontend raises."""


class Owner(Protocol):
    """What a base tells the backend that stands on it, and asks of it."""

    @property
    def is_used(self) -> bool:
        """Are any of its users open?"""

    @property
    def answers_line(self) -> bool:
        """Does one of its users acknowledge what a base's peer asks of the line?"""

    def base_received(self, data: bytes) -> int:
        """Take some of the *data* that a base offers. Returns how many bytes."""

    def base_opened(self) -> None:
        """Note that somebody has come to a base, before its OPENED event."""

    def base_line_changed(self) -> None:
        """Note that the line may be another, as a base's is."""

    def base_event(self, base: Base, event: BackendEvent) -> None:
        """Handle *event*, which came from *base*."""

    async def base_changes(self, backend: Controls) -> None:
        """Have every user set up its line on *backend*, a base's new one."""


class Base:
    """The one user of a chardev that others stand on."""

    def __init__(self, chardev: Chardev) -> None:
        """Attach to *chardev*. Raises BackendError if it has another user."""
        self.chardev = chardev
        self.owner: Owner | None = None
        """The backend that gets its events; None before the commit, and once that was replaced."""
        self.owed = bytearray()
        self.driven = ModemLines(0)
        """The modem lines that the base last reported to be on."""
        self._lost_in_a_row = 0
        try:
            self.frontend = chardev.attach(
                be_change=self._be_change,
                on_event=self._on_event,
                on_receive=self._on_receive,
                on_open=self._on_open,
                on_line=self._on_line,
                fe_open=lambda: self.owner is not None and self.owner.is_used,
                answers_line=lambda: self.owner is not None and self.owner.answers_line,
            )
        except ChardevError as exc:
            raise BackendError(str(exc)) from exc
        self.frontend.relay.keeps_refused = True  # what is given up is told by the owner's taps

    @property
    def id(self) -> str:
        return self.chardev.id

    @property
    def is_open(self) -> bool:
        """Is somebody at its other end now?"""
        return self.frontend.is_attached and self.chardev.is_open

    @property
    def takes_output(self) -> bool:
        """Is somebody there who may read, perhaps after half-closing?"""
        return self.frontend.is_attached and (
            self.chardev.is_open or self.chardev.backend.peer.is_lingering
        )

    async def _be_change(self, backend: Controls) -> None:
        if self.owner is not None:
            await self.owner.base_changes(backend)

    def _on_open(self) -> None:
        if self.owner is not None:
            self.owner.base_opened()

    def _on_line(self) -> None:
        if self.owner is not None:
            self.owner.base_line_changed()

    def _on_event(self, event: BackendEvent) -> None:
        if self.owner is not None:
            self.owner.base_event(self, event)

    def _on_receive(self, data: bytes) -> int:
        return self.owner.base_received(data) if self.owner is not None else 0

    # ------------------------------------------------------------ output

    def send_nowait(self, data: memoryview) -> int:
        """Make one attempt; 0 if it would block, or while bytes are owed. Raises BackendError."""
        return self._attempt(data) if self.pay_nowait() else 0

    def pay_nowait(self) -> bool:
        """Send as much of what is owed as possible. Is it all sent? Raises BackendError."""
        if self.owed:
            self._attempt(memoryview(bytes(self.owed)))
        return not self.owed

    def is_paid(self) -> bool:
        """Do `pay_nowait`, but give up what is owed if it fails."""
        try:
            return self.pay_nowait()
        except BackendError as exc:
            self.forgive(exc)
            return True

    def _attempt(self, data: memoryview) -> int:
        """Send *data*, which is what is owed if anything is owed."""
        try:
            sent = self.frontend.try_send(data)
        except ON_FAILURE as exc:
            raise as_backend_error(exc) from exc
        del self.owed[:sent]
        if sent and not self.owed:
            self._tell_lost()
        return sent

    def lose(self, data: memoryview, why: object) -> None:
        """Give *data* up and count it; the begin and the end of a loss are logged."""
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
        """Give up what is owed, and log *why*."""
        self.lose(memoryview(bytes(self.owed)), why)
        self.owed.clear()

    def leave(self) -> None:
        """Detach from the chardev."""
        self.forgive("its user was closed")
        self._tell_lost()
        self.chardev.detach(self.frontend)


@contextmanager
def base_errors() -> Iterator[None]:
    """Convert the exceptions of a base's frontend to those that a backend raises."""
    try:
        yield
    except NotSupportedError:
        raise
    except ON_FAILURE as exc:
        raise as_backend_error(exc) from exc


def as_backend_error(error: Exception) -> BackendError:
    """Convert an exception of a base's frontend to one that a backend raises."""
    if isinstance(error, BackendError):
        return error
    return BackendDisconnectedError(str(error) or "the base is gone")
