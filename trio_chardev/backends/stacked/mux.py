"""mux: several users share another chardev, and keys switch between them.

What the base receives is looked at as it comes: bytes go to the user that has the focus,
commands behind the escape character are carried out. That goes on while the focused user does
not read, until LOOK_AHEAD more bytes wait than its queue should hold; only then the base is
not read any more, and nothing typed behind those bytes is seen. (QEMU stops at 32 bytes.)

All users' output goes to the base; a `send_all` of one is not mixed with another's, because
the users are frontends of one chardev.

The base can be changed under the mux: its `be_change` is that of all the users.

Whoever is behind the base can type commands, a board's output among them. So what commands cost
is bounded: after PIECES_AT_ONCE steps other tasks have a turn, nothing is said while what was
said before still waits, and only the operator's own terminal, or one who may by `escape-quit`,
ends the service.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.backends.stacked.bases import (
    BackendOnBases,
    Base,
    BasesPeer,
    BasesStacking,
    open_on_bases,
)
from trio_chardev.backends.stacked.mux_line import MuxLine
from trio_chardev.backends.stdio import StdioBackend
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.inbox import Inbox
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.stacking import Stacking
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.escape import Command, EscapeParser

LOOK_AHEAD = 1 << 16  # bytes
PIECES_AT_ONCE = 128  # ends of commands, or stamped lines, before other tasks have a turn
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
    """Stands on another chardev, for up to 32 users (QEMU: 4)."""

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
        self._is_cut = False  # input of the base waits for others to have a turn
        self._escape = EscapeParser(request.escape)
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
        self.set_open(self.base.is_open)

    # ------------------------------------------------------------ input

    def base_received(self, data: bytes) -> int:
        """See `BackendOnBases`.

        Each stretch ends where a command may end, for that may move the focus, and the room
        is that of who has it.
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
        self._users.focus.queue.wake_writers()  # wakes who goes on, see `take_base_input`
        return taken

    def _room(self) -> int:
        """How many bytes the one with the focus may get, counting those to look ahead."""
        focus = self._users.focus
        if focus.frontend is None or focus.queue.is_paused or self._users.is_reserved:
            return 0
        return focus.queue.room + LOOK_AHEAD

    async def wait_readable(self) -> None:
        """There is never anything to read here: take the base's again, as users have read."""
        while True:
            await self.take_base_input()
            await self._users.wait_room()

    async def take_base_input(self) -> None:
        """Take what the base has, with turns for others between PIECES_AT_ONCE steps."""
        while self._frontend.is_attached:
            self._is_cut = False
            self._frontend.accept_input()
            if not self._is_cut:
                return
            await trio.lowlevel.checkpoint()

    def base_event(self, base: Base, event: BackendEvent) -> None:
        """An event of the base goes to all users."""
        if event in (Event.OPENED, Event.CLOSED):
            self.set_open(event is Event.OPENED)  # it may be known since `activate`
        else:
            self._on_event(event)

    def focus_on(self, inbox: Inbox[Any]) -> None:
        """The last to come has the focus, unless a handler of it failed at once."""
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
                self._request.quit()
            case Command.BREAK:
                self._users.focus_event(Event.BREAK)
            case Command.SWITCH:
                self._focus_next()
            case Command.TIMESTAMPS:
                self._stamps_since = time.monotonic() if self._stamps_since is None else None
                self._is_at_line_start = False

    @property
    def _may_quit(self) -> bool:
        """May who types at the base, as it is now, end the service?"""
        return self._escape_quit or isinstance(self.base.chardev.backend, StdioBackend)

    def _focus_next(self) -> None:
        inboxes = self._users.inboxes
        place = inboxes.index(self._users.focus)
        self._users.set_focus(inboxes[(place + 1) % len(inboxes)])

    # ------------------------------------------------------------ output

    def _say(self, text: bytes) -> None:
        """Send *text* of our own, before what is sent next; not while something is owed."""
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
                break  # the next call meets it
            self._note_sent(stretch[:count])
            sent += count
            if count < len(stretch) or sent == len(data):
                break
        return sent

    async def wait_writable(self) -> None:
        self.pay_soon(self.base)
        await self.wait_paid()

    def _stretch(self, data: memoryview) -> memoryview:
        """As much of *data* as needs no time stamp within; one before it is put down."""
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
    """Those at the other end of the base."""

    needs_attention = True

    def __init__(self, backend: MuxBackend) -> None:
        super().__init__(backend)
        self._mux = backend

    async def attend(self) -> None:
        """Go on with the base's input while the focused user has no room; see LOOK_AHEAD."""
        await self._mux.take_base_input()
        await trio.sleep_forever()


class _MuxStacking(BasesStacking):
    """Several users, of which the last to come has the focus."""

    max_frontends = 32

    def __init__(self, backend: MuxBackend) -> None:
        super().__init__(backend)
        self._mux = backend

    def attached(self, inbox: Inbox[Any]) -> None:
        self._mux.focus_on(inbox)


@asynccontextmanager
async def open_mux(options: MuxOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Stand on the chardev that *options* name. Raises BackendError."""
    id = options.chardev
    if id == request.id or id not in request.chardevs:
        raise OptionsError(f"mux: base chardev {id} not found")
    make = functools.partial(MuxBackend, options, request)
    async with open_on_bases([request.chardevs[id]], request, make) as backend:
        yield backend


def _stamp(seconds: float) -> bytes:
    milliseconds = int(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest, milliseconds = divmod(milliseconds, 1000)
    return b"[%02d:%02d:%02d.%03d] " % (hours, minutes, rest, milliseconds)
