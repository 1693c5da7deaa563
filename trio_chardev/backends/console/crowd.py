"""The clients of a console: who is there, who may type, who is told what. Without I/O of its own.

The crowd outlives the backends: one console that replaces another goes on with it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import attrs
import trio

from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.line import ConsoleLine
from trio_chardev.backends.console.options import (
    ALL,
    NO_REPLAY,
    ConsoleOptions,
    Manner,
    Replay,
    parse_replay,
)
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, BreakState, WindowSize
from trio_chardev.notices import (
    ChardevClientAttached,
    ChardevClientDetached,
    ChardevMark,
    ChardevWriterChanged,
)
from trio_chardev.protocols.terminal import may_ask
from trio_chardev.version import __version__

log = logging.getLogger(__name__)

ANSWER_TIME = 5.0  # seconds in which terminals answer what they were asked
MAX_QUEUED = 1 << 16  # bytes that one client has typed and that were not read
TAIL = 32  # bytes of the output that may be the beginning of a query


class ConsoleFullError(BackendError):
    """They: the console has as many clients as it may have."""


class Host(Protocol):
    """The backend in place, which runs the clients' tasks."""

    def serve(self, client: Client) -> None:
        """Begin to read from *client* and to send to it."""

    def see_off(self, client: Client, goodbye: Goodbye) -> None:
        """Tell *client*, which is in the crowd no more, and close its connection."""

    def input_came(self) -> None:
        """Wake the reader of `Crowd.input`."""

    def line_changed(self) -> None:
        """Have the user look what the clients can be told of the line."""

    def note(self, text: str) -> None:
        """Note *text* in the logs that want to know what happens beside the bytes."""

    def output_came(self) -> None:
        """Have sent to the clients what there is for them."""


