"""What a backend must offer, and what an opener is given.

A backend is the replaceable host side of a chardev. It is made by an *opener*, a function
that takes an `OpenRequest` and returns an async context manager: entering it opens, and
leaving it closes, always in the one task that also reads. Accepting, connecting,
handshakes and reconnecting are the backend's own business, inside `wait_readable`.

Opening must not harm what the backend to be replaced (`OpenRequest.replaces`) uses,
because the change may still fail: files are truncated and line settings applied in `activate`.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import trio

from trio_chardev.core.direct import Direct
from trio_chardev.core.environment import Environment, Files
from trio_chardev.core.leaving import LEAVES_NOTHING, Leaving
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.stacking import STANDS_ALONE, Stacking
from trio_chardev.core.tap import Tap
from trio_chardev.core.users import Users
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions

log = logging.getLogger(__name__)


@attrs.define(kw_only=True, eq=False, repr=False)
class OpenRequest:
    """What an opener is given."""

    id: str
    on_event: Callable[[BackendEvent], None]
    """Called with the backend's events, by `Backend.set_open` for one."""

    replaces: Backend | None = None
    """The backend in place, whose descriptors may be shared. None after the commit."""

    keep_peer: bool = False
    """`Backend.activate` is to take over the peer of `replaces`."""

    is_guarded: bool = False
    """`Peer.guard` will be called, so what others can see before has to be for this user alone."""

    touch: Callable[[], None] = lambda: None
    """Must be called when something that lists show has changed without an event."""

    on_failure: Callable[[], None] = lambda: None
    """Must be called when an attempt to reach somebody fails, after the opening."""

    users: Users[Any] | None = None
    """The chardev's users, for a backend that chooses which of them gets the input."""

    environment: Environment = attrs.Factory(Environment)
    """What is the same for all openings of a registry."""

    files: Files = attrs.Factory(Files)
    """The files and descriptors that the options of this opening may name."""


class Backend(abc.ABC):
    """One host side of a chardev.

    The rules that the core relies on:

    * methods raise `BackendError` (or Cancelled), never OSError or a group;
    * when `wait_readable` or `send_some` raises Cancelled, it has consumed, or sent, nothing;
    * no byte is held in a local variable over a checkpoint.
    """

    is_polled: bool = False
    """Is it worthwhile to poll it again, because input may follow at once? See `Polling`."""

    gives_all: bool = False
    """Does `receive_nowait` give all that has come, if that is less than what was asked for?

    Then `wait_readable` is called right after it, and must not wait if more has come meanwhile.
    """

    is_silent: bool = False
    """Does nothing ever come from it, not even an event? Then no task has to read it, see `AtOnce`."""

    pty: str | None = None
    """The path of the PTY's other side, for the answer to chardev-add."""

    @property
    def port(self) -> int | None:
        """The TCP or UDP port that it listens at or is bound to, chosen by the system if 0 was."""
        return None

    taps: tuple[Tap, ...] = ()

    def __init__(self, request: OpenRequest) -> None:
        self.id = request.id
        self._on_event = request.on_event
        self._open = False

    @property
    @abc.abstractmethod
    def filename(self) -> str:
        """The backend as query-chardev shows it."""

    @property
    def line(self) -> Line:
        """What its user can do to the line; overridden by kinds that have one."""
        return Line(self.filename)

    @property
    def leaving(self) -> Leaving:
        """What it does for bytes in transit when another backend takes its place."""
        return LEAVES_NOTHING

    @property
    def peer(self) -> Peer:
        """The peer at its other end, and the clients that come there."""
        return Peer(self.filename)

    @property
    def stacking(self) -> Stacking:
        """What only a mux or hub has: several users, or chardevs that it stands on."""
        return STANDS_ALONE

    @property
    def shared(self) -> Backend:
        """The one whose descriptors the next backend may share: itself, or one that it has inside."""
        return self

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end? True from a reported OPENED to a reported CLOSED."""
        return self._open

    def set_open(self, is_open: bool) -> None:
        """Report OPENED or CLOSED, if that is a change."""
        if is_open != self._open:
            self._open = is_open
            self._on_event(Event.OPENED if is_open else Event.CLOSED)

    def receive_nowait(self, max_bytes: int) -> bytes:
        """Return what has already come, at most *max_bytes*; ``b""`` if nothing has.

        This is also the drain after a commit, so repeated calls must give all that the kernel
        holds. If it finds a disconnect, it reports that by `set_open`.
        """
        return b""

    @abc.abstractmethod
    def send_nowait(self, data: memoryview) -> int:
        """Make one attempt to send. Returns how many bytes were accepted, 0 if it would block.

        Raises BackendDisconnectedError if nobody is there, BackendError if it is broken.
        """

    @property
    def direct(self) -> Direct | None:
        """How its bytes can bypass this process; None if all have to come through it now."""
        return None

    @property
    def input_fd(self) -> int | None:
        """The descriptor that is readable as soon as something comes; None if only waiting tells.

        It is asked for after `receive_nowait` gave all, see `gives_all`, and may be waited for in
        place of `wait_readable`. Before it is closed, `notify_closing` of `core.reactor` is called.
        """
        return None

    async def wait_readable(self) -> None:
        """Wait until `receive_nowait`, which just gave nothing, may give something.

        It accepts, connects and shakes hands meanwhile. May return too early; always a checkpoint.
        """
        await trio.sleep_forever()

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` may accept something; may return too early."""
        await trio.lowlevel.checkpoint()

    async def send_some(self, data: memoryview) -> int:
        """Send a non-empty prefix of *data* and return its length.

        When Cancelled, nothing was sent. Raises as `send_nowait` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if sent := self.send_nowait(data):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return sent
        while True:
            await self.wait_writable()
            if sent := self.send_nowait(data):
                return sent

    async def prepare(self) -> None:  # noqa: B027 - most kinds have nothing on a disk to change
        """Do now what `activate` can't, because a disk may block it: rename a link, for one.

        Called right before the commit of a change, when the users are set up. Closing undoes it,
        unless `activate` was called. If it raises BackendError, there is no change. Shielded waits
        need a deadline.
        """

    def activate(self) -> None:  # noqa: B027
        """Take the place of the replaced backend; this is the commit. Raises BackendError.

        Until this call nothing destructive may have been done. If it raises, the change
        unwinds, so closing must undo what it did.
        """


Opener = Callable[[OpenRequest], AbstractAsyncContextManager[Backend]]
"""Makes a backend. Entering its context raises OptionsError or BackendError if it can't open.

What never waits when it opens or closes should be an `AtOnce`: changes to it take half as long.
"""

OpenerOf = Callable[[BackendOptions], Opener]
"""Returns the opener for options; a table of kinds is one."""
