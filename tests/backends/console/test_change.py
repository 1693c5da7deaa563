"""The clients and the history stay when a console is changed, whatever becomes of the change."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.rooms import read, read_all, read_until, room
from trio_chardev.core.controls import Controls


async def test_one_console_takes_over_the_clients_of_another(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        listener = await it.listen()
        one, two = await it.come(listener), await it.come(listener)
        await it.device.send_all(b"before\n")
        await it.registry.change("users", tc.ConsoleOptions(history=1 << 17, write="first"))
        await it.device.send_all(b"after\n")
        assert await read(one, 13) == await read(two, 13) == b"before\nafter\n"
        await two.send_all(b"no")
        await one.send_all(b"yes")
        assert await it.typed(3) == b"yes"
        assert await read(await it.come(listener), 13) == b"before\nafter\n"
        assert it.told(tc.ChardevClientDetached) == []
        assert [n.client for n in it.told(tc.ChardevWriterChanged)] == [1]


async def test_a_change_that_fails_leaves_everybody_where_he_was(tmp_path: Path) -> None:
    async def refuse(backend: Controls) -> None:
        if not backend.is_original:
            raise RuntimeError("no")

    async with room(tmp_path, history=65536) as it:
        it.device.detach()
        it.device = it.registry["users"].attach(be_change=refuse)
        one = await it.come(await it.listen())
        with pytest.raises(tc.ChangeFailedError):
            await it.registry.change("users", tc.ConsoleOptions(history=65536))
        await it.device.send_all(b"there\n")
        assert await read(one, 6) == b"there\n"
        await one.send_all(b"here\n")
        assert await it.typed(5) == b"here\n"


async def test_another_kind_lets_everybody_go(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen(in_band=True)
        one = await it.come(listener)
        await it.registry.change("users", tc.NullOptions())
        assert await read_all(one) == b"\r\n[trio-chardev: the console is replaced]\r\n"
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["replaced"]
        late = await it.connect(listener)
        assert await read_all(late) == b"\r\n[trio-chardev: there is no console now]\r\n"
        await it.registry.change("users", tc.ConsoleOptions())
        again = await it.come(listener)
        await it.device.send_all(b"x")
        assert await read(again, 1) == b"x"


async def test_the_end_of_the_service_is_told(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        one = await it.come(await it.listen(in_band=True))
        it._streams.clear()
    with one.socket:
        assert await read_all(one) == b"\r\n[trio-chardev: the service stops]\r\n"


async def test_a_console_with_listeners_is_busy(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen()
        it.device.detach()
        with pytest.raises(tc.ChardevBusyError):
            await it.registry.remove("users")
        await it.registry.devices.remove(listener.id)
        await it.registry.remove("users")


async def test_a_history_in_a_file_goes_on_after_the_service(tmp_path: Path) -> None:
    options = {"history": 65536, "history_file": str(tmp_path / "h")}
    async with room(tmp_path, **options) as it:
        await it.device.send_all(b"one\n")
        it.crowd.mark("here")
        await it.device.send_all(b"two\n")
    async with room(tmp_path, **options) as it:
        history = it.crowd.history
        assert (history.start, history.end) == (0, 8)
        assert dict(history.marks) == {"here": 4, "started": 8}
        one = await it.come(await it.listen(replay="here"))
        await it.device.send_all(b"three\n")
        assert await read_until(one, b"three\n") == b"two\nthree\n"


async def test_what_was_typed_before_a_change_comes_before_what_is_typed_after_it(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as it:
        one = await it.come(await it.listen())
        it.device.pause_input()
        await one.send_all(b"a" * 1000)
        with trio.fail_after(5):
            while it.clients[0].received < 1000:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.001)
        await it.registry.change("users", tc.ConsoleOptions())
        await one.send_all(b"b" * 1000)
        it.device.accept_input()
        assert await it.typed(2000) == b"a" * 1000 + b"b" * 1000


async def test_the_last_words_are_seen_before_the_goodbye(tmp_path: Path) -> None:
    """A board prints why it dies, and is gone in the same moment."""
    async with room(tmp_path) as it:
        one = await it.come(await it.listen(in_band=True))
        it.device.try_send(b"panic!\n")
        it.backend.peer.send_eof()
        assert await read_all(one) == b"panic!\n\r\n[trio-chardev: the device is gone]\r\n"


async def test_who_is_behind_has_the_drain_timeout_to_see_the_rest(tmp_path: Path) -> None:
    text = b"".join(b"%07d\n" % i for i in range(200_000))
    async with room(tmp_path, history=1 << 21) as it, trio.open_nursery() as nursery:
        one = await it.come(await it.listen())
        await it.device.send_all(text)
        console = it.backend

        async def change() -> None:
            await it.registry.change("users", tc.NullOptions(), drain_timeout=30)

        nursery.start_soon(change)
        with trio.fail_after(10):
            while not console.is_replaced:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.001)
        assert await read_all(one) == text


async def test_what_was_typed_before_a_change_to_another_kind_arrives(tmp_path: Path) -> None:
    """Also what is still in the kernel, and what comes before the client knows."""
    text = b"".join(b"%07d\n" % i for i in range(40_000))
    async with room(tmp_path) as it, trio.open_nursery() as nursery:
        one = await it.come(await it.listen())
        it.device.pause_input()
        sent = 0

        async def type_on() -> None:
            nonlocal sent
            try:
                while sent < len(text):
                    sent += await one.socket.send(text[sent : sent + 1000])
            except OSError:
                pass

        async def leave_when_told() -> None:
            await read_all(one)
            await one.send_eof()

        nursery.start_soon(leave_when_told)
        nursery.start_soon(type_on)
        with trio.fail_after(5):
            while it.clients[0].received < 65536:  # noqa: ASYNC110
                await trio.sleep(0.001)
        await it.registry.change("users", tc.NullOptions(), drain_timeout=10)
        it.device.accept_input()
        assert sent > 65536
        assert await it.typed(sent) == text[:sent]


async def test_clients_of_a_history_that_does_not_go_on_see_what_is_printed_and_are_told(
    tmp_path: Path,
) -> None:
    """The new console has a file with what was printed long ago, which they are not shown."""
    path = str(tmp_path / "h")
    async with room(tmp_path, history=65536, history_file=path) as it:
        await it.device.send_all(b"long ago " * 100)
    async with room(tmp_path, history=65536) as it:
        one = await it.come(await it.listen())
        await it.device.send_all(b"before\n")
        await it.registry.change("users", tc.ConsoleOptions(history=65536, history_file=path))
        await it.device.send_all(b"after\n")
        assert await read(one, 13) == b"before\nafter\n"
        assert it.clients[0].skipped == 0
