"""A protocol on a socket: what is counted, what is kept, and how it ends."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.backends.socket.codec import RECORD_SIZE
from trio_chardev.backends.socket.layer import MAX_UNSENT, Layer
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.shared_connection import SharedConnection
from trio_chardev.events import BackendEvent, Event


def frame(kind: bytes, data: bytes = b"") -> bytes:
    return kind + struct.pack(">H", len(data)) + data


class Frames:
    """A protocol of length-prefixed frames: Hello, Data, Break, Ping and its echo, Close."""

    ends_one_way = False
    is_behind = False

    def __init__(self, hello: bytes = b"") -> None:
        self.is_established = False
        self.end: str | None = None
        self._wire = bytearray(frame(b"H", hello))
        self._has_closed = False
        self._unparsed = bytearray()
        self._input: list[bytes | Event] = []

    def receive_data(self, data: bytes) -> list[bytes | Event]:
        assert self.end is None
        self._unparsed += data
        while len(self._unparsed) >= 3:
            kind, size = struct.unpack(">cH", self._unparsed[:3])
            if len(self._unparsed) < 3 + size:
                break
            content = bytes(self._unparsed[3 : 3 + size])
            del self._unparsed[: 3 + size]
            self._take(kind, content)
        received, self._input = self._input, []
        return received

    def decode_more(self) -> list[bytes | Event]:
        raise AssertionError("it is never behind")

    def _take(self, kind: bytes, data: bytes) -> None:
        match kind:
            case b"H":
                self.is_established = data != b"refused"
                self.end = "refused" if data == b"refused" else None
            case b"D":
                self._input.append(data)
            case b"B":
                self._input.append(Event.BREAK)
            case b"P":
                self._wire += frame(b"E", data)
            case b"C":
                self.end = data.decode()

    def encode(self, data: bytes) -> bytes:
        assert 1 <= len(data) <= RECORD_SIZE
        assert not self._has_closed
        return self.data_to_send() + frame(b"D", data)

    def encode_break(self) -> bytes:
        return self.data_to_send() + frame(b"B")

    def data_to_send(self) -> bytes:
        wire = bytes(self._wire)
        self._wire.clear()
        return wire

    @property
    def is_closing(self) -> bool:
        return self._has_closed and self.end is None

    def close(self) -> None:
        self._has_closed = True
        self._wire += frame(b"C")


@attrs.define(eq=False)
class Ends:
    """A layer on a socket, and the peer's socket."""

    layer: Layer
    peer: socket.socket
    events: list[BackendEvent]

    async def receive(self, max_bytes: int) -> bytes:
        """What comes next."""
        with trio.fail_after(5):
            await self.layer.wait_readable()
        return self.layer.receive(max_bytes)

    def peer_receives(self, size: int = 1 << 24) -> bytes:
        """Up to *size* bytes that are there."""
        data = b""
        while len(data) < size:
            try:
                more = self.peer.recv(size - len(data))
            except BlockingIOError:
                break
            if not more:
                break
            data += more
        return data

    async def fill(self, size: int = 1000) -> int:
        """Send *size* bytes until nothing goes any more; how much was counted."""
        await self.layer.wait_writable()
        sent = 0
        try:
            while True:
                sent += self.layer.send(memoryview(bytes(size)))
        except BlockingIOError:
            return sent


@contextmanager
def ends_on(levels: int = 1, *, room: int | None = None) -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    if room is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    events: list[BackendEvent] = []
    link: Link = SharedConnection(ours, "name")
    for _ in range(levels):
        link = Layer(link, Frames(), events.append)
    assert isinstance(link, Layer)
    with theirs:
        try:
            yield Ends(link, theirs, events)
        finally:
            link.close()


@pytest.fixture
async def connected() -> AsyncIterator[Ends]:
    with ends_on() as ends:
        await connect(ends)
        yield ends


@pytest.fixture
async def tight() -> AsyncIterator[Ends]:
    """The kernel has room for a few records only."""
    with ends_on(room=4608) as ends:
        await connect(ends)
        yield ends


async def connect(ends: Ends) -> None:
    ends.peer.send(frame(b"H"))
    with trio.fail_after(5):
        await ends.layer.handshake()
    assert ends.peer_receives() == frame(b"H")


def parse(wire: bytes) -> list[tuple[bytes, bytes]]:
    frames = []
    while wire:
        kind, size = struct.unpack(">cH", wire[:3])
        assert len(wire) >= 3 + size
        frames.append((kind, wire[3 : 3 + size]))
        wire = wire[3 + size :]
    return frames


# ---------------------------------------------------------------- handshakes


