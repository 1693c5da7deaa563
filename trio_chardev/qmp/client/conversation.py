"""The client's side of a QMP session, without I/O: what to send next, what a message means.

A command is a `Call`: submitted, begun when the writer takes it, finished by its reply. One
that its caller leaves before it was begun is never sent. One that he leaves later stays in
flight, because the server has it in its queue, and the reply is for nobody.

All state changes in functions without ``await``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import trio

from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.json.codec import Decoder, Malformed, encode
from trio_chardev.qmp.server.session import QmpError

# QEMU stops reading when eight commands stand in its queue; exec-oob would then be stuck too.
MAX_IN_FLIGHT: Final = 7


class QmpConnectionError(ChardevError):
    """They: the server can't be reached, speaks no QMP, or has gone. You: the client is closed."""


@attrs.frozen
class QmpEvent:
    """What a server tells without having been asked."""

    name: str
    data: dict[str, Any]
    timestamp: float
    """Seconds since the epoch, by the server's clock."""


class QmpEvents(trio.abc.ReceiveChannel[QmpEvent]):
    """The events since a subscription; they end when the connection does.

    When too many wait to be received, the oldest are dropped.
    """

    def __init__(self, max_pending: int) -> None:
        if max_pending < 1:
            raise ValueError("max_pending must be at least 1")
        self.dropped = 0
        """How many events have been lost because they were not received in time."""
        self._put_end, self._take_end = trio.open_memory_channel[QmpEvent](max_pending)

    async def receive(self) -> QmpEvent:
        """The next event. Raises trio.EndOfChannel, which ends ``async for``.

        Cancelled: no event was taken.
        """
        return await self._take_end.receive()

    async def aclose(self) -> None:
        """Receive no more."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Receive no more."""
        self._put_end.close()
        self._take_end.close()

    def put(self, event: QmpEvent) -> None:
        """*event* has come."""
        with contextlib.suppress(trio.ClosedResourceError):
            try:
                self._put_end.send_nowait(event)
            except trio.WouldBlock:
                self._take_end.receive_nowait()
                self.dropped += 1
                self._put_end.send_nowait(event)

    def end(self) -> None:
        """No more will come."""
        self._put_end.close()


@attrs.define(eq=False)
class Call:
    """A command, until it is finished."""

    id: int
    wire: bytes
    is_oob: bool
    fds: list[int]
    """Descriptors to be sent with it; they belong to the call."""
    done: trio.Event = attrs.Factory(trio.Event)
    _value: Any = None
    _error: ChardevError | None = None

    def finish(self, value: object, error: ChardevError | None = None) -> None:
        """Have the waiter go on."""
        self._value, self._error = value, error
        self.done.set()

    def result(self) -> Any:
        """What the finished command returned. Raises its error."""
        if self._error is not None:
            raise self._error
        return self._value

    def close_fds(self) -> None:
        """They were sent, or will not be."""
        while self.fds:
            os.close(self.fds.pop())


