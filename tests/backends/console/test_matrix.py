"""One console takes the place of another under a crowd: nothing is lost, nothing comes twice.

The clients stay; what they see and what they type goes on. `tests/backends/test_matrix.py` has the
changes to and from other kinds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import trio_chardev as tc
from tests.matrix import STREAM, Source, eventually
from tests.places import come_by_descriptor, connect_to
from tests.rooms import Room, room
from trio_chardev.devices.bridge import BridgeOptions

HISTORY = 1 << 22  # bytes; nobody is overtaken
PATIENCE = 20  # seconds
SUCCESSORS: dict[str, dict[str, Any]] = {
    "the same": {},
    "smaller": {"history": HISTORY - 4096},
    "larger": {"history": HISTORY * 2},
    "a file": {"history_file": "h2"},
}
SIZE = 200_000  # bytes printed before the first change


@attrs.define(eq=False)
class Member:
    """Somebody in the crowd, with what he has seen and what he types."""

    stream: trio.SocketStream
    mark: bytes
    """Begins each line that he types."""
    seen: bytearray = attrs.Factory(bytearray)
    typed: int = 0
    is_over: bool = False

    async def watch(self, size: int) -> None:
        while len(self.seen) < size:
            data = await self.stream.receive_some(8192)
            assert data, "let go"
            self.seen += data

    async def type(self) -> None:
        while not self.is_over:
            await self.stream.send_all(b"%b%06d\n" % (self.mark, self.typed))
            self.typed += 1
            await trio.sleep(0.0005)


@asynccontextmanager
async def crowded(folder: Path) -> AsyncIterator[tuple[Room, list[Member]]]:
    """A room with clients by listeners and by descriptor."""
    with trio.fail_after(PATIENCE):
        async with room(folder, history=HISTORY) as it:
            listener = await it.listen()
            tcp = await it.listen(host="127.0.0.1", port="0")
            streams = [await it.come(listener), await it.come(tcp), come_by_descriptor(it.backend)]
            it._streams.append(streams[-1])
            yield it, [Member(stream, b"%d:" % i) for i, stream in enumerate(streams)]


async def read_lines(it: Room, members: list[Member]) -> dict[bytes, list[int]]:
    """Read what is typed until all of it has come; who has typed which numbers, in order."""
    data = b""
    while data.count(b"\n") < sum(member.typed for member in members):
        data += await it.device.receive_some()
    # Two who type at the same time may mix within a line, but the kernel keeps short ones whole.
    found: dict[bytes, list[int]] = {member.mark: [] for member in members}
    for line in data.splitlines():
        found[line[:2]].append(int(line[2:]))
    return found


@pytest.mark.parametrize("successor", SUCCESSORS)
async def test_from_console_to_console_all_see_and_type_each_byte_once(
    successor: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"history": HISTORY, **SUCCESSORS[successor]}
    if "history_file" in options:
        options["history_file"] = str(tmp_path / options["history_file"])
    async with crowded(tmp_path) as (it, members), trio.open_nursery() as nursery:
        printed = Source(STREAM)
        for member in members:
            nursery.start_soon(member.type)
        nursery.start_soon(printed.write, it.device)
        nursery.start_soon(members[0].watch, len(STREAM))
        await printed.get_going(SIZE)
        for _ in range(4):
            await it.registry.change("users", tc.ConsoleOptions(**options))
            await trio.sleep(0.005)
        for member in members[1:]:  # these have read nothing until now
            nursery.start_soon(member.watch, len(STREAM))
        late = Member(await it.come(it.registry.devices["l1"]), b"3:")  # type: ignore[arg-type]
        nursery.start_soon(late.watch, len(STREAM))
        await it.registry.change("users", tc.ConsoleOptions(**options))
        for member in members:
            member.is_over = True
        found = await read_lines(it, members)
        assert found == {member.mark: list(range(member.typed)) for member in members}
        printed.is_over = True
        await eventually(lambda: printed.has_ended)
        for member in (*members, late):
            await eventually(lambda m=member: len(m.seen) >= printed.sent)  # type: ignore[misc]
            assert member.seen == STREAM[: printed.sent]
        history = it.crowd.history
        assert history.copy(0, history.end) == STREAM[: printed.sent]
        assert it.told(tc.ChardevClientDetached) == []
        nursery.cancel_scope.cancel()


async def test_who_reads_the_history_by_cursors_gets_each_byte_once_under_changes(
    tmp_path: Path,
) -> None:
    async with crowded(tmp_path) as (it, _), trio.open_nursery() as nursery:
        printed = Source(STREAM)
        got = bytearray()

        async def follow() -> None:
            while True:
                history = it.crowd.history
                excerpt = history.read(len(got), 5000)
                assert (excerpt.start, excerpt.lost) == (len(got), 0)
                got.extend(excerpt.data)
                if not excerpt.data:
                    await history.wait_grown()

        nursery.start_soon(follow)
        nursery.start_soon(printed.write, it.device)
        await printed.get_going(SIZE)
        for i in range(5):
            before = it.crowd.mark(f"change {i}")
            await it.registry.change("users", tc.ConsoleOptions(history=HISTORY + 4096 * i))
            assert it.crowd.history.cursor_of(f"change {i}") == before
        printed.is_over = True
        await eventually(lambda: printed.has_ended)
        await eventually(lambda: len(got) >= printed.sent)
        assert got == STREAM[: printed.sent]
        nursery.cancel_scope.cancel()


async def test_the_device_at_a_bridge_is_changed_under_a_crowd(tmp_path: Path) -> None:
    async with crowded(tmp_path) as (it, members), trio.open_nursery() as nursery:
        it.device.detach()
        typed, told = bytearray(), 0
        await it.registry.add("board", socket_at(tmp_path / "b0"))
        it.registry.devices.add(BridgeOptions(chardev="board", peer="users", when_closed="hold"))
        for member in members:
            nursery.start_soon(member.watch, len(STREAM))

        async def hear(board: trio.SocketStream) -> None:
            while data := await board.receive_some(8192):
                typed.extend(data)
            await board.aclose()

        for i in range(5):
            board = connect_to(it.registry["board"].backend)
            nursery.start_soon(hear, board)
            member = members[i % 3]
            await member.stream.send_all(b"line %d\n" % i)
            piece = STREAM[told : told + 40_000]
            await board.send_all(piece)
            told += len(piece)
            await member.stream.send_all(b"and %d\n" % i)
            wanted = sum(len(b"line 0\nand 0\n") for _ in range(i + 1))
            await eventually(lambda wanted=wanted: len(typed) >= wanted)  # type: ignore[misc]
            await it.registry.change(
                "board", socket_at(tmp_path / f"b{i + 1}"), drain_timeout=PATIENCE
            )
        for member in members:
            await eventually(lambda m=member: len(m.seen) >= told)  # type: ignore[misc]
            assert member.seen == STREAM[:told]
        assert typed == b"".join(b"line %d\nand %d\n" % (i, i) for i in range(5))
        assert it.told(tc.ChardevClientDetached) == []
        nursery.cancel_scope.cancel()


def socket_at(path: Path) -> tc.SocketOptions:
    return tc.SocketOptions(addr=tc.UnixAddress(str(path)))
