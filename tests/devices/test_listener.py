"""Listeners let clients in to a console, each with its own protocol and role."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

import trio_chardev as tc
from tests.rooms import LIMIT, read, read_all, read_until, room
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.devices.listener import ListenerInfo, ListenerOptions
from trio_chardev.errors import BackendError, OptionsError


async def test_several_listeners_with_several_protocols_lead_to_one_console(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it:
        plain = await it.come(await it.listen())
        telnet = await it.come(await it.listen(host="127.0.0.1", port="0", telnet=True))
        tcp = await it.come(await it.listen(host="127.0.0.1", port="0"))
        await it.device.send_all(b"hello\n")
        for stream in (plain, telnet, tcp):
            assert (await read_until(stream, b"hello\n")).endswith(b"hello\n")
        await tcp.send_all(b"x")
        assert await it.typed(1) == b"x"
        assert {client.who for client in it.clients} >= {"uid 0"}


async def test_it_tells_where_it_listens_and_how_many_have_come(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        listener = await it.listen(host="127.0.0.1", port="0", read_only=True)
        await it.come(listener)
        assert listener.info == ListenerInfo(
            id="l1",
            console="users",
            address=f"tcp:127.0.0.1:{listener.port}",
            role="read-only",
            tls=False,
            clients=1,
        )


async def test_an_address_that_is_taken_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        first = await it.listen(host="127.0.0.1", port="0")
        with pytest.raises(BackendError, match="Address already in use"):
            await it.listen(host="127.0.0.1", port=str(first.port))
        assert list(it.registry.devices) == ["l1"]
        assert it.told(tc.DeviceDeleted) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "one of 'path', 'host', 'vsock' or 'fd' is required"),
        ({"path": "p", "host": "h"}, "one of 'path', 'host', 'vsock' or 'fd' is required"),
        ({"host": "127.0.0.1"}, "'host' needs 'port'"),
        ({"path": "p", "port": "1"}, "'port' needs 'host'"),
        ({"host": "h", "port": "1", "abstract": True}, "'abstract' needs 'path'"),
        ({"path": "p", "replay": ""}, "'replay' is on, off, a number of lines, or a mark"),
        ({"path": "p", "binary_only": True}, "'binary-only' option requires 'websocket'"),
        ({"path": "p", "tls_creds": "none"}, "No TLS credentials with id 'none'"),
    ],
)
async def test_what_cannot_be_is_told(options: dict[str, Any], error: str, tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        with pytest.raises(OptionsError, match=error):
            await it.registry.devices.open(ListenerOptions(console="users", **options))
        assert list(it.registry.devices) == []


async def test_only_a_console_can_be_listened_for(tmp_path: Path) -> None:
    async with tc.open_registry() as registry:
        await registry.add("n", tc.NullOptions())
        for id, error in (("n", "it is no console"), ("x", "can't find value 'x'")):
            with pytest.raises(OptionsError, match=error):
                await registry.devices.open(ListenerOptions(console=id, path=str(tmp_path / "s")))


async def test_when_it_is_removed_its_clients_go_and_others_stay(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        first, second = await it.listen(in_band=True), await it.listen()
        one, two = await it.come(first), await it.come(second)
        await it.registry.devices.remove(first.id)
        assert await read_all(one) == b"\r\n[trio-chardev: the listener is closed]\r\n"
        assert not (tmp_path / "l1").exists()
        await it.device.send_all(b"x")
        assert await read(two, 1) == b"x"
        assert [n.reason for n in it.told(tc.ChardevClientDetached)] == ["stopping"]


async def test_one_that_is_cancelled_while_it_begins_leaves_nothing(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        with trio.CancelScope() as scope:
            scope.cancel()
            await it.listen(host="127.0.0.1", port="0")
        await trio.testing.wait_all_tasks_blocked()
        assert list(it.registry.devices) == []


async def test_a_client_that_never_shakes_hands_keeps_nobody_out(tmp_path: Path) -> None:
    async with room(tmp_path, history=65536) as it, trio.open_nursery() as nursery:
        listener = await it.listen(host="127.0.0.1", port="0", websocket=True)
        await it.connect(listener)
        ws = await wrap_client_stream(nursery, await it.connect(listener), "localhost", "/")
        await it.device.send_all(b"x")
        with trio.fail_after(LIMIT):
            assert await ws.get_message() == b"x"
        nursery.cancel_scope.cancel()


async def test_a_goodbye_has_its_code_and_text_in_a_websocket(tmp_path: Path) -> None:
    async with room(tmp_path) as it, trio.open_nursery() as nursery:
        listener = await it.listen(host="127.0.0.1", port="0", websocket=True)
        ws = await wrap_client_stream(nursery, await it.connect(listener), "localhost", "/")
        await it.wait_told(tc.ChardevClientAttached, 1)
        it.crowd.remove(it.clients[0], Goodbye("kicked", "kicked: lunch"))
        with trio.fail_after(LIMIT):
            assert await ws.get_message() == b"\r\n[trio-chardev: kicked: lunch]\r\n"
            with pytest.raises(ConnectionClosed) as closed:
                await ws.get_message()
        reason = closed.value.reason
        assert reason is not None
        assert (reason.code, reason.reason) == (1008, "kicked: lunch")
        nursery.cancel_scope.cancel()


async def test_many_may_come_in_the_same_moment(tmp_path: Path) -> None:
    """Whom the kernel's queue has no room for tries again after a second, by TCP."""
    async with room(tmp_path) as it:
        listener = await it.listen(abstract=True)
        with ExitStack() as stack:
            for _ in range(50):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(f"\0{listener.options.path}")
            await it.wait_told(tc.ChardevClientAttached, 50)
