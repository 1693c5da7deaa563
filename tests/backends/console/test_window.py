"""The one who types decides the size of the window that the device sees."""

from __future__ import annotations

import socket
from pathlib import Path

import trio

import trio_chardev as tc
from tests.rooms import LIMIT, Room, room
from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.options import Manner
from trio_chardev.backends.socket.stack import plain_link
from trio_chardev.events import WindowSize


def attach(it: Room, cols: int = 0, rows: int = 0) -> tuple[Client, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    it._streams.append(stream)
    size = WindowSize(cols, rows) if cols else None
    newcomer = Newcomer(link=plain_link(theirs, "x"), who="x", manner=Manner(), size=size)
    return it.backend.admit(newcomer), stream


async def wait_size(it: Room, cols: int, rows: int) -> None:
    with trio.fail_after(LIMIT):
        while it.device.window_size != WindowSize(cols, rows):
            await trio.testing.wait_all_tasks_blocked()


async def test_the_first_who_may_write_decides_until_another_types(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        _, one = attach(it, 80, 24)
        await wait_size(it, 80, 24)
        _, two = attach(it, 132, 43)
        await trio.testing.wait_all_tasks_blocked()
        assert it.device.window_size == WindowSize(80, 24)
        await two.send_all(b"x")
        assert await it.typed(1) == b"x"
        await wait_size(it, 132, 43)
        await one.send_all(b"y")
        assert await it.typed(1) == b"y"
        await wait_size(it, 80, 24)
        await one.aclose()
        await it.wait_told(tc.ChardevClientDetached, 1)
        await wait_size(it, 132, 43)


async def test_the_one_who_has_the_right_to_write_decides(tmp_path: Path) -> None:
    async with room(tmp_path, write="one") as it:
        one, _ = attach(it, 80, 24)
        two, _ = attach(it, 132, 43)
        it.crowd.keyboard.give_write(two)
        await wait_size(it, 132, 43)
        it.crowd.keyboard.give_write(one)
        await wait_size(it, 80, 24)


async def test_one_without_a_window_changes_nothing(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        attach(it, 80, 24)
        await wait_size(it, 80, 24)
        _, program = attach(it)
        await program.send_all(b"x")
        assert await it.typed(1) == b"x"
        assert it.device.window_size == WindowSize(80, 24)


async def test_telnet_tells_its_window_before_or_after_it_has_come(tmp_path: Path) -> None:
    iac, sb, se, will, naws = 255, 250, 240, 251, 31

    def told(cols: int) -> bytes:
        size = cols.to_bytes(2, "big").replace(b"\xff", b"\xff\xff") + b"\x00\x18"
        return bytes([iac, sb, naws]) + size + bytes([iac, se])

    async with room(tmp_path) as it:
        listener = await it.listen(host="127.0.0.1", port="0", telnet=True)
        stream = await it.connect(listener)
        await stream.send_all(bytes([iac, will, naws]) + told(255))
        await wait_size(it, 255, 24)
        await stream.send_all(told(100))
        await wait_size(it, 100, 24)
        assert it.clients[0].size == WindowSize(100, 24)
