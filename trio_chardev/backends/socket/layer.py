"""A protocol between a socket and its backend.

A protocol is a `Codec`: sans-IO, it turns wire bytes into input and the other way round, and
knows neither Trio nor sockets. `Layer` puts one on a `Link`, which is a socket's `Connection`
or another layer, and is a `Link` itself: TLS below, then WebSocket, then telnet.

How bytes are counted when a protocol has records: a record that was begun can't be taken back,
so `Layer.send` encodes whole records only, and counts a record as sent once it is encoded. It
begins one only while the kernel has room, so that as a rule the kernel takes it whole; what it
does not take is kept, is sent before anything else, and is `unsent` until then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable

import trio

from trio_chardev.backends.socket.codec import (
    RECORD_SIZE,
    TRY_AGAIN_LATER,
    BreakCodec,
    Codec,
    Input,
    RefusingCodec,
    SuspendingCodec,
)
from trio_chardev.backends.socket.connection import TAKEN_INTERVAL, Take
from trio_chardev.backends.socket.link import Link
from trio_chardev.events import BackendEvent
from trio_chardev.protocols.subnegotiation import Subnegotiation

WIRE_CHUNK = 1 << 16  # bytes that are read at once
STEPS = 4  # of reading and decoding; then other tasks run, whether there was input or not
MAX_UNSENT = 1 << 18  # bytes; a peer that asks for ever and never reads the replies is dropped


class Layer:
    """A protocol on a link, and itself a link."""

    __slots__ = (
        *("_codec", "_input", "_is_at_end", "_is_ending", "_lower", "_on_event", "_owes_eof"),
        *("_stops", "_suspended", "_unsent"),
    )

    def __init__(self, lower: Link, codec: Codec, on_event: Callable[[BackendEvent], None]) -> None:
        """Take *lower* over; *on_event* gets the codec's events, each at its place in the input."""
        self._lower = lower
        self._codec = codec
        self._stops = codec if isinstance(codec, SuspendingCodec) else None
        self._on_event = on_event
        self._input: deque[memoryview | BackendEvent] = deque()  # decoded, and not taken yet
        self._unsent = bytearray()
        self._is_at_end = False
        self._is_ending = False  # this side has closed
        self._owes_eof = False  # to the lower link, when all has been sent
        self._suspended: trio.lowlevel.ParkingLot | None = None  # where senders wait to resume

    @property
    def codec(self) -> Codec:
        """The protocol."""
        return self._codec

    @property
    def lower(self) -> Link:
        """The link below."""
        return self._lower

    @property
    def name(self) -> str:
        """See `Link.name`."""
        return self._lower.name

    @name.setter
    def name(self, name: str) -> None:
        self._lower.name = name

    @property
    def sock(self) -> socket.socket:
        """See `Link.sock`."""
        return self._lower.sock

    @property
    def unsent(self) -> bool:
        """See `Link.unsent`."""
        return bool(self._unsent) or self._lower.unsent

    async def handshake(self) -> None:
        """See `Link.handshake`. A refusal that the peer should read is sent before it raises."""
        await self._lower.handshake()
        while True:
            with contextlib.suppress(OSError):  # it has left, but what it sent can be read
                self.flush()
            if self.unsent:
                await self._lower.wait_writable()
            elif self._codec.is_established:
                return
            elif self._is_over:
                raise ConnectionAbortedError(self._codec.end or "the peer has left")
            else:
                await self.wait_readable()
                with contextlib.suppress(BlockingIOError):
                    self._decode()

    @property
    def _is_over(self) -> bool:
        """Will there be no more wire bytes to decode?"""
        return self._codec.end is not None or (self._is_at_end and not self._codec.is_behind)

    # ------------------------------------------------------------ bytes

    def receive(self, max_bytes: int) -> bytes:
        """See `Link.receive`."""
        for _ in range(STEPS):
            item = self._take_input(max_bytes)
            if isinstance(item, bytes):
                return item
            if item is not None:
                self._on_event(item)
            elif self._codec.end:
                raise ConnectionAbortedError(self._codec.end)
            elif self._is_over:
                return b""
            else:
                self._decode()
                self._reply()
        item = self._take_input(max_bytes)
        if isinstance(item, bytes):
            return item
        if item is not None:
            self._on_event(item)
        raise BlockingIOError

    def _decode(self) -> None:
        """Decode some of the wire. Raises as `Link.receive`."""
        if self._codec.is_behind:
            self._keep(self._codec.decode_more())
            return
        wire = self._lower.receive(WIRE_CHUNK)
        self._is_at_end = not wire
        self._keep(self._codec.receive_data(wire))

    def _keep(self, decoded: Iterable[Input]) -> None:
        for item in decoded:
            if isinstance(item, bytes):
                self._input.append(memoryview(item))
            elif not isinstance(item, Subnegotiation):
                self._input.append(item)
        if self._suspended is not None and (self._is_over or not self._is_suspended):
            self._suspended.unpark_all()

    def _take_input(self, max_bytes: int) -> bytes | BackendEvent | None:
        """Take the next 1 to *max_bytes* bytes that were decoded, or an event, or None."""
        if not self._input:
            return None
        item = self._input[0]
        if isinstance(item, memoryview) and len(item) > max_bytes:
            self._input[0] = item[max_bytes:]
            return bytes(item[:max_bytes])
        self._input.popleft()
        return bytes(item) if isinstance(item, memoryview) else item

    def _reply(self) -> None:
        with contextlib.suppress(OSError):  # it has left, but what it sent can be read
            self.flush()
        if len(self._unsent) > MAX_UNSENT:
            raise ConnectionAbortedError("the peer does not read the replies to what it sends")

    def send(self, data: memoryview) -> int:
        """See `Link.send`; it sends whole records, see the module's docstring."""
        self._check_not_over()
        self.flush()
        sent = 0
        while sent < len(data) and self.has_room():
            record = data[sent : sent + RECORD_SIZE]
            self._unsent += self._codec.encode(bytes(record))
            try:
                self.flush()
            except OSError:
                if not sent:
                    raise
                break  # the next call will raise it
            sent += len(record)
        if data and not sent:
            raise BlockingIOError
        return sent

    def send_break(self) -> None:
        """Send a break after what was sent; it is dropped if too much before it is unsent.

        Raises OSError if the connection is over.
        """
        assert isinstance(self._codec, BreakCodec)
        self._check_not_over()
        if len(self._unsent) < MAX_UNSENT // 2:
            self._unsent += self._codec.encode_break()
        self.flush()

    def _check_not_over(self) -> None:
        if self._is_ending or (self._codec.end is not None and not self.ends_one_way):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def flush(self) -> None:
        """See `Link.flush`."""
        self._unsent += self._codec.data_to_send()
        try:
            while self._unsent:
                with memoryview(self._unsent) as unsent:
                    sent = self._lower.send(unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = bytearray()  # not cleared, as a frame of the traceback may have a view
            raise
        self._lower.flush()
        if self._owes_eof and not self.unsent:
            self._owes_eof = False
            self._lower.send_eof()

    def has_input(self) -> bool:
        """See `Link.has_input`."""
        if self._input or self._codec.is_behind:
            return True
        return not self._is_over and self._lower.has_input()

    def has_room(self) -> bool:
        """See `Link.has_room`."""
        return not (self._unsent or self._is_suspended) and self._lower.has_room()

    @property
    def _is_suspended(self) -> bool:
        """Does the peer want to be sent no bytes for now?"""
        return self._stops is not None and self._stops.is_suspended

    # ------------------------------------------------------------ waiting and ending

    async def wait_readable(self) -> None:
        """See `Link.wait_readable`."""
        if self._input or self._codec.is_behind or self._is_over:
            await trio.lowlevel.checkpoint()
        else:
            await self._lower.wait_readable()

    async def wait_hangup(self) -> None:
        """See `Link.wait_hangup`."""
        if self._is_over:
            await trio.lowlevel.checkpoint()
        else:
            await self._lower.wait_hangup()

    async def wait_writable(self) -> None:
        """See `Link.wait_writable`."""
        if self._is_suspended and not self._is_over:
            self._suspended = self._suspended or trio.lowlevel.ParkingLot()
            await self._suspended.park()
        else:
            await self._lower.wait_writable()

    @property
    def ends_one_way(self) -> bool:
        """See `Link.ends_one_way`."""
        return self._codec.ends_one_way and self._lower.ends_one_way

    @property
    def takes_more(self) -> bool:
        """See `Link.takes_more`. A peer that has stopped us and sends no more can't resume."""
        if self._is_ending or self._is_suspended:
            return False
        return self.ends_one_way and self._lower.takes_more

    async def wait_gone(self) -> None:
        """See `Link.wait_gone`."""
        await self._lower.wait_gone()

    def turn_away(self, why: str, code: int = TRY_AGAIN_LATER) -> None:
        """See `Link.turn_away`."""
        if isinstance(self._codec, RefusingCodec):
            self._is_ending = True
            self._codec.refuse(why, code)
            self.flush()
        else:
            self.send(memoryview(f"{why}\r\n".encode()))

    def send_eof(self) -> None:
        """See `Link.send_eof`."""
        self._owes_eof = True
        self._is_ending = True
        self._codec.close()
        self.flush()

    async def finish(self, take: Take) -> None:
        """See `Link.finish`.

        A WebSocket's peer has to answer the Close before the socket is closed. Else what it sends
        meanwhile is answered by a reset, on which browsers and libraries drop what they have not
        read. (This polls, as the link's reader may still be waiting for it.)
        """
        self._say_goodbye()
        while self._has_to_go_on:
            try:
                if not self._is_over:
                    self._decode()
                pause = TAKEN_INTERVAL if self._is_over else 0
            except BlockingIOError:
                pause = TAKEN_INTERVAL
            self._give_input(take)
            self._reply()
            await trio.sleep(pause)
        self._give_input(take)
        await self._lower.finish(lambda wire: self._take_wire(wire, take))

    @property
    def _has_to_go_on(self) -> bool:
        """Is there anything to send, decode or wait for before the lower link ends?"""
        codec = self._codec
        return self.unsent or codec.is_behind or (codec.is_closing and not self._is_over)

    def _take_wire(self, wire: bytes, take: Take) -> None:
        """Decode *wire*, a few KiB that came when nothing can be sent any more."""
        if self._is_over:
            return
        self._keep(self._codec.receive_data(wire))
        self._codec.data_to_send()
        self._give_input(take)
        while self._codec.is_behind:
            self._keep(self._codec.decode_more())
            self._codec.data_to_send()
            self._give_input(take)

    def _give_input(self, take: Take) -> None:
        """Pass what was decoded to *take*, and events to their handler."""
        while (item := self._take_input(WIRE_CHUNK)) is not None:
            if isinstance(item, bytes):
                take(item)
            else:
                self._on_event(item)

    def hand_over(
        self, on_event: Callable[[BackendEvent], None], *, nodelay: bool, keep_alive: bool
    ) -> None:
        """See `Link.hand_over`."""
        self._on_event = on_event
        if self._suspended is not None:
            self._suspended.unpark_all()
        self._lower.hand_over(on_event, nodelay=nodelay, keep_alive=keep_alive)

    def shut_down(self) -> None:
        """See `Link.shut_down`; the peer is told, if there is room for it."""
        self._say_goodbye()
        self._lower.shut_down()

    def dismiss(self) -> bool:
        """See `Link.dismiss`."""
        self._say_goodbye()
        return self._lower.dismiss()

    def close(self) -> None:
        """See `Link.close`; the peer is told, if there is room for it."""
        self._say_goodbye()
        self._lower.close()

    def _say_goodbye(self) -> None:
        self._is_ending = True
        if self._suspended is not None:
            self._suspended.unpark_all()
        self._codec.close()
        with contextlib.suppress(OSError):
            self.flush()