class Conversation:
    """From greeting to disconnect; *peer* names the server in error texts."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.greeting: dict[str, Any] | None = None
        self.greeted = trio.Event()
        """Set also when it is over."""
        self.end_reason: str | None = None
        """Why it is over."""
        self._was_answered = False
        self._ids = itertools.count(1)
        self._outbox: dict[int, Call] = {}
        self._in_flight: dict[int, Call] = {}
        self._subscribers: set[QmpEvents] = set()
        self._writer = trio.lowlevel.ParkingLot()

    # ------------------------------------------------------------ commands

    def check(self) -> None:
        """Raises QmpConnectionError if it is over."""
        if self.end_reason is not None:
            raise QmpConnectionError(self.end_reason)

    def submit(
        self, command: str, arguments: dict[str, Any], *, is_oob: bool, fds: list[int]
    ) -> Call:
        """Put a command into the outbox, with *fds* if that is all right.

        Raises QmpConnectionError if it is over, OptionsError if it could not be read, TypeError
        if it is no JSON.
        """
        self.check()
        call_id = next(self._ids)
        message: dict[str, Any] = {"exec-oob" if is_oob else "execute": command, "id": call_id}
        if arguments:
            message["arguments"] = arguments
        call = Call(call_id, _wire(message), is_oob, fds)
        self._outbox[call_id] = call
        self._writer.unpark()
        return call

    def leave(self, call: Call) -> None:
        """Nobody waits for *call*: it is finished, or its caller was cancelled."""
        if self._outbox.pop(call.id, None) is not None:
            call.close_fds()
        if call.is_oob:  # only the others are counted and answered in order
            self._in_flight.pop(call.id, None)

    def begin(self) -> Call | None:
        """The next call to send, which is in flight from now on; None if there is none."""
        call = next((call for call in self._outbox.values() if call.is_oob), None)
        if call is None and len(self._in_order()) < MAX_IN_FLIGHT:
            call = next(iter(self._outbox.values()), None)
        if call is not None:
            self._in_flight[call.id] = self._outbox.pop(call.id)
        return call

    async def wait_begun(self) -> Call:
        """Wait for `begin` to give a call. Cancelled: none was begun."""
        while (call := self.begin()) is None:
            await self._writer.park()
        return call

    def _in_order(self) -> list[int]:
        """The calls in flight that the server answers one after another."""
        return [call.id for call in self._in_flight.values() if not call.is_oob]

    # ------------------------------------------------------------ messages

    def take(self, message: object) -> None:
        """Do what *message* asks for; one that is not QMP is the end."""
        if self.greeting is None:
            self._take_greeting(message)
        elif isinstance(message, dict):
            self._take_object(message)
        else:
            what = message.desc if isinstance(message, Malformed) else "it is no JSON object"
            self.end(f"{self.peer} sent what is not QMP: {_one_line(what)}")

    def _take_greeting(self, message: object) -> None:
        match message:
            case {"QMP": {"capabilities": [*_]} as greeting}:
                self.greeting = dict(greeting)
                self.greeted.set()
            case _:
                self.end(f"{self.peer} sent no greeting: it speaks another protocol")

    def _take_object(self, message: dict[str, Any]) -> None:
        match {"data": {}, **message}:
            case {
                "event": str(name),
                "timestamp": {"seconds": int(seconds), "microseconds": int(microseconds)},
                "data": dict(data),
            }:
                event = QmpEvent(name, data, seconds + microseconds / 1e6)
                for events in self._subscribers:
                    events.put(event)
            case {"return": value}:
                self._take_reply(message, value)
            case {"error": {"class": str(error_class), "desc": str(desc)}}:
                error = QmpError(_one_line(desc), error_class)
                self._take_reply(message, None, error)
            case {"QMP": _} if not self._was_answered:
                pass  # QEMU greets twice who is there before its monitor is ready
            case _:
                self.end(f"{self.peer} sent what is not QMP: it is no event and no reply")

    def _take_reply(
        self, message: dict[str, Any], value: object, error: QmpError | None = None
    ) -> None:
        self._was_answered = True
        # A server that could not read a command does not know its id either.
        call_id = message.get("id", next(iter(self._in_order()), None))
        call = self._in_flight.pop(call_id, None) if isinstance(call_id, int) else None
        if call is not None:
            call.finish(value, error)
            self._writer.unpark()

    @contextmanager
    def subscribe(self, max_pending: int) -> Iterator[QmpEvents]:
        """The events that come within the block."""
        events = QmpEvents(max_pending)
        if self.end_reason is not None:
            events.end()
        self._subscribers.add(events)
        try:
            yield events
        finally:
            self._subscribers.discard(events)
            events.close()

    def end(self, reason: str) -> None:
        """It is over: who waits now, or tries later, gets *reason*. The first one counts."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        for call in self._outbox.values():
            call.close_fds()
        for call in (*self._in_flight.values(), *self._outbox.values()):
            call.finish(None, QmpConnectionError(reason))
        self._in_flight.clear()
        self._outbox.clear()
        for events in self._subscribers:
            events.end()
        self.greeted.set()


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _wire(message: dict[str, Any]) -> bytes:
    wire = encode(message)
    for read_back in Decoder().feed(wire):  # an infinite number, for one, is no JSON
        if isinstance(read_back, Malformed):
            raise OptionsError(f"The command can't be sent: {read_back.desc}")
    return wire