@attrs.define(eq=False)
class Crowd:
    """The clients of one console."""

    id: str
    options: ConsoleOptions
    history: History
    tell_registry: Callable[[object], None]
    """Called with notices about the clients."""
    host: Host = attrs.field(init=False)
    line: ConsoleLine = attrs.field(init=False)
    """The line, as the clients see it."""
    clients: dict[int, Client] = attrs.Factory(dict)
    """By number; the first who came is the first."""
    input: deque[tuple[Client, bytes | BackendEvent]] = attrs.Factory(deque)
    """What those who may type have typed, in order."""
    has_left: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """Where those wait who want to come in when somebody leaves."""
    _numbers: int = 0
    _writer: Client | None = None
    """Who has the right to write, with write=first and write=one."""
    _told_writer: Client | None = None
    """Who has it, as far as others were told."""
    _typist: Client | None = None
    """Who typed last."""
    _asked_until: float = 0.0
    """Until when terminals may answer a query."""
    _tail: bytes = b""
    """The end of the output."""
    size: WindowSize = UNKNOWN_SIZE
    """The size of the typist's terminal."""

    def __attrs_post_init__(self) -> None:
        self.line = ConsoleLine("console", self)

    # ------------------------------------------------------------ coming and going

    @property
    def is_full(self) -> bool:
        """Are there as many clients as there may be?"""
        return len(self.clients) >= self.options.max_clients

    def admit(self, newcomer: Newcomer) -> Client:
        """Make *newcomer* a client.

        Raises ConsoleFullError, and OptionsError for a mark that there is not.
        """
        self.check_room()
        first = self._first_cursor(newcomer.manner)
        if self.is_full:
            oldest = next(iter(self.clients.values()))
            self.remove(oldest, Goodbye("replaced", f"{newcomer.who} has come in your place"))
        self._numbers += 1
        end = self.history.end
        client = Client(self._numbers, newcomer, max(first, self.history.start), end)
        self.clients[client.number] = client
        if self.options.banner is not None:
            self._say(client, self._banner(client))
        if client.position > first:
            client.skipped = client.position - first
            self._say(client, f"skipped {client.skipped} bytes")
        self._tell_all(f"{client.who} attached", but=client)
        self.tell_registry(
            ChardevClientAttached(self.id, client.number, client.who, newcomer.manner.role)
        )
        self.host.serve(client)
        writer = self._rightful_writer()
        self._set_writer(writer, is_told=writer is not client)
        self._size_changed()
        return client

    def check_room(self) -> None:
        """Raise ConsoleFullError if a newcomer is not to be admitted now."""
        if self.is_full and self.options.on_full != "kick":
            raise ConsoleFullError(f"console '{self.id}' is full: {len(self.clients)} clients")

    def _first_cursor(self, manner: Manner) -> int:
        """Return the cursor where a newcomer begins. Raises OptionsError."""
        history = self.history
        if manner.since is not None:
            if not 0 <= manner.since <= history.end:
                raise OptionsError(f"'since' must be from 0 to {history.end}")
            return manner.since
        replay = self._replay(manner)
        if not self.options.history or replay == NO_REPLAY:
            return history.end
        if replay.mark is not None:
            return history.safe_start(max(history.cursor_of(replay.mark), history.start))
        if replay.lines is not None:
            return history.line_start(replay.lines)
        return history.safe_start(history.start)

    def _replay(self, manner: Manner) -> Replay:
        for text in (manner.replay, self.options.replay):
            if text is not None:
                return parse_replay(text)
        return ALL

    def _banner(self, client: Client) -> str:
        assert self.options.banner is not None
        return self.options.banner.format(
            console=self.id,
            client=client.number,
            who=client.who,
            role=client.manner.role,
            clients=len(self.clients),
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            version=__version__,
        )

    def remove(self, client: Client, goodbye: Goodbye) -> None:
        """Let *client* go; what it has typed stays. Does nothing if it is gone already."""
        if self.clients.pop(client.number, None) is None:
            return
        client.is_gone = True
        client.scope.cancel()
        self.host.see_off(client, goodbye)
        self.has_left.unpark_all()
        why = "left" if goodbye.reason == "left" else f"is let go: {goodbye.text}"
        self._tell_all(f"{client.who} {why}")
        self.tell_registry(
            ChardevClientDetached(self.id, client.number, client.who, goodbye.reason)
        )
        self._typing_ends(client)
        if client.newcomer.port is not None:
            self.host.line_changed()

    def remove_all(self, goodbye: Goodbye, listener: object = None) -> None:
        """Let all clients go, or those that came by *listener*."""
        for client in list(self.clients.values()):
            if listener is None or client.newcomer.listener is listener:
                self.remove(client, goodbye)

    def end_typing(self, client: Client) -> None:
        """Note that nothing more will come from *client*, which may still watch."""
        client.has_ended = True
        self._typing_ends(client)

    def _typing_ends(self, client: Client) -> None:
        self._end_break(client)
        if self._typist is client:
            self._typist = None
        if self._writer is client:
            self._set_writer(None)
        self._set_writer(self._rightful_writer())
        self._size_changed()

    def take_over(self, other: Crowd, *, goes_on: bool) -> None:
        """Go on with what *other*, an empty crowd, has: its options, its history and its host.

        If its history *goes on* from this one's, the clients do, too; else they begin at its end.
        Nobody is told until `tell_writer`.
        """
        if not goes_on:
            for client in self.clients.values():
                client.leave(self.history, other.history.end)
        self.history.wake()
        self.options, self.history, self.host = other.options, other.history, other.host
        self._writer = self._rightful_writer()
        for client in self.clients.values():
            self.host.serve(client)

    # ------------------------------------------------------------ who may type

    def may_type(self, client: Client) -> bool:
        """Does what *client* types go to the device?"""
        if not client.may_ever_type:
            return False
        return self.options.write == "all" or client is self._writer

    def lets_type(self, client: Client) -> bool:
        """Do as `may_type`, and with write=one give *client* the right if nobody has it."""
        if self.options.write == "one" and self._writer is None and client.may_ever_type:
            self._set_writer(client, is_told=False)
        return self.may_type(client)

    def give_write(self, client: Client) -> None:
        """Give *client* the right to write. Raises OptionsError if it can't have it."""
        if self.options.write == "all":
            raise OptionsError(f"at console '{self.id}' all may write (write=all)")
        if not client.may_ever_type:
            raise OptionsError(f"client {client.number} may only read")
        self._set_writer(client)

    def _rightful_writer(self) -> Client | None:
        """Who has the right to write, as the options have it."""
        if self.options.write == "first" and self._writer is None:
            return next((c for c in self.clients.values() if c.may_ever_type), None)
        return None if self.options.write == "all" else self._writer

    def _set_writer(self, client: Client | None, *, is_told: bool = True) -> None:
        if client is self._writer:
            return
        if self._writer is not None:
            self._end_break(self._writer)
        self._writer = client
        self.tell_writer(is_told=is_told)

    def tell_writer(self, *, is_told: bool = True) -> None:
        """Tell all, and him unless he knows (*is_told*), who has the right to write, if that is new."""
        client = self._writer
        if client is self._told_writer:
            return
        self._told_writer = client
        if client is not None:
            client.asks = False
            self._tell_all(f"{client.who} writes", but=client)
            if is_told:
                self._say(client, "you have the right to write")
        number = None if client is None else client.number
        self.tell_registry(ChardevWriterChanged(self.id, number))
        self._size_changed()

    @property
    def writer(self) -> int | None:
        """The number of the client who has the right to write; None if nobody has, or all have."""
        return None if self._writer is None else self._writer.number

    @property
    def typist(self) -> Client | None:
        """Who answers for a terminal: who has the right, or typed last, or else came first."""
        return (
            self._writer
            or self._typist
            or next((c for c in self.clients.values() if c.may_ever_type), None)
        )

    # ------------------------------------------------------------ what is typed

    def typed(self, client: Client, data: bytes) -> None:
        """Handle what has come from *client*."""
        client.received += len(data)
        client.typed_at = trio.current_time()
        if not (client.manner.is_terminal and trio.current_time() < self._asked_until):
            held = client.answers.rest()
            self._typed(client, held + data, is_answer=False)
            return
        for piece, is_answer in client.answers.feed(data):
            self._typed(client, piece, is_answer=is_answer)

    def _typed(self, client: Client, data: bytes, *, is_answer: bool) -> None:
        if is_answer:
            if client is self.typist and client.may_ever_type:
                self._push(client, data)
            return
        if self.lets_type(client):
            if self._typist is not client:
                self._typist = client
                self._size_changed()
            self._push(client, data)
        else:
            self._refuse(client)

    def _refuse(self, client: Client) -> None:
        """Tell *client*, once, that what it types goes nowhere."""
        if client.asks:
            return
        client.asks = True
        self._say(client, self._refusal(client))
        if client.may_ever_type and self._writer is not None and self.options.notice:
            self._say(self._writer, f"{client.who} (client {client.number}) wants to write")

    def _refusal(self, client: Client) -> str:
        if not client.may_ever_type:
            return "you can only read: what you type goes nowhere"
        assert self._writer is not None
        return f"{self._writer.who} writes: what you type goes nowhere"

    def heard(self, client: Client, event: BackendEvent) -> None:
        """Handle an event from *client*: a break, the size of its window, what RFC 2217 asks."""
        if isinstance(event, WindowSize):
            client.size = event
            self._size_changed()
        elif self.lets_type(client):
            if isinstance(event, BreakState):
                client.has_break_on = event.is_on
            self._push(client, event)
        else:
            self._refuse(client)

    def _end_break(self, client: Client) -> None:
        """Turn off the break that *client* has turned on, as it can't any more."""
        if client.has_break_on:
            client.has_break_on = False
            self._push(client, BreakState(False))

    def _push(self, client: Client, item: bytes | BackendEvent) -> None:
        if isinstance(item, bytes):
            client.queued += len(item)
        self.input.append((client, item))
        self.host.input_came()

    def take(self, max_bytes: int) -> bytes | BackendEvent | None:
        """Take what was typed first; bytes are 1 to *max_bytes*."""
        if not self.input:
            return None
        client, item = self.input.popleft()
        if not isinstance(item, bytes):
            return item
        taken, rest = item[:max_bytes], item[max_bytes:]
        if rest:
            self.input.appendleft((client, rest))
        client.queued -= len(taken)
        if client.queued < MAX_QUEUED:
            client.may_read.unpark_all()
        return taken

    # ------------------------------------------------------------ what is printed

    def printed(self, data: memoryview) -> None:
        """Keep what the device has printed, for everybody."""
        piece = bytes(data)
        self.history.write(piece)
        is_likely = b"\x1b" in piece or b"\x05" in piece or b"\x1b" in self._tail
        if is_likely and may_ask(self._tail + piece):
            self._asked_until = trio.current_time() + ANSWER_TIME
        self._tail = piece[-TAIL:]
        if self.clients:
            self.host.output_came()

    def _tell_all(self, text: str, but: Client | None = None) -> None:
        """Tell people *text*, if they want to know such things, and the logs."""
        self.host.note(text)
        if self.options.notice:
            for client in self.clients.values():
                if client is not but:
                    self._say(client, text)

    def _say(self, client: Client, text: str) -> None:
        if client.say(text):
            self.host.output_came()

    def tell_of_device(self, text: str, mark: str) -> None:
        """Tell people *text* of the device, and mark the place."""
        self._tell_all(text)
        self.mark(mark)

    def mark(self, name: str) -> int:
        """Mark the place; see `History.mark`. Raises OptionsError."""
        cursor = self.history.mark(name)
        self.tell_registry(ChardevMark(self.id, name, cursor))
        return cursor

    # ------------------------------------------------------------ the size of the window

    def _size_changed(self) -> None:
        """Report the size of the typist's terminal, if it is another."""
        typist = self.typist
        size = UNKNOWN_SIZE if typist is None or typist.size is None else typist.size
        if size != self.size and typist is not None and size != UNKNOWN_SIZE:
            self.size = size
            self._push(typist, size)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self.clients.values()))
