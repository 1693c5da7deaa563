"""The service: what stops when, and who hears of it."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.services import until
from trio_chardev import service as module
from trio_chardev.backends.addresses import UnixAddress
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf import RingbufOptions
from trio_chardev.backends.socket import SocketOptions
from trio_chardev.errors import ChardevBusyError, ChardevClosedError, ChardevNotFoundError
from trio_chardev.qmp.client import open_qmp_client
from trio_chardev.service import Service, open_service


def server(path: Path, *, wait: bool | None = None) -> SocketOptions:
    return SocketOptions(addr=UnixAddress(str(path)), wait=wait)


async def all_from(stream: trio.SocketStream) -> list[dict[str, Any]]:
    """The messages to the end."""
    data = b""
    while chunk := await stream.receive_some():
        data += chunk
    return [json.loads(line) for line in data.splitlines()]


async def negotiated(path: Path) -> trio.SocketStream:
    stream: trio.SocketStream = await trio.open_unix_socket(str(path))
    await stream.send_all(b'{"execute": "qmp_capabilities"}')
    data = b""
    while data.count(b"\r\n") < 2:
        data += await stream.receive_some()
    return stream


async def serve_until_quit(service: Service) -> None:
    """As `trio-chardev serve` does."""
    async with trio.open_nursery() as nursery:
        await nursery.start(service.watch_signals)
        await service.run_until_quit()
        nursery.cancel_scope.cancel()


async def test_add_monitor_needs_a_free_chardev(tmp_path: Path) -> None:
    async with open_service() as service:
        with pytest.raises(ChardevNotFoundError, match=r"^Chardev 'm' not found$"):
            await service.add_monitor("m")
        await service.registry.add("m", server(tmp_path / "m"))
        await service.add_monitor("m")
        with pytest.raises(ChardevBusyError, match=r"^Device 'm' is in use$"):
            await service.add_monitor("m")
        async with open_qmp_client(tmp_path / "m") as qmp:
            assert [row["label"] for row in await qmp.execute("query-chardev")] == ["m"]


async def test_monitors_stop_before_chardevs() -> None:
    """A monitor's chardev is there as long as the monitor."""
    order: list[str] = []

    async with open_service() as service:
        await service.registry.add("a", NullOptions())

        async def monitor() -> None:
            try:
                async with service.registry["a"].attach() as frontend:
                    await trio.sleep_forever()
            finally:
                order.append("monitor")
                assert not frontend.chardev.is_closed

        service._nursery.start_soon(monitor)
        await trio.testing.wait_all_tasks_blocked()
        chardev = service.registry["a"]
    assert order == ["monitor"]
    with pytest.raises(ChardevClosedError):
        chardev.attach()


async def test_quit_is_an_event_then_the_reply_then_the_end(tmp_path: Path) -> None:
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            async with open_service() as service:
                await service.listen_qmp(server(tmp_path / "q"))
                one, other = await negotiated(tmp_path / "q"), await negotiated(tmp_path / "q")
                nursery.start_soon(one.send_all, b'{"execute": "quit", "id": 5}')
                await service.run_until_quit()
            event, reply = await all_from(one)
            assert (event["event"], reply) == ("SHUTDOWN", {"return": {}, "id": 5})
            assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
            assert [message["event"] for message in await all_from(other)] == ["SHUTDOWN"]
            await one.aclose()
            await other.aclose()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_is_an_event_then_the_end(tmp_path: Path, number: int) -> None:
    with trio.fail_after(2):
        async with open_service() as service:
            await service.registry.add("m", server(tmp_path / "m"))
            await service.add_monitor("m")
            client = await negotiated(tmp_path / "m")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_until_quit, service)
                await trio.testing.wait_all_tasks_blocked()
                os.kill(os.getpid(), number)
        messages = await all_from(client)
        await client.aclose()
    assert [message["data"]["reason"] for message in messages] == ["host-signal"]


async def test_a_client_that_does_not_read_does_not_delay_the_end(tmp_path: Path) -> None:
    with trio.fail_after(2):
        async with open_service() as service:
            await service.listen_qmp(server(tmp_path / "q"))
            await service.registry.add("r", RingbufOptions(size=1 << 20))
            client = await negotiated(tmp_path / "q")
            arguments = {"device": "r", "size": 1 << 20, "format": "base64"}
            command = {"execute": "ringbuf-read", "arguments": arguments}
            async with service.registry["r"].attach() as frontend:
                await frontend.send_all(bytes(1 << 20))
            await client.send_all(json.dumps(command).encode())
            (monitor,) = service._monitors
            await until(lambda: bool(monitor._out))
            service.quit("host-signal")
            begin = trio.current_time()
            await service.run_until_quit()
            assert trio.current_time() - begin >= module.FAREWELL_TIMEOUT * 0.9
        await client.aclose()


async def test_a_chardev_that_waits_for_its_client_does_not_delay_the_end(tmp_path: Path) -> None:
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery, open_service() as service:

            async def add() -> None:
                with pytest.raises(ChardevClosedError):
                    await service.registry.add("w", server(tmp_path / "w", wait=True))

            nursery.start_soon(add)
            await until((tmp_path / "w").exists)
            service.quit("host-signal")
            await service.run_until_quit()
    assert not (tmp_path / "w").exists()


async def test_a_command_that_waits_does_not_delay_the_end(tmp_path: Path) -> None:
    addr = {"type": "unix", "data": {"path": str(tmp_path / "w")}}
    data = {"addr": addr, "wait": True}
    command = {"id": "w", "backend": {"type": "socket", "data": data}}
    with trio.fail_after(2):
        async with open_service() as service:
            await service.listen_qmp(server(tmp_path / "q"))
            client = await negotiated(tmp_path / "q")
            await client.send_all(
                json.dumps({"execute": "chardev-add", "arguments": command}).encode()
            )
            await until((tmp_path / "w").exists)
            service.quit("host-signal")
            await service.run_until_quit()
        messages = await all_from(client)
        await client.aclose()
    assert [message["event"] for message in messages] == ["SHUTDOWN"]
    assert not (tmp_path / "w").exists()


async def test_what_the_block_raises_comes_out_bare(tmp_path: Path) -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - it is about leaving the block
        async with open_service() as service:
            await service.listen_qmp(server(tmp_path / "q"))
            raise KeyError
    with socket.socket(socket.AF_UNIX) as sock:
        assert sock.connect_ex(str(tmp_path / "q")) != 0
