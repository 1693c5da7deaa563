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
from typing import Any

import attrs
import trio

from trio_chardev.plain_errors import ChardevError
from trio_chardev.qmp.client.messages import (
    MAX_IN_FLIGHT,
    QmpEvent as QmpEvent,
    Reply,
    greeting_in,
    meaning_of,
    wire_of,
)
from trio_chardev.qmp.errors import QmpConnectionError as QmpConnectionError


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


@attrs.define(eq=False, repr=False)
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
        wire = wire_of(call_id, command, arguments, is_oob=is_oob)
        call = Call(call_id, wire, is_oob, fds)
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
        try:
            if self.greeting is None:
                self.greeting = greeting_in(message, self.peer)
                self.greeted.set()
                return
            meaning = meaning_of(message, self.peer, was_answered=self._was_answered)
        except QmpConnectionError as exc:
            self.end(str(exc))
            return
        if isinstance(meaning, Reply):
            self._take_reply(meaning)
        elif meaning is not None:
            for events in self._subscribers:
                events.put(meaning)

    def _take_reply(self, reply: Reply) -> None:
        self._was_answered = True
        call_id = reply.id if reply.has_id else next(iter(self._in_order()), None)
        call = self._in_flight.pop(call_id, None) if isinstance(call_id, int) else None
        if call is not None:
            call.finish(reply.value, reply.error)
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
