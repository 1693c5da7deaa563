"""A console: many clients on one chardev."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from tests.rooms import read, read_until, room


async def test_all_see_what_is_printed_and_all_may_type(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        one, two = await it.come(listener), await it.come(listener)
        await it.device.send_all(b"hello\n")
        assert await read(one, 6) == await read(two, 6) == b"hello\n"
        await one.send_all(b"ls\n")
        assert await it.typed(3) == b"ls\n"
        await two.send_all(b"pwd\n")
        assert await it.typed(4) == b"pwd\n"


async def test_a_newcomer_gets_the_history_and_what_follows_joins(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        listener = await it.listen()
        await it.device.send_all(b"one\ntwo\n")
        client = await it.come(listener)
        await it.device.send_all(b"three\n")
        assert await read(client, 14) == b"one\ntwo\nthree\n"


async def test_without_a_history_a_newcomer_begins_now(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        await it.device.send_all(b"one\n")
        client = await it.come(listener)
        await it.device.send_all(b"two\n")
        assert await read(client, 4) == b"two\n"


@pytest.mark.parametrize(
    ("replay", "seen"),
    [("on", b"a\nb\nc\n"), ("off", b""), ("2", b"b\nc\n"), ("0", b""), ("here", b"c\n")],
)
async def test_how_much_of_the_history_a_newcomer_gets(
    replay: str, seen: bytes, tmp_path: Path
) -> None:
    async with room(tmp_path, history=65536) as it:
        listener = await it.listen(replay=replay)
        await it.device.send_all(b"a\nb\n")
        it.crowd.mark("here")
        await it.device.send_all(b"c\n")
        client = await it.come(listener)
        await it.device.send_all(b"end")
        assert await read_until(client, b"end") == seen + b"end"


async def test_a_slow_client_is_told_how_much_it_has_lost_and_sees_the_end(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen(in_band=True)
        one = await it.come(listener)
        lines = [b"%08d\n" % number for number in range(400_000)]
        with trio.fail_after(10):
            for at in range(0, len(lines), 1000):
                await it.device.send_all(b"".join(lines[at : at + 1000]))
        got = await read_until(one, lines[-1])
        told = [
            int(size) for size in re.findall(rb"\r\n\[trio-chardev: skipped (\d+) bytes\]\r\n", got)
        ]
        shown = re.sub(rb"\r\n\[trio-chardev: skipped \d+ bytes\]\r\n", b"", got)
        assert told
        assert len(shown) + sum(told) == 9 * len(lines)
        assert it.clients[0].skipped == sum(told)
