"""What a client of a console asks for by QMP, and clients that count what they get."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.qmp.commands.test_console import Desk, desk
from tests.rooms import read, read_all
from trio_chardev.events import Event, WindowSize


def notices(it: Desk) -> list[object]:
    """Keep what the registry tells from now on."""
    kept: list[object] = []
    it.context.host.registry.on_notice = kept.append
    return kept


def told(kept: list[object], client: int = 1) -> list[str]:
    return [
        notice.text
        for notice in kept
        if isinstance(notice, tc.ChardevClientTold) and notice.client == client
    ]


async def test_a_client_says_that_its_window_is_another() -> None:
    async with desk() as it:
        it.attach(cols=80, rows=24)
        assert await it.run("chardev-client-size", id="c", client=1, cols=132, rows=43) == {}
        await trio.testing.wait_all_tasks_blocked()
        assert it.device.window_size == WindowSize(132, 43)


async def test_a_client_that_may_type_sends_a_break() -> None:
    events: list[object] = []
    async with desk(write="first") as it:
        it.device.detach()
        it.context.host.registry["c"].attach(be_change=tc.stateless, on_event=events.append)
        it.attach()
        it.attach()
        assert await it.run("chardev-client-break", id="c", client=1) == {}
        await trio.testing.wait_all_tasks_blocked()
        assert events.count(Event.BREAK) == 1
        with pytest.raises(tc.ChardevError, match="client 2 has no right to write"):
            await it.run("chardev-client-break", id="c", client=2)


async def test_one_that_counts_gets_the_queries_of_the_replay_too() -> None:
    async with desk(history=65536) as it:
        await it.device.send_all(b"a\x1b[6nb")
        stream, answer = it.attach(exact=True, cols=80, rows=24)
        await it.device.send_all(b"c")
        assert (answer["cursor"], answer["live-from"]) == (0, 6)
        assert await read(stream, 7) == b"a\x1b[6nbc"


async def test_one_that_counts_is_told_by_events_and_its_bytes_are_the_devices() -> None:
    async with desk(write="first", banner="hello") as it:
        kept = notices(it)
        it.attach()
        stream, _ = it.attach(exact=True)
        await stream.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        it.context.host.registry["c"].backend.peer.tell("device gone", "gone")
        await it.device.send_all(b"y")
        await it.run("chardev-kick", id="c", client=2, reason="lunch")
        assert await read_all(stream) == b"y"
        assert told(kept, 2) == [
            "hello",
            "uid 0 writes: what you type goes nowhere",
            "device gone",
            "kicked: lunch",
        ]
        assert told(kept, 1) == []


async def test_one_that_counts_is_let_go_when_it_is_too_slow_and_comes_again_by_its_count() -> None:
    line = b"x" * 99 + b"\n"
    async with desk(history=65536) as it:
        stream, answer = it.attach(exact=True)
        kept = notices(it)
        with trio.fail_after(10):
            while not any(isinstance(n, tc.ChardevClientDetached) for n in kept):
                await it.device.send_all(line * 100)
                await trio.lowlevel.checkpoint()
        assert [n.reason for n in kept if isinstance(n, tc.ChardevClientDetached)] == ["slow"]
        got = await read_all(stream)
        assert got == (line * (len(got) // 100 + 1))[: len(got)]
        _, again = it.attach(exact=True, since=len(got), history_id=answer["history-id"])
        assert again["cursor"] == again["live-from"] - 65536
        assert told(kept, 2) == [f"skipped {again['cursor'] - len(got)} bytes"]


async def test_the_count_is_of_one_history_which_a_file_keeps(tmp_path: Path) -> None:
    path = str(tmp_path / "h")
    async with desk(history=65536, history_file=path) as it:
        _, first = it.attach()
    async with desk(history=65536, history_file=path) as it:
        _, again = it.attach(since=0, history_id=first["history-id"])
        assert again["cursor"] == 0
    async with desk(history=65536) as it:
        with pytest.raises(tc.ChardevError, match="console 'c' has another history"):
            it.attach(since=0, history_id=first["history-id"])


async def test_a_console_that_takes_over_the_history_goes_on_with_the_count(tmp_path: Path) -> None:
    async with desk(history=65536) as it:
        one, first = it.attach(exact=True)
        await it.device.send_all(b"before")
        bigger = tc.ConsoleOptions(history=1 << 17, history_file=str(tmp_path / "h"))
        await it.context.host.registry.change("c", bigger)
        await it.device.send_all(b"after")
        assert await read(one, 11) == b"beforeafter"
        _, again = it.attach(since=11, history_id=first["history-id"])
        assert again["cursor"] == again["live-from"] == 11


async def test_a_console_with_a_history_of_its_own_lets_those_go_that_count(tmp_path: Path) -> None:
    options = tc.ConsoleOptions(history=65536, history_file=str(tmp_path / "h"))
    async with desk(history=65536, history_file=options.history_file) as it:
        await it.device.send_all(b"its own")
    async with desk(history=65536) as it:
        kept = notices(it)
        one, _ = it.attach(exact=True)
        await it.device.send_all(b"before")
        await it.context.host.registry.change("c", options)
        await it.device.send_all(b"after")
        assert await read_all(one) == b"before"
        assert told(kept) == ["the history is another"]


async def test_a_client_that_counts_has_no_lines_in_band() -> None:
    async with desk() as it:
        with pytest.raises(tc.ChardevError, match="'exact' and 'in-band' are mutually exclusive"):
            it.attach(exact=True, in_band=True)
