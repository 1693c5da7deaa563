"""``trio-chardev attach``: be a terminal at a console, over restarts of the service.

It counts what it has shown, so that it can go on at that cursor; the console sends it nothing else, and
tells it the rest by events (``exact`` of chardev-attach).
"""

from __future__ import annotations

import contextlib
import math

import attrs
import trio

from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.attach_actions import ACTIONS
from trio_chardev.cli.attach_session import (
    AttachError,
    Place,
    Session,
    Wish,
    open_session,
)
from trio_chardev.cli.console_stream import send_some
from trio_chardev.cli.running import run_until_signal
from trio_chardev.cli.terminal import LAST_WORDS, STANDARD, LocalTerminal, open_local_terminal
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import ChardevError
from trio_chardev.protocols.attach_menu import Action, Do, Item, Menu, Show
from trio_chardev.qmp.client.client import QmpConnectionError

READ_SIZE = 1 << 14  # bytes
MAX_TYPED = 1 << 16  # bytes that the console has not taken
FIRST_DELAY, LAST_DELAY = 0.1, 3.0  # seconds between two attempts to connect again
REASON_TIME = 1.0  # seconds in which we learn why the console has let us go
TOO_SLOW = "slow"
COMES_BACK = (None, "dead", "stopping", "left")
"""Reasons for which we try to come back: the console may be there again."""