async def test_handshake_waits_for_the_peer_and_can_be_cancelled_and_go_on() -> None:
    with ends_on() as ends:
        hello = frame(b"H") + frame(b"D", b"x")
        with trio.fail_after(5):
            for byte in hello[:2]:
                ends.peer.send(bytes([byte]))
                with trio.move_on_after(0.001) as cut:
                    await ends.layer.handshake()
                assert cut.cancelled_caught
            ends.peer.send(hello[2:])
            await ends.layer.handshake()
        assert ends.peer_receives() == frame(b"H")
        assert ends.layer.receive(10) == b"x"
        assert ends.layer.name == "name"


async def test_refusal_raises_after_the_answer_was_sent() -> None:
    with ends_on() as ends:
        ends.peer.send(frame(b"P", b"?") + frame(b"H", b"refused"))
        with pytest.raises(ConnectionAbortedError, match="refused"), trio.fail_after(5):
            await ends.layer.handshake()
        assert ends.peer_receives() == frame(b"H") + frame(b"E", b"?")


async def test_peer_that_leaves_in_the_handshake() -> None:
    with ends_on() as ends:
        ends.peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionAbortedError, match="the peer has left"), trio.fail_after(5):
            await ends.layer.handshake()


@pytest.mark.parametrize("levels", [1, 3])
async def test_peer_that_does_all_at_once_is_served(levels: int) -> None:
    """It has greeted, sent, said goodbye and gone before anybody has looked."""
    wire = frame(b"H") + frame(b"D", b"input") + frame(b"C")
    for _ in range(levels - 1):
        wire = frame(b"H") + frame(b"D", wire)
    with ends_on(levels) as ends:
        ends.peer.send(wire)
        ends.peer.close()
        with trio.fail_after(5):
            await ends.layer.handshake()
            assert ends.layer.receive(3) == b"inp"
            await ends.layer.wait_readable()
            assert ends.layer.receive(3) == b"ut"
            await ends.layer.wait_readable()
            assert ends.layer.receive(3) == b""


# ---------------------------------------------------------------- what is counted


async def test_only_whole_records_are_counted(tight: Ends) -> None:
    """What was counted comes once the peer reads, and no more than that."""
    sent = await tight.fill(2 * RECORD_SIZE)
    assert sent
    assert sent % RECORD_SIZE == 0
    wire = b""
    while tight.layer.unsent:
        wire += tight.peer_receives()
        tight.layer.flush()
    wire += tight.peer_receives()
    assert sum(len(data) for _, data in parse(wire)) == sent


