"""What is replayed does not type, and of several terminals one answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import trio_chardev as tc
from tests.rooms import read, read_until, room
from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.options import Manner
from trio_chardev.backends.ringbuf.ring import Ring
from trio_chardev.protocols.terminal import ends_within

BOOT = (
    b"boot\x1b[6n\x1b[c\x1b[>c\x1b[18t\x1b[?2026$p\x1b]11;?\x07\x1b]4;1;?\x1b\\"
    b"\x1bP$qm\x1b\\\x1bP+q544e\x1b\\\x05 \x1b[1;31mred\x1b[m end\r\n"
)
SHOWN = b"boot \x1b[1;31mred\x1b[m end\r\n"


async def test_queries_are_left_out_of_a_replay_and_of_nothing_else(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        listener = await it.listen()
        there = await it.come(listener)
        await it.device.send_all(BOOT)
        assert await read_until(there, b"end\r\n") == BOOT
        late = await it.come(listener)
        assert await read_until(late, b"end\r\n") == SHOWN
        assert it.crowd.history.read(0).data == BOOT
        await it.device.send_all(BOOT)
        assert await read_until(late, b"end\r\n") == BOOT


async def test_programs_get_all_of_it(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        await it.device.send_all(BOOT)
        late = await it.come(await it.listen(terminal=False))
        assert await read_until(late, b"end\r\n") == BOOT


async def test_a_query_that_the_end_of_the_replay_cuts_is_live(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        await it.device.send_all(b"boot\x1b[")
        late = await it.come(await it.listen())
        await it.device.send_all(b"6nend\n")
        assert await read_until(late, b"end\n") == b"boot\x1b[6nend\n"


async def test_a_replay_begins_with_a_line_where_the_ring_has_cut_one(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        await it.device.send_all(b"\x1b]11;?\x07\n" * 10_000 + b"end\n")
        late = await it.come(await it.listen())
        got = await read_until(late, b"end\n")
        assert got.strip(b"\n") == b"end"


async def answer(stream: trio.SocketStream) -> None:
    """Answer as a terminal does."""
    await read_until(stream, b"\x1b[6n")
    await stream.send_all(b"\x1b[24;80R")


async def test_three_terminals_give_one_answer(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        streams = [await it.come(listener) for _ in range(3)]
        await it.device.send_all(b"where?\x1b[6n")
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(answer, stream)
        await streams[2].send_all(b"!")
        assert await it.typed(9) == b"\x1b[24;80R!"


async def test_the_one_who_types_answers(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        streams = [await it.come(listener) for _ in range(3)]
        await streams[1].send_all(b"l")
        assert await it.typed(1) == b"l"
        await it.device.send_all(b"\x1b[6n")
        for stream, column in zip(streams, (b"1", b"2", b"3"), strict=True):
            await read_until(stream, b"\x1b[6n")
            await stream.send_all(b"\x1b[24;" + column + b"R")
        await streams[2].send_all(b"!")
        assert await it.typed(8) == b"\x1b[24;2R!"


async def test_one_who_types_in_between_does_not_keep_the_answer_out(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        one, two = await it.come(listener), await it.come(listener)
        await it.device.send_all(b"\x1b[6n")
        await read_until(two, b"\x1b[6n")
        await two.send_all(b"!")
        assert await it.typed(1) == b"!"
        await one.send_all(b"\x1b[1;1R")
        assert await it.typed(6) == b"\x1b[1;1R"
        await two.send_all(b"\x1b[1;2R?")
        assert await it.typed(1) == b"?"


async def test_when_the_one_who_was_asked_leaves_another_answers(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        one, two = await it.come(listener), await it.come(listener)
        await it.device.send_all(b"\x1b[6n")
        await read_until(two, b"\x1b[6n")
        await one.aclose()
        await it.wait_told(tc.ChardevClientDetached, 1)
        await two.send_all(b"\x1b[1;2R")
        assert await it.typed(6) == b"\x1b[1;2R"


async def test_an_answer_of_one_who_may_not_write_asks_for_nothing(tmp_path: Path) -> None:
    async with room(tmp_path, write="one") as it:
        listener = await it.listen(in_band=True)
        one, two = await it.come(listener), await it.come(listener)
        await it.device.send_all(b"\x1b[6n")
        await read_until(two, b"\x1b[6n")
        await two.send_all(b"\x1b[1;2R")
        await read_until(one, b"\x1b[6n")
        await one.send_all(b"\x1b[1;1R")
        assert await it.typed(6) == b"\x1b[1;1R"
        clients: list[Client] = it.clients
        assert [client.asks for client in clients] == [False, False]
        assert not any(it.crowd.keyboard.may_type(client) for client in clients)


async def test_what_looks_like_an_answer_is_a_key_when_nothing_was_asked(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        streams = [await it.come(listener) for _ in range(2)]
        await streams[1].send_all(b"\x1b[1;2R")  # shift-F3
        assert await it.typed(6) == b"\x1b[1;2R"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x1b", b"[1;31mred"),
        (b"\x1b[1;3", b"1mred"),
        (b"\x1b]0;ti", b"tle\x07red"),
        ("é".encode()[:1], "é".encode()[1:] + b"red"),
    ],
)
async def test_a_line_for_people_comes_within_no_sequence_and_no_character(
    before: bytes, after: bytes, tmp_path: Path
) -> None:
    async with room(tmp_path) as it:
        stream = await it.come(await it.listen(in_band=True))
        (client,) = it.clients
        await it.device.send_all(b"x" + before)
        assert await read(stream, 1 + len(before)) == b"x" + before
        client.say("news")
        await it.device.send_all(after)
        got = await read_until(stream, b"news]\r\n")
        head, _, rest = (before + got).partition(b"\r\n[trio-chardev: news]\r\n")
        assert before + after == head + rest
        assert ends_within(head) is False
        head.decode()


async def test_a_line_that_was_sent_in_part_goes_on_before_anything_else() -> None:
    class Slow:
        """Takes few bytes at a time."""

        def __init__(self) -> None:
            self.taken = b""
            self.unsent = False

        def flush(self) -> None:
            pass

        def send(self, data: memoryview) -> int:
            self.taken += data[:5]
            return len(data[:5])

    link: Any = Slow()
    history = History(Ring(4096))
    history.write(b"x\x1b[1")
    newcomer = Newcomer(link=link, who="x", manner=Manner(is_told=True))
    client = Client(1, newcomer, 0, 0)
    client.send(history)
    assert link.taken == b"x\x1b[1"
    client.say("news")
    client._send_piece(history)  # nothing more was printed, so it is told now
    history.write(b";31mred")
    client.send(history)
    client.send(history)
    assert b"\r\n[trio-chardev: news]\r\n" in link.taken
