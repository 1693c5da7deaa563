"""The client's side of a QMP session, without I/O: what to send next, what a message means.

A command is a `Call`: submitted, begun when the writer takes it, finished by its reply. If its
caller is cancelled before it is begun, it is never sent. If the caller is cancelled later, the call
stays in flight, because it is in the server's queue, and its reply is ignored.

All state changes happen in functions without ``await``.
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

# QEMU stops reading when eight commands are in its queue, which would block exec-oob too.
MAX_IN_FLIGHT: Final = 7


class QmpConnectionError(ChardevError):
    """They: the server can't be reached, speaks no QMP, or has gone. You: the client is closed."""


@attrs.frozen
class QmpEvent:
    """An event: what a server sends unasked."""

    name: str
    data: dict[str, Any]
    timestamp: float
    """Seconds since the epoch, by the server's clock."""


class QmpEvents(trio.abc.ReceiveChannel[QmpEvent]):
    """The events since the subscription began; they end when the connection does.

    When too many wait to be received, the oldest are dropped.
    """

    def __init__(self, max_pending: int) -> None:
        if max_pending < 1:
            raise ValueError("max_pending must be at least 1")
        self.dropped = 0
        """How many events were lost because they were not received in time."""
        self._put_end, self._take_end = trio.open_memory_channel[QmpEvent](max_pending)

    async def receive(self) -> QmpEvent:
        """Wait for the next event. Raises trio.EndOfChannel at the end, as ``async for`` expects.

        When this is cancelled, no event is lost.
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
        """Add *event*."""
        with contextlib.suppress(trio.ClosedResourceError):
            try:
                self._put_end.send_nowait(event)
            except trio.WouldBlock:
                self._take_end.receive_nowait()
                self.dropped += 1
                self._put_end.send_nowait(event)

    def end(self) -> None:
        """End after the events that are pending."""
        self._put_end.close()


@attrs.define(eq=False)
class Call:
    """A command, up to its reply."""

    id: int
    wire: bytes
    is_oob: bool
    fds: list[int]
    """Descriptors to be sent with it, which it owns."""
    done: trio.Event = attrs.Factory(trio.Event)
    _value: Any = None
    _error: ChardevError | None = None

    def finish(self, value: object, error: ChardevError | None = None) -> None:
        """Give the result to the task that waits for it."""
        self._value, self._error = value, error
        self.done.set()

    def result(self) -> Any:
        """Return what the finished command returned, or raise its error."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame
        return self._value

    def close_fds(self) -> None:
        """Close the descriptors, once they are sent or will never be."""
        while self.fds:
            os.close(self.fds.pop())


class Conversation:
    """One connection, from greeting to disconnect; *peer* names the server in error texts."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.greeting: dict[str, Any] | None = None
        self.greeted = trio.Event()
        """Set when the greeting has come, or the connection is over."""
        self.end_reason: str | None = None
        """Why the connection is over; None before that."""
        self._was_answered = False
        self._ids = itertools.count(1)
        self._outbox: dict[int, Call] = {}
        self._in_flight: dict[int, Call] = {}
        self._subscribers: set[QmpEvents] = set()
        self._writer = trio.lowlevel.ParkingLot()

    # ------------------------------------------------------------ commands

    def check(self) -> None:
        """Raise QmpConnectionError if the connection is over."""
        if self.end_reason is not None:
            raise QmpConnectionError(self.end_reason)

    def submit(
        self, command: str, arguments: dict[str, Any], *, is_oob: bool, fds: list[int]
    ) -> Call:
        """Queue a command to be sent, with *fds*, which it owns if this does not raise.

        Raises QmpConnectionError if the connection is over, OptionsError if the server could not
        read the command, TypeError if JSON can't express it.
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
        """Nobody waits for *call* any more: it is finished, or its caller was cancelled."""
        if self._outbox.pop(call.id, None) is not None:
            call.close_fds()
        if call.is_oob:  # only the others are counted and answered in order
            self._in_flight.pop(call.id, None)

    def begin(self) -> Call | None:
        """Take the next call to send, which is then in flight; None if there is none."""
        call = next((call for call in self._outbox.values() if call.is_oob), None)
        if call is None and len(self._in_order()) < MAX_IN_FLIGHT:
            call = next(iter(self._outbox.values()), None)
        if call is not None:
            self._in_flight[call.id] = self._outbox.pop(call.id)
        return call

    async def wait_begun(self) -> Call:
        """Wait for a call and `begin` it. When this is cancelled, none is begun."""
        while (call := self.begin()) is None:
            await self._writer.park()
        return call

    def _in_order(self) -> list[int]:
        """The ids of the calls in flight that the server answers in order."""
        return [call.id for call in self._in_flight.values() if not call.is_oob]

    # ------------------------------------------------------------ messages

    def take(self, message: object) -> None:
        """Process *message*. One that is not QMP ends the connection."""
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
                pass  # QEMU greets a client twice that connects before its monitor is ready
            case _:
                self.end(f"{self.peer} sent what is not QMP: it is no event and no reply")

    def _take_reply(
        self, message: dict[str, Any], value: object, error: QmpError | None = None
    ) -> None:
        self._was_answered = True
        # An error for a command that the server could not parse has no id.
        call_id = message.get("id", next(iter(self._in_order()), None))
        call = self._in_flight.pop(call_id, None) if isinstance(call_id, int) else None
        if call is not None:
            call.finish(value, error)
            self._writer.unpark()

    @contextmanager
    def subscribe(self, max_pending: int) -> Iterator[QmpEvents]:
        """Give the events that come within the block."""
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
        """End the connection: all calls fail with *reason*. Only the first `end` counts."""
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
    for read_back in Decoder().feed(wire):  # infinity, for example, is not JSON
        if isinstance(read_back, Malformed):
            raise OptionsError(f"The command can't be sent: {read_back.desc}")
    return wire
