"""mux: several users share another chardev, and keys switch between them.

The base's input is scanned as it comes: bytes go to the user that has the focus, and commands
after the escape character are carried out. That goes on while the focused user does not read,
until LOOK_AHEAD more bytes wait than its queue should hold. Only then the base is no longer read,
and commands typed after those bytes are not seen. (QEMU stops at 32 bytes.)

All users' output goes to the base; a `send_all` of one is not mixed with another's, because
the users are frontends of one chardev.

The base can be changed under the mux: its `be_change` calls that of all the users.

Whoever is behind the base can type commands, and a board's output may contain them. So their cost
is bounded: after PIECES_AT_ONCE steps other tasks run, a command prints nothing while the last
one's text still waits, and only the operator's own terminal, or a peer allowed by `escape-quit`,
can end the service.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.backends.stacked.base import Base
from trio_chardev.backends.stacked.bases import (
    BackendOnBases,
    BasesPeer,
    BasesStacking,
    open_on_bases,
)
from trio_chardev.backends.stacked.mux_line import MuxLine
from trio_chardev.backends.stdio import StdioBackend
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.inbox import Inbox
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.stacking import Stacking
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.escape import Command, EscapeParser

LOOK_AHEAD = 1 << 16  # bytes
PIECES_AT_ONCE = 128  # ends of commands, or stamped lines, before other tasks run
STAMPED_AT_ONCE = 1 << 12  # bytes that are searched for the end of a line


@attrs.frozen(kw_only=True)
class MuxOptions(BackendOptions):
    """Shares another chardev among several users; keys switch between them."""

    chardev: str
    """The chardev to share."""

    escape_quit: bool = False
    """Does x behind the escape character end the service? With stdio below it always does."""

    @property
    def stands_on(self) -> tuple[str, ...]:
        """Its base."""
        return (self.chardev,)


class MuxBackend(BackendOnBases):
    """A backend that stands on another chardev, for up to 32 users (QEMU: 4)."""

    def __init__(
        self,
        options: MuxOptions,
        request: OpenRequest,
        bases: Sequence[Base],
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(request, bases, nursery)
        [self.base] = bases
        self._frontend = self.base.frontend
        self._escape_quit = options.escape_quit
        self._is_cut = False  # the base's input waits while other tasks run
        self._escape = EscapeParser(request.environment.escape)
        self._stamps_since: float | None = None
        self._is_at_line_start = False
        self.set_open(self.base.is_open)

    @property
    def filename(self) -> str:
        return "mux"

    @property
    def peer(self) -> Peer:
        return _MuxPeer(self)

    @property
    def stacking(self) -> Stacking:
        return _MuxStacking(self)

    @property
    def line(self) -> Line:
        return MuxLine(self.filename, self._frontend)

    def activate(self) -> None:
        super().activate()
        self._on_event(self._frontend.window_size)
        self.set_open(self.base.is_open)

    # ------------------------------------------------------------ input

    def base_received(self, data: bytes) -> int:
        """See `BackendOnBases`.

        Each stretch ends where a command may end: the command may move the focus, and the room is
        that of the focused user.
        """
        taken = 0
        for _ in range(PIECES_AT_ONCE):
            if taken == len(data) or self._is_cut or (room := self._room()) <= 0:
                return taken
            if self._escape.is_escaped:
                end = taken + 1
            else:
                end = data.find(self._escape.character, taken) + 1 or len(data)
            stretch = data[taken : min(end, taken + room)]
            taken += len(stretch)
            for piece in self._escape.feed(stretch):
                if isinstance(piece, bytes):
                    self._users.data(piece)
                else:
                    self._carry_out(piece)
        self._is_cut = True
        self._users.focus.queue.wake_writers()  # so that `take_base_input` goes on
        return taken

    def _room(self) -> int:
        """How many bytes the focused user may get, including those of the look-ahead."""
        focus = self._users.focus
        if focus.frontend is None or focus.queue.is_paused or self._users.is_reserved:
            return 0
        return focus.queue.room + LOOK_AHEAD

    async def wait_readable(self) -> None:
        """Take the base's input as users make room; the mux itself never has any to read."""
        while True:
            await self.take_base_input()
            await self._users.wait_room()

    async def take_base_input(self) -> None:
        """Take what the base has; other tasks run after each PIECES_AT_ONCE steps."""
        while self._frontend.is_attached:
            self._is_cut = False
            self._frontend.accept_input()
            if not self._is_cut:
                return
            await trio.lowlevel.checkpoint()

    def base_event(self, base: Base, event: BackendEvent) -> None:
        """Pass an event of the base to all users."""
        if event is Event.OPENED:
            self._on_event(self._frontend.window_size)
        if event in (Event.OPENED, Event.CLOSED):
            self.set_open(event is Event.OPENED)  # it may be known since `activate`
        else:
            self._on_event(event)

    def focus_on(self, inbox: Inbox[Any]) -> None:
        """Give the focus to a new user, unless one of its handlers failed at once."""
        if inbox.frontend is None:
            return
        if inbox is self._users.focus:
            inbox.event(Event.MUX_IN)
        self._users.set_focus(inbox)
        if self._frontend.is_attached:
            self._frontend.accept_input()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Command.HELP:
                self._say(self._escape.help_text(may_quit=self._may_quit))
            case Command.QUIT if self._may_quit:
                self._say(b"trio-chardev: Terminated\r\n")
                self._request.environment.quit()
            case Command.BREAK:
                self._users.focus_event(Event.BREAK)
            case Command.SWITCH:
                self._focus_next()
            case Command.TIMESTAMPS:
                self._stamps_since = time.monotonic() if self._stamps_since is None else None
                self._is_at_line_start = False

    @property
    def _may_quit(self) -> bool:
        """May whoever types at the base, as it is now, end the service?"""
        return self._escape_quit or isinstance(self.base.chardev.backend, StdioBackend)

    def _focus_next(self) -> None:
        inboxes = self._users.inboxes
        place = inboxes.index(self._users.focus)
        self._users.set_focus(inboxes[(place + 1) % len(inboxes)])

    # ------------------------------------------------------------ output

    def _say(self, text: bytes) -> None:
        """Send our own *text* before what is sent next; not while anything is owed."""
        if self.base.owed:
            return
        self.base.owed += text
        try:
            if not self.base.pay_nowait():
                self.pay_soon(self.base)
        except BackendError:
            self.base.frontend.relay.give_up(bytes(self.base.owed))  # nobody is there to read it
            self.base.owed.clear()

    def send_nowait(self, data: memoryview) -> int:
        sent = 0
        for _ in range(PIECES_AT_ONCE):
            stretch = self._stretch(data[sent:])
            try:
                count = self.base.send_nowait(stretch)
            except BackendError:
                if not sent:
                    raise
                break  # the next call will raise it
            self._note_sent(stretch[:count])
            sent += count
            if count < len(stretch) or sent == len(data):
                break
        return sent

    async def wait_writable(self) -> None:
        self.pay_soon(self.base)
        await self.wait_paid()

    def _stretch(self, data: memoryview) -> memoryview:
        """Return as much of *data* as gets no time stamp within, having queued one before it."""
        if self._stamps_since is None:
            return data
        if self._is_at_line_start:
            self.base.owed += _stamp(time.monotonic() - self._stamps_since)
            self._is_at_line_start = False
        data = data[:STAMPED_AT_ONCE]
        return data[: bytes(data).find(b"\n") + 1] or data

    def _note_sent(self, data: memoryview) -> None:
        if data and self._stamps_since is not None:
            self._is_at_line_start = data[-1] == ord("\n")


