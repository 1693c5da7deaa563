"""What one client of a console is sent, in which order, without a connection."""

from __future__ import annotations

import socket

import attrs
import pytest

from trio_chardev.backends.console.client import OVERTAKEN, Client, Newcomer
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.options import Manner
from trio_chardev.backends.ringbuf.ring import Ring
from trio_chardev.backends.socket.stack import plain_link

RING = 1 << 17
TELLS = b"\r\n[trio-chardev: skipped %d bytes]\r\n"
BOLD = b"\x1b[1;3"  # the beginning of a control sequence
QUERY = b"\x1b[6n"
REST = b"7m" + b"text" * 1000


@attrs.define
class Wire:
    """A link that takes *room* bytes and no more."""

    room: int
    got: bytearray = attrs.Factory(bytearray)
    name: str = "wire"
    unsent: bytes = b""
    """What a protocol has made of what was sent, and the kernel has not taken."""

    def flush(self) -> None:
        taken = self.unsent[: self.room]
        self.room -= len(taken)
        self.got += taken
        self.unsent = self.unsent[len(taken) :]

    def send(self, data: memoryview) -> int:
        assert data, "an empty one would be a frame of its own"
        if not self.room or self.unsent:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.got += taken
        return len(taken)


def client_of(wire: Wire, *, live_from: int = 0, is_exact: bool = False) -> Client:
    manner = Manner(is_told=not is_exact, is_terminal=live_from > 0, is_exact=is_exact)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        newcomer = Newcomer(link=plain_link(theirs, "x"), who="x", manner=manner)
    newcomer.link = wire  # type: ignore[assignment]
    return Client(1, newcomer, 0, live_from)


@pytest.fixture
def history() -> History:
    return History(Ring(RING))


@pytest.fixture
def another() -> History:
    history = History(Ring(RING))
    history.write(b"yyyy")
    return history


async def test_one_who_leaves_a_history_is_told_how_much_of_it_is_lost(
    history: History, another: History
) -> None:
    wire = Wire(10)
    client = client_of(wire)
    history.write(b"x" * 25)
    client.leave(history, another.end)
    assert (bytes(wire.got), client.skipped, client.position) == (b"x" * 10, 15, 4)
    wire.room = 1000
    another.write(b"z")
    client.send_rest(another)
    assert wire.got == b"x" * 10 + TELLS % 15 + b"z"


async def test_one_who_has_taken_all_loses_nothing(history: History, another: History) -> None:
    client = client_of(Wire(1000))
    history.write(b"x" * 25)
    client.leave(history, another.end)
    assert (client.skipped, client.behind(another)) == (0, 0)


async def test_one_who_counts_can_not_go_on_in_another_history(
    history: History, another: History
) -> None:
    wire = Wire(10)
    client = client_of(wire, is_exact=True)
    history.write(b"x" * 25)
    client.leave(history, another.end)
    assert (client.skipped, client.position) == (15, OVERTAKEN)


async def test_a_line_of_text_waits_for_the_end_of_the_sequence_but_no_longer(
    history: History,
) -> None:
    wire = Wire(1 << 20)
    client = client_of(wire)
    history.write(BOLD)
    client.send(history)
    history.write(REST)
    client.say("hello")
    client.send_rest(history)
    line = b"\r\n[trio-chardev: hello]\r\n"
    assert line in wire.got[:120], "it comes soon after the sequence"
    assert wire.got.replace(line, b"") == BOLD + REST
    assert wire.got.startswith(BOLD + b"7m")


async def test_a_line_of_text_that_was_sent_in_part_goes_on_before_all_else(
    history: History,
) -> None:
    wire = Wire(7)
    client = client_of(wire)
    client.say("hello")
    client.send(history)
    history.write(BOLD)
    wire.room = 1000
    client.send(history)
    assert wire.got == b"\r\n[trio-chardev: hello]\r\n" + BOLD


async def test_a_second_line_of_text_waits_for_the_end_of_a_sequence_too(history: History) -> None:
    wire = Wire(1000)
    client = client_of(wire)
    client.say("one")
    history.write(BOLD)
    client.send(history)
    client.say("two")
    history.write(b"7m")
    client.send(history)
    assert client.is_due(history)
    client.send(history)
    assert wire.got == b"\r\n[trio-chardev: one]\r\n" + BOLD + b"7m\r\n[trio-chardev: two]\r\n"


async def test_one_that_takes_nothing_is_blocked_until_it_does(history: History) -> None:
    wire = Wire(10)
    client = client_of(wire)
    history.write(b"x" * 25)
    client.send(history)
    assert client.is_blocked
    assert not client.is_due(history)
    wire.room = 1000
    client.send(history)
    assert not client.is_blocked
    assert wire.got == b"x" * 25


async def test_it_is_blocked_while_the_kernel_lacks_what_a_protocol_has_sent(
    history: History,
) -> None:
    wire = Wire(3, unsent=b"frame")
    client = client_of(wire)
    client.note_unsent()
    history.write(b"x")
    client.send(history)
    assert client.is_blocked
    wire.room = 3
    client.send(history)
    assert not client.is_blocked
    assert wire.got == b"framex"


async def test_what_a_protocol_has_sent_goes_before_the_rest(history: History) -> None:
    wire = Wire(1000, unsent=b"frame")
    history.write(b"x")
    client_of(wire).send_rest(history)
    assert wire.got == b"framex"


async def test_one_that_has_all_is_sent_nothing(history: History) -> None:
    client = client_of(Wire(1000))
    client.send(history)
    assert (client.sent, client.is_blocked) == (0, False)


async def test_a_sequence_that_began_long_ago_is_shown_and_counted(history: History) -> None:
    """What ends it is printed now."""
    wire = Wire(1000)
    history.write(b"abc" + QUERY + BOLD)
    client = client_of(wire, live_from=history.end)
    client.send_rest(history)
    history.write(b"7m" + QUERY)
    client.send_rest(history)
    assert wire.got == b"abc" + BOLD + b"7m" + QUERY
    assert client.sent == history.end


async def test_one_whose_protocol_keeps_the_last_bytes_is_blocked(history: History) -> None:
    class Framed(Wire):
        def send(self, data: memoryview) -> int:
            self.unsent = bytes(data)
            return len(data)

    client = client_of(Framed(0))
    history.write(b"x")
    client.send(history)
    assert client.is_blocked
    assert client.position == 1
