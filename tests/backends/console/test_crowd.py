"""Who is there, who may type, who is told what."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.rooms import LIMIT, read_all, read_until, room
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.errors import OptionsError
from trio_chardev.events import BreakState

KICKED = Goodbye("kicked", "kicked")


async def test_the_first_writes_until_he_leaves_then_the_next(tmp_path: Path) -> None:
    async with room(tmp_path, write="first") as it:
        listener = await it.listen(in_band=True)
        one, two = await it.come(listener), await it.come(listener)
        await two.send_all(b"rm -rf\n")
        assert b"writes: what you type goes nowhere" in await read_until(two, b"]\r\n")
        await one.send_all(b"ls\n")
        assert await it.typed(3) == b"ls\n"
        await one.aclose()
        assert b"you have the right to write" in await read_until(two, b"]\r\n")
        await two.send_all(b"ok\n")
        assert await it.typed(3) == b"ok\n"
        assert [n.client for n in it.told(tc.ChardevWriterChanged)] == [1, None, 2]


async def test_with_one_writer_who_types_first_has_the_right_and_hands_it_over(
    tmp_path: Path,
) -> None:
    async with room(tmp_path, write="one", notice=True) as it:
        listener = await it.listen(in_band=True)
        one, two = await it.come(listener), await it.come(listener)
        assert it.told(tc.ChardevWriterChanged) == []
        await two.send_all(b"a")
        assert await it.typed(1) == b"a"
        await one.send_all(b"b")
        assert b"goes nowhere" in await read_until(one, b"goes nowhere]\r\n")
        assert b"wants to write" in await read_until(two, b"wants to write]\r\n")
        assert [client.asks for client in it.clients] == [True, False]
        it.crowd.keyboard.give_write(it.clients[0])
        assert b"you have the right" in await read_until(one, b"right to write]\r\n")
        await one.send_all(b"c")
        assert await it.typed(1) == b"c"
        await two.send_all(b"d")
        await read_until(two, b"goes nowhere]\r\n")
        assert [n.client for n in it.told(tc.ChardevWriterChanged)] == [2, 1]


async def test_one_who_may_only_read_is_told_once_and_types_nothing(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        reader = await it.come(await it.listen(read_only=True, in_band=True))
        writer = await it.come(await it.listen())
        await reader.send_all(b"x")
        told = await read_until(reader, b"]\r\n")
        await reader.send_all(b"y")
        await writer.send_all(b"z")
        assert await it.typed(1) == b"z"
        await it.device.send_all(b"end")
        told += await read_until(reader, b"end")
        assert told == b"\r\n[trio-chardev: you can only read: what you type goes nowhere]\r\nend"


async def test_who_may_only_read_is_never_given_the_right(tmp_path: Path) -> None:
    async with room(tmp_path, write="one") as it:
        await it.come(await it.listen(read_only=True))
        with pytest.raises(OptionsError, match="client 1 may only read"):
            it.crowd.keyboard.give_write(it.clients[0])
    async with room(tmp_path, write="all") as it:
        await it.come(await it.listen())
        with pytest.raises(OptionsError, match="all may write"):
            it.crowd.keyboard.give_write(it.clients[0])


async def test_people_are_told_who_comes_and_goes_and_programs_are_not(tmp_path: Path) -> None:
    async with room(tmp_path, notice=True) as it:
        person = await it.come(await it.listen(in_band=True))
        program = await it.come(await it.listen())
        await program.aclose()
        await it.wait_told(tc.ChardevClientDetached, 1)
        await it.device.send_all(b"end")
        assert await read_until(person, b"end") == (
            b"\r\n[trio-chardev: uid 0 attached]\r\n\r\n[trio-chardev: uid 0 left]\r\nend"
        )


async def test_a_banner_has_its_placeholders_filled(tmp_path: Path) -> None:
    banner = "welcome {who} to {console}, client {client} of {clients}, {role}"
    async with room(tmp_path, banner=banner, history=4096) as it:
        await it.device.send_all(b"before\n")
        one = await it.come(await it.listen(in_band=True))
        assert await read_until(one, b"before\n") == (
            b"\r\n[trio-chardev: welcome uid 0 to users, client 1 of 1, write]\r\nbefore\n"
        )


@pytest.mark.parametrize("banner", ["{nobody}", "{", "{0}", "{who.x}"])
async def test_a_banner_with_other_placeholders_is_refused(banner: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="'banner' has"):
        async with room(tmp_path, banner=banner):
            pass


async def test_one_more_is_refused_and_told_why(tmp_path: Path) -> None:
    async with room(tmp_path, max_clients=1) as it:
        listener = await it.listen(in_band=True)
        await it.come(listener)
        late = await it.connect(listener)
        assert await read_all(late) == (
            b"\r\n[trio-chardev: console 'users' is full: 1 clients]\r\n"
        )
        assert len(it.clients) == 1


async def test_or_the_first_gives_way(tmp_path: Path) -> None:
    async with room(tmp_path, max_clients=1, on_full="kick") as it:
        listener = await it.listen(in_band=True)
        first = await it.come(listener)
        await it.come(listener)
        assert b"has come in your place" in await read_all(first)
        assert [client.number for client in it.clients] == [2]
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["replaced"]


async def test_or_waits_until_somebody_leaves(tmp_path: Path) -> None:
    async with room(tmp_path, max_clients=1, on_full="wait") as it:
        listener = await it.listen(in_band=True)
        first = await it.come(listener)
        late = await it.connect(listener)
        await it.device.send_all(b"one")
        assert await read_until(first, b"one") == b"one"
        await first.aclose()
        await it.wait_told(tc.ChardevClientAttached, 2)
        await it.device.send_all(b"two")
        assert await read_until(late, b"two") == b"two"


async def test_those_who_wait_at_several_listeners_come_in_one_by_one(tmp_path: Path) -> None:
    async with room(tmp_path, max_clients=1, on_full="wait") as it:
        listeners = [await it.listen() for _ in range(3)]
        streams = [await it.connect(listener) for listener in listeners for _ in range(2)]
        for number in range(1, 7):
            await it.wait_told(tc.ChardevClientAttached, number)
            assert len(it.clients) == 1
            await it.device.send_all(b"x")
            leaving = it.clients[0]
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(leave_when_served, stream, nursery.cancel_scope)
            await it.wait_told(tc.ChardevClientDetached, number)
            assert leaving.is_gone
            streams = [stream for stream in streams if stream.socket.fileno() != -1]
        assert {n.reason for n in it.told(tc.ChardevClientDetached)} == {"left"}


async def leave_when_served(stream: trio.SocketStream, others: trio.CancelScope) -> None:
    """Leave when something has come."""
    await read_until(stream, b"x")
    await stream.aclose()
    others.cancel()


async def test_who_types_nothing_is_let_go_and_who_only_watches_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with room(tmp_path, idle_timeout=60) as it:
        idle = await it.come(await it.listen(in_band=True, abstract=True))
        await it.come(await it.listen(read_only=True, abstract=True))
        await trio.sleep(59)
        await idle.send_all(b"x")
        await it.typed(1)
        await trio.sleep(59)
        assert len(it.clients) == 2
        await trio.sleep(2)
        assert await read_all(idle) == b"\r\n[trio-chardev: idle for 60 s]\r\n"
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["idle"]


async def test_one_that_is_too_slow_is_let_go_if_that_is_wanted(tmp_path: Path) -> None:
    async with room(tmp_path, slow="kick") as it:
        await it.come(await it.listen())
        with trio.fail_after(LIMIT):
            while it.clients:
                await it.device.send_all(b"x" * 65536)
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["slow"]


async def test_one_that_acknowledges_nothing_is_dead_and_a_slow_one_is_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with room(tmp_path, dead_timeout=60) as it:
        listener = await it.listen(abstract=True)
        slow, dead = await it.come(listener), await it.come(listener)
        for _ in range(32):
            await it.device.send_all(b"x" * 65536)
        for _ in range(20):
            await trio.sleep(20)
            await it.device.send_all(b"x" * 65536)
            await slow.receive_some(65536)
        assert [client.number for client in it.clients] == [1]
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["dead"]
        assert dead.socket.fileno() != -1


async def test_what_one_has_typed_stays_when_he_leaves(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        one = await it.come(await it.listen())
        it.device.pause_input()
        await one.send_all(b"reboot\n")
        await one.aclose()
        await it.wait_told(tc.ChardevClientDetached, 1)
        it.device.accept_input()
        assert await it.typed(7) == b"reboot\n"


async def test_one_who_ends_his_input_still_sees_what_comes(tmp_path: Path) -> None:
    """As with ``echo cmd | nc -N``."""
    async with room(tmp_path, write="first") as it:
        listener = await it.listen()
        one, two = await it.come(listener), await it.come(listener)
        await one.send_all(b"cmd\n")
        await one.send_eof()
        assert await it.typed(4) == b"cmd\n"
        await it.wait_told(tc.ChardevWriterChanged, 3)
        await two.send_all(b"x")
        assert await it.typed(1) == b"x"
        await it.device.send_all(b"answer\n")
        assert await read_until(one, b"\n") == b"answer\n"
        await one.aclose()
        await it.wait_told(tc.ChardevClientDetached, 1)


async def test_a_device_that_takes_nothing_holds_up_nobody_but_who_types(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        typist, other = await it.come(listener), await it.come(listener)
        it.device.pause_input()
        with trio.move_on_after(0.2):
            while True:
                await typist.send_all(b"x" * 65536)
        await it.device.send_all(b"seen\n")
        assert await read_until(other, b"\n") == b"seen\n"
        assert await read_until(typist, b"\n") == b"seen\n"
        await other.aclose()
        await typist.aclose()
        await it.wait_told(tc.ChardevClientDetached, 2)


BREAK = bytes([255, 243])  # IAC BRK


async def test_a_break_of_one_who_may_not_write_goes_nowhere(tmp_path: Path) -> None:
    events: list[object] = []
    async with room(tmp_path, write="first") as it:
        it.device.detach()
        it.device = it.registry["users"].attach(be_change=tc.stateless, on_event=events.append)
        listener = await it.listen(host="127.0.0.1", port="0", telnet=True)
        one, two = await it.come(listener), await it.come(listener)
        await two.send_all(BREAK)
        await read_until(two, b"goes nowhere]\r\n")
        assert tc.Event.BREAK not in events
        await one.send_all(b"a" + BREAK + b"b")
        assert await it.typed(2) == b"ab"
        assert events.count(tc.Event.BREAK) == 1


async def test_a_break_ends_when_the_one_who_has_turned_it_on_can_do_so_no_more(
    tmp_path: Path,
) -> None:
    events: list[object] = []
    async with room(tmp_path, write="one") as it:
        it.device.detach()
        it.device = it.registry["users"].attach(be_change=tc.stateless, on_event=events.append)
        listener = await it.listen()
        await it.come(listener), await it.come(listener)
        one, two = it.clients
        it.crowd.keyboard.give_write(one)
        it.crowd.keyboard.heard(one, BreakState(True))
        it.crowd.keyboard.give_write(two)
        it.crowd.keyboard.heard(two, BreakState(True))
        it.crowd.remove(two, KICKED)
        await trio.testing.wait_all_tasks_blocked()
        states = [event for event in events if isinstance(event, BreakState)]
        assert states == [BreakState(True), BreakState(False)] * 2


async def test_with_one_writer_a_break_is_as_good_as_a_key(tmp_path: Path) -> None:
    async with room(tmp_path, write="one") as it:
        listener = await it.listen(host="127.0.0.1", port="0", telnet=True)
        one, two = await it.come(listener), await it.come(listener)
        await two.send_all(BREAK)
        (told,) = await it.wait_told(tc.ChardevWriterChanged, 1)
        assert told.client == 2
        await one.send_all(BREAK)
        assert b"goes nowhere" in await read_until(one, b"goes nowhere]\r\n")


@pytest.mark.parametrize("on_full", ["refuse", "wait", "kick"])
async def test_one_who_has_ended_his_input_gives_way_when_it_is_full(
    on_full: str, tmp_path: Path
) -> None:
    """TCP does not tell whether he has left; so health checks can't fill a silent console."""
    async with room(tmp_path, max_clients=2, on_full=on_full) as it:
        listener = await it.listen(host="127.0.0.1", port="0")
        await it.come(listener)
        for number in range(2, 6):
            checker = await it.connect(listener)
            await checker.aclose()
            await it.wait_told(tc.ChardevClientAttached, number)
            with trio.fail_after(LIMIT):
                while not it.clients[-1].has_ended:
                    await trio.testing.wait_all_tasks_blocked(0.001)
        sock = it.clients[-1].link.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert [client.number for client in it.clients] == [1, 5]
        assert {n.reason for n in it.told(tc.ChardevClientDetached)} == {"replaced"}
