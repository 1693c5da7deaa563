"""The service: the order in which its parts stop, and who is told."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.services import until
from trio_chardev import service as module
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import ChardevBusyError, ChardevClosedError, ChardevNotFoundError
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.qmp.server.events import Throttle
from trio_chardev.service import Service, catching_signals, open_service


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
    async with catching_signals() as signalled, trio.open_nursery() as nursery:
        nursery.start_soon(service.quit_at, signalled)
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
                async with service.registry["a"].attach():
                    await trio.sleep_forever()
            finally:
                order.append("monitor")
                assert not service.registry["a"].is_closed

        service._nursery.start_soon(monitor)
        await trio.testing.wait_all_tasks_blocked()
        chardev = service.registry["a"]
    assert order == ["monitor"]
    with pytest.raises(ChardevClosedError):
        chardev.attach()


async def test_quit_is_an_event_then_the_reply_then_the_end(tmp_path: Path) -> None:
    with trio.fail_after(CLEANUP_TIMEOUT):  # no deadline was run into
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
    with trio.fail_after(CLEANUP_TIMEOUT):  # no deadline was run into
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


async def test_a_client_that_does_not_read_does_not_delay_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL_TIMEOUT", 0.1)
    with trio.fail_after(CLEANUP_TIMEOUT):  # no deadline was run into
        async with open_service() as service:
            await service.listen_qmp(server(tmp_path / "q"))
            await service.registry.add("r", RingbufOptions(size=1 << 20))
            client = await negotiated(tmp_path / "q")
            arguments = {"device": "r", "size": 1 << 20, "format": "base64"}
            command = {"execute": "ringbuf-read", "arguments": arguments}
            async with service.registry["r"].attach() as frontend:
                await frontend.send_all(bytes(1 << 20))
            await client.send_all(json.dumps(command).encode())
            (monitor,) = service.broadcast.monitors
            await until(lambda: bool(monitor._out))
            service.quit("host-signal")
            begin = trio.current_time()
            await service.run_until_quit()
            assert trio.current_time() - begin >= module.FAREWELL_TIMEOUT * 0.9
        await client.aclose()


async def test_a_chardev_that_waits_for_its_client_does_not_delay_the_end(tmp_path: Path) -> None:
    with trio.fail_after(CLEANUP_TIMEOUT):  # no deadline was run into
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
    with trio.fail_after(CLEANUP_TIMEOUT):  # no deadline was run into
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


# ---------------------------------------------------------------- events


class Wire:
    """A QMP client that keeps the order of events and replies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def message(self) -> dict[str, Any]:
        with trio.fail_after(5):
            while b"\n" not in self._rest:
                chunk = await self.stream.receive_some()
                assert chunk, "the connection is over"
                self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    async def write(self, name: str, /, **arguments: Any) -> None:
        command = {"execute": name, "arguments": arguments, "id": name}
        await self.stream.send_all(json.dumps(command).encode())

    async def until_reply(self, name: str) -> list[Any]:
        """The events that come before the reply to *name*, as name and data."""
        events = []
        while "event" in (message := await self.message()):
            events.append((message["event"], message["data"]))
        assert message["id"] == name
        assert "return" in message, message
        return events

    async def __call__(self, name: str, /, **arguments: Any) -> list[Any]:
        await self.write(name, **arguments)
        return await self.until_reply(name)

    async def events(self) -> list[Any]:
        """Those that have come."""
        return await self("query-version")


@asynccontextmanager
async def two_clients(path: Path) -> AsyncIterator[tuple[Service, Wire, Wire]]:
    async with open_service() as service:
        await service.listen_qmp(server(path))
        async with await negotiated(path) as one, await negotiated(path) as other:
            yield service, Wire(one), Wire(other)