class _MuxPeer(BasesPeer):
    """The peers at the other end of the base."""

    needs_attention = True

    def __init__(self, backend: MuxBackend) -> None:
        super().__init__(backend)
        self._mux = backend

    async def attend(self) -> None:
        """Scan the base's input even while the focused user has no room; see LOOK_AHEAD."""
        await self._mux.take_base_input()
        await trio.sleep_forever()


class _MuxStacking(BasesStacking):
    """Several users; a new one gets the focus."""

    max_frontends = 32

    def __init__(self, backend: MuxBackend) -> None:
        super().__init__(backend)
        self._mux = backend

    def attached(self, inbox: Inbox[Any]) -> None:
        self._mux.focus_on(inbox)


@asynccontextmanager
async def open_mux(options: MuxOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Stand on the chardev that *options* name. Raises OptionsError, BackendError."""
    id = options.chardev
    if id == request.id or id not in request.environment.chardevs:
        raise OptionsError(f"mux: base chardev {id} not found")
    make = functools.partial(MuxBackend, options, request)
    async with open_on_bases([request.environment.chardevs[id]], request, make) as backend:
        yield backend


def _stamp(seconds: float) -> bytes:
    milliseconds = int(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest, milliseconds = divmod(milliseconds, 1000)
    return b"[%02d:%02d:%02d.%03d] " % (hours, minutes, rest, milliseconds)


MUX = Kind(MuxOptions, open_mux)