async def test_what_is_kept_goes_first(tight: Ends) -> None:
    sent = await tight.fill()
    tight.layer._unsent += b"kept"  # as a kernel that has taken a part of a record would leave
    with pytest.raises(BlockingIOError):
        tight.layer.send(memoryview(b"x"))
    got = tight.peer_receives()
    assert tight.layer.send(memoryview(b"x")) == 1
    got += tight.peer_receives()
    assert got.endswith(b"kept" + frame(b"D", b"x"))
    assert len(got) - 4 - 4 == sent + 3 * (sent // 1000)


async def test_nothing_is_begun_without_room(tight: Ends) -> None:
    """So a record is not left half with a peer that never reads, as a rule."""
    await tight.fill()
    assert not tight.layer.has_room()
    assert not tight.layer.unsent
    assert all(len(data) == 1000 for _, data in parse(tight.peer_receives()))
    assert tight.layer.has_room()


async def test_stuck_sender_waits_for_room_beside_another(tight: Ends) -> None:
    await tight.fill()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await tight.layer.wait_writable()
        woken += 1

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == 0
            tight.peer_receives()
    assert woken == 3


async def test_closing_wakes_all_who_wait(tight: Ends) -> None:
    await tight.fill()
    closed = 0

    async def wait() -> None:
        nonlocal closed
        with pytest.raises(trio.ClosedResourceError):
            await tight.layer.wait_writable()
        closed += 1

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            tight.layer.close()
    assert closed == 3


async def test_layers_on_layers_count_the_same() -> None:
    with ends_on(2, room=4608) as ends:
        inner = frame(b"H")
        ends.peer.send(frame(b"H") + frame(b"D", inner))
        with trio.fail_after(5):
            await ends.layer.handshake()
        sent = await ends.fill(3000)
        wire = b""
        while more := ends.peer_receives():
            wire += more
            ends.layer.flush()
        [(hello, _), *records] = parse(wire)
        assert hello == b"H"
        inner_frames = parse(b"".join(data for _, data in records))
        assert inner_frames[0] == (b"H", b"")
        assert sum(len(data) for _, data in inner_frames) == sent


async def test_empty_send_is_nothing(connected: Ends) -> None:
    await connected.layer.wait_writable()
    assert connected.layer.send(memoryview(b"")) == 0


# ---------------------------------------------------------------- input, replies, ends


async def test_events_keep_their_place(connected: Ends) -> None:
    connected.peer.send(frame(b"D", b"ab") + frame(b"B") + frame(b"D", b"c") + frame(b"B"))
    layer, events = connected.layer, connected.events
    assert layer.receive(1) == b"a"
    assert layer.receive(5) == b"b"
    assert events == []
    with trio.fail_after(5):
        await layer.wait_readable()
    assert layer.receive(5) == b"c"
    assert events == [Event.BREAK]
    with pytest.raises(BlockingIOError):
        layer.receive(5)
    assert events == [Event.BREAK] * 2


async def test_break_goes_behind_what_was_sent(connected: Ends) -> None:
    await connected.layer.wait_writable()
    connected.layer.send(memoryview(b"x"))
    connected.layer.send_break()
    assert connected.peer_receives() == frame(b"D", b"x") + frame(b"B")


async def test_replies_are_sent_by_reading(connected: Ends) -> None:
    connected.peer.send(frame(b"P", b"1") + frame(b"D", b"x"))
    assert await connected.receive(5) == b"x"
    assert connected.peer_receives() == frame(b"E", b"1")


async def test_replies_that_nobody_reads_are_bounded(tight: Ends) -> None:
    ping = frame(b"P", bytes(10_000))
    for _ in range(MAX_UNSENT // len(ping)):
        tight.peer.send(ping)
        with pytest.raises(BlockingIOError):
            await tight.receive(5)
    tight.peer.send(ping * 2)
    with pytest.raises(ConnectionAbortedError, match="does not read"):
        await tight.receive(5)
    assert len(tight.layer._unsent) <= MAX_UNSENT + 2 * len(ping)


async def test_input_of_a_peer_that_has_gone_is_read_though_replies_fail(connected: Ends) -> None:
    connected.peer.send(frame(b"P", b"1") + frame(b"D", b"x"))
    connected.peer.close()
    assert connected.layer.has_input()
    assert await connected.receive(5) == b"x"
    assert connected.layer.receive(5) == b""
    assert not connected.layer.has_input()
    with pytest.raises(OSError, match="Broken pipe"):
        connected.layer.send(memoryview(b"x"))


@pytest.mark.parametrize("reason", ["", "bad frame"])
async def test_end_of_the_protocol_comes_behind_the_input(connected: Ends, reason: str) -> None:
    connected.peer.send(frame(b"D", b"x") + frame(b"C", reason.encode()) + b"more")
    assert connected.layer.receive(5) == b"x"
    for _ in range(2):
        with trio.fail_after(5):
            await connected.layer.wait_readable()
        if reason:
            with pytest.raises(ConnectionAbortedError, match=reason):
                connected.layer.receive(5)
        else:
            assert connected.layer.receive(5) == b""
    with pytest.raises(BrokenPipeError):
        connected.layer.send(memoryview(b"x"))
    with pytest.raises(BrokenPipeError):
        connected.layer.send_break()


async def test_shut_down_says_goodbye_and_keeps_the_input(connected: Ends) -> None:
    connected.peer.send(frame(b"D", b"x"))
    connected.layer.shut_down()
    assert connected.peer_receives() == frame(b"C")
    assert await connected.receive(5) == b"x"
    assert await connected.receive(5) == b""
    with pytest.raises(BrokenPipeError):
        connected.layer.send(memoryview(b"x"))


async def test_close_says_goodbye(connected: Ends) -> None:
    connected.layer.close()
    with pytest.raises(trio.ClosedResourceError):
        await connected.layer.wait_writable()
    assert connected.peer_receives() == frame(b"C")
    assert connected.peer.recv(1) == b""


# ---------------------------------------------------------------- the last bytes of a peer


async def test_what_the_peer_sends_until_it_has_answered_the_goodbye_arrives(
    connected: Ends,
) -> None:
    taken: list[bytes] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connected.layer.finish, taken.append)
            await trio.testing.wait_all_tasks_blocked()
            assert connected.peer.recv(100) == frame(b"C")
            connected.peer.send(frame(b"D", b"late"))
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks, "it waits for the answer"
            connected.peer.send(frame(b"D", b"r") + frame(b"C"))
    assert b"".join(taken) == b"later"
    assert not connected.layer.has_input()


async def test_a_peer_that_leaves_instead_of_answering_is_not_waited_for(connected: Ends) -> None:
    connected.peer.close()
    with trio.fail_after(5):
        await connected.layer.finish(lambda data: None)