def json_of(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def socket_at(path: Path, **more: Any) -> dict[str, Any]:
    return json_of("socket", addr={"type": "unix", "data": {"path": str(path)}}, **more)


def opened(id: str, filename: str) -> tuple[str, dict[str, str]]:
    return "CHARDEV_OPENED", {"id": id, "filename": filename}


def closed(id: str, filename: str) -> tuple[str, dict[str, str]]:
    return "CHARDEV_CLOSED", {"id": id, "filename": filename}


def added(id: str, filename: str) -> tuple[str, dict[str, str]]:
    return "CHARDEV_ADDED", {"id": id, "filename": filename}


async def test_the_others_hear_what_a_command_did_and_its_client_has_the_reply(
    tmp_path: Path,
) -> None:
    async with two_clients(tmp_path / "q") as (_, one, other):
        assert await one("chardev-add", id="c", backend=json_of("ringbuf")) == []
        assert await other.events() == [added("c", "ringbuf"), opened("c", "ringbuf")]
        assert await one("chardev-change", id="c", backend=json_of("null")) == []
        change = {"id": "c", "old-filename": "ringbuf", "filename": "null"}
        assert await other.events() == [("CHARDEV_CHANGED", change)]  # CLOSED is rate-limited
        assert await one("chardev-send-break", id="c") == []
        assert await other.events() == [("CHARDEV_BREAK", {"id": "c"})]
        assert await one("chardev-remove", id="c") == []
        assert await other.events() == [("CHARDEV_REMOVED", {"id": "c"})]
        assert await one.events() == []


async def test_what_nobody_asked_for_is_heard_by_all(tmp_path: Path) -> None:
    async with two_clients(tmp_path / "q") as (service, one, other):
        await service.registry.add("c", RingbufOptions())
        for client in (one, other):
            assert await client.events() == [added("c", "ringbuf"), opened("c", "ringbuf")]


async def test_a_command_that_failed_tells_nothing(tmp_path: Path) -> None:
    async with two_clients(tmp_path / "q") as (_, one, other):
        for backend in (json_of("file", out="/missing/f"), socket_at(tmp_path / "missing" / "s")):
            await one.write("chardev-add", id="c", backend=backend)
            assert "error" in await one.message()
        assert await other.events() == []


async def test_a_command_that_waits_has_caused_what_it_waited_for(tmp_path: Path) -> None:
    """Meanwhile its client hears of everything else, also of the chardev to be changed."""
    path, filename = tmp_path / "w", f"unix:{tmp_path}/w,server=on"
    async with two_clients(tmp_path / "q") as (service, one, other):
        await one.write("chardev-add", id="w", backend=socket_at(path, wait=True))
        await until(path.exists)
        await other("chardev-add", id="n", backend=json_of("null"))
        assert await one.message()
        async with await trio.open_unix_socket(str(path)) as peer:
            assert await one.until_reply("chardev-add") == []
            assert await other.events() == [added("w", filename), opened("w", filename)]
            new = tmp_path / "new"
            await one.write("chardev-change", id="w", backend=socket_at(new, wait=True))
            await until(new.exists)
            await peer.aclose()
            await until(lambda: not service.registry["w"].is_open)
            async with await trio.open_unix_socket(str(new)):
                assert await one.until_reply("chardev-change") == []


async def test_a_pty_that_somebody_opens_later_is_told_to_the_client_that_added_it(
    tmp_path: Path,
) -> None:
    """The tasks of its backend began within the command, but it is over."""
    async with two_clients(tmp_path / "q") as (service, one, other):
        await one("chardev-add", id="p", backend=json_of("pty"))
        path = service.registry["p"].backend.pty
        assert path is not None
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        await until(lambda: service.registry["p"].is_open)
        assert await one.events() == [opened("p", f"pty:{path}")]
        assert await other.events() == [added("p", f"pty:{path}"), opened("p", f"pty:{path}")]
        os.close(terminal)


async def test_the_same_while_another_command_of_that_client_waits(tmp_path: Path) -> None:
    async with two_clients(tmp_path / "q") as (service, one, _):
        path, filename = tmp_path / "s", f"unix:{tmp_path}/s,server=on"
        await one("chardev-add", id="s", backend=socket_at(path))
        await one.write("chardev-add", id="w", backend=socket_at(tmp_path / "w", wait=True))
        await until((tmp_path / "w").exists)
        async with await trio.open_unix_socket(str(path)):
            event = await one.message()
            assert (event["event"], event["data"]) == opened("s", filename)
            assert service.registry["s"].is_open


async def test_a_client_that_connects_is_told_to_the_others_only_if_at_once(
    tmp_path: Path,
) -> None:
    """With `reconnect` it is tried in the background, when the command is over."""
    async with two_clients(tmp_path / "q") as (service, one, other):
        with socket.socket(socket.AF_UNIX) as listener:
            later = socket_at(tmp_path / "s", server=False, **{"reconnect-ms": 10})
            assert await one("chardev-add", id="a", backend=later) == []
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            await until(lambda: service.registry["a"].is_open)
            at_once = socket_at(tmp_path / "s", server=False)
            assert [
                data["id"] for _, data in await one("chardev-add", id="b", backend=at_once)
            ] == ["a"]
            assert [name for name, _ in await other.events()] == [
                *("CHARDEV_ADDED", "CHARDEV_OPENED") * 2
            ]
            assert await one.events() == []


async def test_a_yank_ends_a_connection_which_is_then_heard_of_by_all(tmp_path: Path) -> None:
    async with two_clients(tmp_path / "q") as (service, one, other):
        service.broadcast._throttle = Throttle(0)
        await one("chardev-add", id="s", backend=socket_at(tmp_path / "s"))
        async with await trio.open_unix_socket(str(tmp_path / "s")):
            await until(lambda: service.registry["s"].is_open)
            for client in (one, other):
                await client.events()
            await one("yank", instances=[{"type": "chardev", "id": "s"}])
            await until(lambda: not service.registry["s"].is_open)
            for client in (one, other):
                assert await client.events() == [
                    closed("s", f"disconnected:unix:{tmp_path}/s,server=on")
                ]


async def test_events_are_for_clients_that_have_negotiated(tmp_path: Path) -> None:
    async with (
        two_clients(tmp_path / "q") as (service, _, other),
        await trio.open_unix_socket(str(tmp_path / "q")) as stream,
    ):
        newcomer = Wire(stream)
        assert "QMP" in await newcomer.message()
        await service.registry.add("a", NullOptions())
        assert await other.events() == [added("a", "null")]
        assert await newcomer("qmp_capabilities") == []
        await service.registry.add("b", NullOptions())
        assert await newcomer.events() == [added("b", "null")]


async def test_an_event_comes_before_the_reply_that_shows_what_it_tells(tmp_path: Path) -> None:
    """Many commands of both at once: no client sees a chardev in a list before its event."""
    async with two_clients(tmp_path / "q") as (_, one, other), trio.open_nursery() as nursery:

        async def add() -> None:
            for number in range(20):
                await one("chardev-add", id=f"c{number}", backend=json_of("null"))

        nursery.start_soon(add)
        known: set[str] = set()
        while len(known) < 20:
            await other.write("query-chardev")
            while "event" in (message := await other.message()):
                known.add(message["data"]["id"])
            assert {row["label"] for row in message["return"]} == known


async def test_events_of_a_mux_and_its_base(tmp_path: Path) -> None:
    async with two_clients(tmp_path / "q") as (service, one, other):
        await one("chardev-add", id="s", backend=socket_at(tmp_path / "s"))
        await one("chardev-add", id="m", backend=json_of("mux", chardev="s"))
        nobody, somebody = f"disconnected:unix:{tmp_path}/s", f"unix:{tmp_path}/s"
        assert await other.events() == [added("s", f"{nobody},server=on"), added("m", "mux")]
        async with await trio.open_unix_socket(str(tmp_path / "s")):
            await until(lambda: service.registry["m"].is_open)
            expected = [opened("s", f"{somebody},server=on"), opened("m", "mux")]
            assert await one.events() == expected
            assert await other.events() == expected


# ---------------------------------------------------------------- how often


def close_and_open(service: Service, id: str) -> None:
    chardev = service.registry[id]
    for is_open in (False, True):
        chardev.backend.set_open(is_open)


async def test_of_events_that_come_often_the_last_is_told_once_a_second(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with two_clients(tmp_path / "q") as (service, one, _):
        await service.registry.add("c", RingbufOptions())
        await service.registry.add("d", RingbufOptions())
        await one.events()
        for _ in range(3):
            close_and_open(service, "c")
        service.registry["c"].backend.set_open(False)
        assert await one.events() == []
        mock_clock.jump(0.9)
        assert await one.events() == []
        mock_clock.jump(0.2)
        message = await one.message()
        assert (message["event"], message["data"]) == closed("c", "ringbuf")
        assert await one.events() == []
        mock_clock.jump(5)
        service.registry["c"].backend.set_open(True)
        assert await one.events() == [opened("c", "ringbuf")]


async def test_an_event_that_waited_has_the_time_at_which_it_happened(
    tmp_path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_700_000_000_000_000_000
    monkeypatch.setattr("trio_chardev.qmp.server.events.time.time_ns", lambda: now)
    async with two_clients(tmp_path / "q") as (service, one, _):
        await service.registry.add("c", RingbufOptions())
        await one.events()
        now += 250_000_000
        service.registry["c"].backend.set_open(False)
        now += 10**9
        mock_clock.jump(1.1)
        expected = {"seconds": 1_700_000_000, "microseconds": 250_000}
        assert (await one.message())["timestamp"] == expected


async def test_what_waits_does_not_come_after_the_end_of_its_chardev(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with two_clients(tmp_path / "q") as (service, one, other):
        await service.registry.add("c", RingbufOptions())
        for _ in range(2):
            service.registry.send_break("c")
            service.registry["c"].backend.set_open(False)
        await one.events()
        await other("chardev-remove", id="c")
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert await one.events() == [("CHARDEV_REMOVED", {"id": "c"})]


async def test_a_client_that_waited_with_its_event_and_left_is_no_trouble(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with two_clients(tmp_path / "q") as (service, one, other):
        await one("chardev-add", id="c", backend=json_of("ringbuf"))
        await one("chardev-change", id="c", backend=json_of("null"))  # CLOSED waits
        await other.events()
        await one.stream.aclose()
        while len(service.broadcast.monitors) == 2:  # noqa: ASYNC110 - there is no event to wait for
            await trio.lowlevel.checkpoint()
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert await other.events() == [closed("c", "null")]


async def test_a_client_that_does_not_read_its_events_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_chardev.qmp.server.monitor.OUTPUT_LIMIT", 1 << 16)
    async with two_clients(tmp_path / "q") as (service, one, other):
        with trio.fail_after(5):
            while len(service.broadcast.monitors) == 2:
                await service.registry.add("c", NullOptions())
                await service.registry.remove("c")
                events = await other.events()
                assert [name for name, _ in events] == ["CHARDEV_ADDED", "CHARDEV_REMOVED"]
        messages = await all_from(one.stream)
        assert {message["event"] for message in messages} == {"CHARDEV_ADDED", "CHARDEV_REMOVED"}


async def test_a_client_does_not_hear_of_its_own_monitors_chardev(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Coming back within a second, it is not told that it was away."""
    async with open_service() as service:
        mock_clock.autojump_threshold = 0.05
        await service.registry.add("q", SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
        await service.add_monitor("q")
        for _ in range(3):
            async with open_qmp_client(tmp_path / "q") as qmp:
                with qmp.open_events() as events, trio.move_on_after(3) as silence:
                    await events.receive()
                assert silence.cancelled_caught