@attrs.define(eq=False, repr=False)
class Attach:
    """One run of the command."""

    address: SocketAddress
    wish: Wish
    local: LocalTerminal
    menu: Menu
    linger: float
    """Seconds of silence after the end of a pipe at standard input, after which it is over."""
    _session: Session | None = None
    _place: Place | None = None
    _was_attached: bool = False
    _restarts: bool = False
    """Is the service starting again, so that a console that it has not may come yet?"""
    _typed: bytearray = attrs.Factory(bytearray)
    _has_typed: trio.Event = attrs.Factory(trio.Event)
    _taken: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _shown_at: float = -math.inf
    _is_refusal_told: bool = False
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _nursery: trio.Nursery = attrs.field(init=False)

    async def run(self) -> None:
        """Stay attached until the user leaves, or his input ends.

        Raises ChardevError if the console can't be had, or has let us go, and OutputError.
        """
        async with open_background_nursery() as self._nursery:
            self._nursery.start_soon(self.local.write)
            self._nursery.start_soon(self._read_keys)
            try:
                with self._scope:
                    await self._stay()
            finally:
                with trio.CancelScope(shield=True):  # its deadline is within
                    await self.local.finish()

    # ------------------------------------------------------------ connections

    async def _stay(self) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                session = await self._attach_once()
            except ChardevError as exc:
                may_come = self._restarts or isinstance(exc, QmpConnectionError)
                if not (self._was_attached and may_come):
                    raise
                await trio.sleep(delay)
                delay = min(LAST_DELAY, delay * 2)
            else:
                delay = FIRST_DELAY
                await self._note_end(session)

    async def _attach_once(self) -> Session:
        """Attach, and return when the connection is over."""
        place, size = self._place, self.local.size
        async with open_session(self.address, self.wish, place, size) as session:
            self._note_begin(session)
            try:
                await self._serve(session)
            finally:
                self._session = None
        return session

    def _note_begin(self, session: Session) -> None:
        if self.local.is_interactive:
            self._typed.clear()  # it was meant for what was shown then
        if not self._was_attached:
            self._welcome(session)
        elif session.goes_on:
            self.local.tell("connected again")
        elif session.place is None:
            self.local.tell("connected again: something may be missing, or shown again")
        else:
            self.local.tell("connected again: the history is another, so something may be missing")
        self._was_attached, self._is_refusal_told = True, False
        self._session, self._place = session, session.place

    def _welcome(self, session: Session) -> None:
        if self.local.is_interactive:
            text = f"attached to {session.console}"
            if self.menu.escape is not None:
                text += f"; {self.menu.name} d detaches, {self.menu.name} ? is help"
            self.local.tell(text)

    async def _note_end(self, session: Session) -> None:
        """Tell that the connection is over, unless we come again at once.

        Raises AttachError if the console does not want us.
        """
        if session.reason == TOO_SLOW:
            await self.local.wait_room()  # or we would be too slow again
            return
        if session.reason not in COMES_BACK:
            raise AttachError(f"console '{session.console}' has let us go: {session.reason}")
        self._restarts = session.reason != "stopping" or session.is_stopping
        self.local.tell("the connection is lost; trying to connect again")
        await trio.sleep(FIRST_DELAY)

    async def _serve(self, session: Session) -> None:
        """Pass bytes on until the connection is over, and we know why if that can be known."""
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._send, session)
            nursery.start_soon(self._tell_size, session)
            nursery.start_soon(self._hear, session, nursery.cancel_scope)
            await self._receive(session)
            with trio.move_on_after(REASON_TIME):
                await session.has_news.wait()

    async def _receive(self, session: Session) -> None:
        while True:
            await self.local.wait_room()
            try:
                data = await session.stream.receive_some(READ_SIZE)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            self._shown_at = trio.current_time()
            self.local.show(session.take(bytes(data)))

    async def _hear(self, session: Session, scope: trio.CancelScope) -> None:
        """Tell the user what the console has to say, until QMP ends, and with it the session."""
        async for event in session.events:
            text = session.note(event)
            if text is not None:
                self.local.tell(text)
        session.has_news.set()
        await trio.sleep(REASON_TIME)  # in which the last bytes come
        scope.cancel()

    async def _tell_size(self, session: Session) -> None:
        while True:
            resized, size = self.local.resized, self.local.size
            if size != session.size:
                session.size = size
                with contextlib.suppress(ChardevError):  # it is told when we come again
                    about = {"cols": size.cols, "rows": size.rows}
                    await session.ask("chardev-client-size", about)
            else:
                await resized.wait()

    async def _send(self, session: Session) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):  # who receives notices it
            while True:
                while self._typed:
                    sent = await send_some(session.stream, bytes(self._typed[:READ_SIZE]))
                    del self._typed[:sent]
                    self._taken.unpark_all()
                self._has_typed = trio.Event()
                await self._has_typed.wait()

    # ------------------------------------------------------------ the user

    async def _read_keys(self) -> None:
        while data := await self.local.read():
            for item in self.menu.feed(data):
                self._obey(item)
            self.local.hold(self.menu.is_asking)
            while len(self._typed) >= MAX_TYPED and not self.local.is_interactive:
                await self._taken.park()
        while self._typed and not self.local.is_interactive:
            await self._taken.park()
        begin = trio.current_time()
        while (  # noqa: ASYNC110 - it may become later meanwhile
            left := max(begin, self._shown_at) + self.linger - trio.current_time()
        ) > 0:
            await trio.sleep(left)
        self._scope.cancel()

    def _obey(self, item: Item) -> None:
        """Do what the user wants."""
        match item:
            case bytes():
                self._type(item)
            case Show(data):
                self.local.hold(True)
                self.local.show_aside(data)
            case Do(Action.DETACH):
                self._nursery.start_soon(self._detach)
            case Do(Action.HELP):
                self.local.tell_lines(self.menu.help_lines())
            case Do() if self._session is None:
                self.local.tell("there is no connection now")
            case Do():
                self._nursery.start_soon(self._act, self._session, item)

    async def _detach(self) -> None:
        """Leave, when what was typed before is sent, after 1 s at the latest."""
        with trio.move_on_after(LAST_WORDS):
            while self._typed and self._session is not None:
                await self._taken.park()
        self.local.tell("detached")
        self._scope.cancel()

    def _type(self, data: bytes) -> None:
        """Have *data* sent; a person is told if it can't be, instead of being made to wait."""
        refusal = self._refusal(data) if self.local.is_interactive else None
        if refusal is None:
            self._typed += data
            self._has_typed.set()
        elif not self._is_refusal_told:
            self.local.tell(refusal)
        self._is_refusal_told = refusal is not None

    def _refusal(self, data: bytes) -> str | None:
        """Say why *data* can't be sent."""
        if self._session is None:
            return "what you type goes nowhere now"
        if len(self._typed) + len(data) > MAX_TYPED:
            return "the device does not take what you type: it goes nowhere"
        return None

    async def _act(self, session: Session, do: Do) -> None:
        try:
            await ACTIONS[do.action](session, self.local, do.line)
        except ChardevError as exc:
            self.local.tell(str(exc))


async def attach(
    address: SocketAddress, wish: Wish, escape: int | None, linger: float, fds: tuple[int, int]
) -> None:
    """Be a terminal at a console; see `Attach.run`."""
    with open_local_terminal(fds) as local:
        menu = Menu(escape if local.is_interactive else None)
        await Attach(address, wish, local, menu, linger).run()


def run(socket: str | None, wish: Wish, escape: int | None, linger: float) -> None:
    """Run the command; signals end it as in `run_until_signal`. Raises ChardevError, OutputError."""
    address = parse_address(socket)
    run_until_signal(lambda: attach(address, wish, escape, linger, STANDARD))
