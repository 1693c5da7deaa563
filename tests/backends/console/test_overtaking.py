"""The ring overtakes nobody who takes what he is sent, whatever is printed at once."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

import trio_chardev as tc
from tests.rooms import Room, read, room
from trio_chardev.backends.console.client import REPLAY_PIECE, Client, Newcomer
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.options import Manner
from trio_chardev.backends.ringbuf.ring import Ring
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.stack import plain_link

RING = 65536
LINES = b"".join(b"%07d\n" % number for number in range(20_000))  # 160 kB


def come_now(it: Room, manner: Manner) -> tuple[Client, trio.SocketStream]:
    """Come without a turn for anybody else."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = it.backend.admit(Newcomer(link=plain_link(ours, "x"), who="me", manner=manner))
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    it._streams.append(stream)
    return client, stream


@pytest.mark.parametrize("slow", ["skip", "kick"])
async def test_more_than_the_ring_is_printed_at_once(slow: str, tmp_path: Path) -> None:
    async with room(tmp_path, slow=slow) as it:
        client, stream = come_now(it, Manner())
        it.crowd.printed(memoryview(LINES))
        assert await read(stream, len(LINES)) == LINES
        assert client.skipped == 0


@pytest.mark.parametrize("is_terminal", [False, True])
async def test_a_newcomer_begins_at_the_end_of_a_full_ring(
    is_terminal: bool, tmp_path: Path
) -> None:
    async with room(tmp_path, history=RING) as it:
        it.crowd.printed(memoryview(LINES[:RING]))
        client, stream = come_now(it, Manner(is_terminal=is_terminal))
        assert client.begins_at == 0
        it.crowd.printed(memoryview(LINES[RING:]))
        assert await read(stream, len(LINES)) == LINES
        assert client.skipped == 0


async def test_one_who_takes_nothing_is_overtaken_and_goes_on_when_he_does(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        blocked, stream = come_now(it, Manner(is_told=True))
        for _ in range(10):
            it.crowd.printed(memoryview(LINES))
        other, reader = come_now(it, Manner())
        it.crowd.printed(memoryview(LINES))
        assert await read(reader, len(LINES)) == LINES
        assert blocked.is_blocked
        await read(stream, blocked.sent)
        with trio.fail_after(10):
            while blocked.is_blocked:  # noqa: ASYNC110 - the kernel tells nobody else
                await trio.sleep(0.001)
        it.crowd.printed(memoryview(b"end\n"))
        assert blocked.skipped > RING
        assert (other.skipped, it.told(tc.ChardevClientDetached)) == (0, [])


class TakesAll:
    """A link that takes all it is sent."""

    unsent = False

    def __init__(self) -> None:
        self.taken = b""

    def flush(self) -> None:
        """There is nothing left of earlier."""

    def send(self, data: memoryview) -> int:
        self.taken += data
        return len(data)


async def test_what_was_kept_back_of_a_replay_counts_as_skipped_when_it_is_overtaken() -> None:
    history, link = History(Ring(RING)), TakesAll()
    history.write(b"x" * (REPLAY_PIECE - 2) + b"\x1b[1m" + LINES[:100])  # cut by the first piece
    newcomer = Newcomer(link=cast(Link, link), who="me", manner=Manner(is_told=True))
    client = Client(1, newcomer, position=0, live_from=history.end)
    client.send(history)
    assert link.taken == b"x" * (REPLAY_PIECE - 2)
    for at in range(0, len(LINES), 8000):
        history.write(LINES[at : at + 8000])
    assert client.is_overtaken(history)
    lost = client.skip(history)
    assert len(link.taken) + lost == client.position
    assert client.skipped == lost
    assert client.sent == len(link.taken)


async def test_one_who_is_gone_when_his_turn_comes_to_wait_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with room(tmp_path) as it:
        client, _ = come_now(it, Manner())
        await trio.testing.wait_all_tasks_blocked()
        client._note_blocked()  # its task is to run
        it.crowd.remove(client, Goodbye("kicked", "kicked"))
        await trio.testing.wait_all_tasks_blocked()
    assert not [record for record in caplog.records if record.exc_info]
