"""What the clients of a console type: who may, whose terminal answers, in which order it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import attrs
import trio

from trio_chardev.backends.console.client import Client
from trio_chardev.backends.console.options import Write
from trio_chardev.errors import OptionsError
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, BreakState, WindowSize
from trio_chardev.protocols.terminal import may_ask

ANSWER_TIME = 5.0  # seconds in which terminals answer what they were asked
MAX_QUEUED = 1 << 16  # bytes that one client has typed and that were not read
TAIL = 32  # bytes of the output that may be the beginning of a query


class People(Protocol):
    """Those around the keyboard, as far as it has to tell them something."""

    def clients_in_order(self) -> Iterable[Client]:
        """The clients; who came first is the first."""

    def input_came(self) -> None:
        """Note that there is something to take."""

    def writer_changed(self, writer: Client | None, *, is_told: bool) -> None:
        """Tell all that *writer* has the right to write now, or nobody; him, too, if *is_told*."""

    def refused(self, client: Client, writer: Client | None) -> None:
        """Tell *client* that what it types goes nowhere, as *writer* writes or it may only read."""


@attrs.define(eq=False, repr=False)
class Keyboard:
    """The input of a console; `take` reads it."""

    id: str
    write: Write
    people: People
    _input: deque[tuple[Client, bytes | BackendEvent]] | None = None
    """What was typed and not taken; made when it is needed, as an empty one takes 0.7 KB."""
    _writer: Client | None = None
    """Who has the right to write, with write=first and write=one."""
    _told_writer: Client | None = None
    """Who has it, as far as others were told."""
    _typist: Client | None = None
    """Who typed last."""
    _asked: Client | None = None
    """Who was the typist when terminals were asked something, so that one who types in between does
    not keep his terminal's answer out."""
    _asked_until: float = 0.0
    """Until when terminals may answer that."""
    _tail: bytes = b""
    """The end of the output."""
    _size: WindowSize = UNKNOWN_SIZE
    """The size of the typist's window, as it was reported."""

    # ------------------------------------------------------------ who may type

    @property
    def writer(self) -> Client | None:
        """Who has the right to write; None if nobody has, or all have."""
        return self._writer

    def may_type(self, client: Client) -> bool:
        """Does what *client* types go to the device?"""
        if not client.may_ever_type:
            return False
        return self.write == "all" or client is self._writer

    def lets_type(self, client: Client) -> bool:
        """Do as `may_type`, and with write=one give *client* the right if nobody has it."""
        if self.write == "one" and self._writer is None and client.may_ever_type:
            self._set_writer(client, is_told=False)
        return self.may_type(client)

    def give_write(self, client: Client) -> None:
        """Give *client* the right to write. Raises OptionsError if it can't have it."""
        if self.write == "all":
            raise OptionsError(f"at console '{self.id}' all may write (write=all)")
        if not client.may_ever_type:
            raise OptionsError(f"client {client.number} may only read")
        self._set_writer(client)

    def client_came(self, client: Client) -> None:
        """Note that *client* has come."""
        writer = self._rightful_writer()
        self._set_writer(writer, is_told=writer is not client)
        self._report_size()

    def client_ends(self, client: Client) -> None:
        """Note that *client* will type nothing more."""
        self._end_break(client)
        if self._typist is client:
            self._typist = None
        if self._asked is client:
            self._asked = None
        if self._writer is client:
            self._set_writer(None)
        self._set_writer(self._rightful_writer())
        self._report_size()

    def obey(self, write: Write) -> None:
        """Go on with another rule. Nobody is told until `tell_writer`."""
        self.write = write
        self._writer = self._rightful_writer()

    def _rightful_writer(self) -> Client | None:
        """Who has the right to write by the rule."""
        if self.write == "first" and self._writer is None:
            return next((c for c in self.people.clients_in_order() if c.may_ever_type), None)
        return None if self.write == "all" else self._writer

    def _set_writer(self, client: Client | None, *, is_told: bool = True) -> None:
        if client is self._writer:
            return
        if self._writer is not None:
            self._end_break(self._writer)
        self._writer = client
        self.tell_writer(is_told=is_told)

    def tell_writer(self, *, is_told: bool = True) -> None:
        """Tell people who has the right to write, if that is new."""
        if self._writer is not self._told_writer:
            self._told_writer = self._writer
            if self._writer is not None:
                self._writer.asks = False
            self.people.writer_changed(self._writer, is_told=is_told)
            self._report_size()

    @property
    def typist(self) -> Client | None:
        """Whose terminal counts: who has the right to write, or typed last, or else came first."""
        first = (c for c in self.people.clients_in_order() if c.may_ever_type)
        return self._writer or self._typist or next(first, None)

    @property
    def _answerer(self) -> Client | None:
        """Whose terminal's answers go to the device."""
        asked = self._asked
        return self.typist if asked is None or not self.may_type(asked) else asked

    # ------------------------------------------------------------ what is typed

    def typed(self, client: Client, data: bytes) -> None:
        """Handle what has come from *client*."""
        now = trio.current_time()
        client.received += len(data)
        client.typed_at = now
        if not (client.manner.is_terminal and now < self._asked_until):
            self._keys(client, client.answers.rest() + data)
            return
        for piece, is_answer in client.answers.feed(data):
            if not is_answer:
                self._keys(client, piece)
            elif client is self._answerer:
                self._push(client, piece)

    def _keys(self, client: Client, data: bytes) -> None:
        if not self.lets_type(client):
            self._refuse(client)
            return
        if self._typist is not client:
            self._typist = client
            self._report_size()
        self._push(client, data)

    def _refuse(self, client: Client) -> None:
        """Have *client* told, once, that what it types goes nowhere."""
        if not client.asks:
            client.asks = True
            self.people.refused(client, self._writer if client.may_ever_type else None)

    def heard(self, client: Client, event: BackendEvent) -> None:
        """Handle an event from *client*: a break, the size of its window, what RFC 2217 asks."""
        if isinstance(event, WindowSize):
            client.size = event
            self._report_size()
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

    def _report_size(self) -> None:
        """Report the size of the typist's window, if it is another."""
        typist = self.typist
        if typist is None or typist.size is None or not typist.size.is_known:
            return
        if typist.size != self._size:
            self._size = typist.size
            self._push(typist, typist.size)

    def note_printed(self, data: bytes) -> None:
        """Note what goes to all terminals, which may ask them something."""
        is_likely = b"\x1b" in data or b"\x05" in data or b"\x1b" in self._tail
        if is_likely and may_ask(self._tail + data):
            self._asked = self.typist
            self._asked_until = trio.current_time() + ANSWER_TIME
        self._tail = data[-TAIL:]

    # ------------------------------------------------------------ reading it

    def _push(self, client: Client, item: bytes | BackendEvent) -> None:
        if isinstance(item, bytes):
            client.queued += len(item)
        self._input = deque() if self._input is None else self._input
        self._input.append((client, item))
        self.people.input_came()

    @property
    def has_input(self) -> bool:
        """Is there something to `take`?"""
        return bool(self._input)

    def take(self, max_bytes: int) -> bytes | BackendEvent | None:
        """Take what was typed first; bytes are 1 to *max_bytes*. None if there is nothing."""
        if not self._input:
            return None
        client, item = self._input.popleft()
        if not isinstance(item, bytes):
            return item
        taken, rest = item[:max_bytes], item[max_bytes:]
        if rest:
            self._input.appendleft((client, rest))
        client.queued -= len(taken)
        if client.queued < MAX_QUEUED:
            client.may_read.wake()
        return taken
