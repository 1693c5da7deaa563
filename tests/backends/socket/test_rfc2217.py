"""RFC 2217 on sockets: a client sets the line behind a bridge, and has a line of its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from tests.fakes import any_opener
from tests.links import check_change, check_contract, until
from trio_chardev.backends.socket import line as socket_line
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.devices.bridge import BridgeInfo
from trio_chardev.devices.table import driver_of
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import (
    OUTPUTS,
    BackendEvent,
    BreakState,
    Event,
    LineSettings,
    ModemLines,
    Purge,
)
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.com_port_telnet import com_port_client
from trio_chardev.protocols.telnet import TelnetConnection
from trio_chardev.protocols.telnet_roles import CLIENT, COM_PORT, DO, IAC, SB, SE, WILL
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

LOOPBACK = "127.0.0.1"
SLOW = LineSettings(9600, 7, "E", 2)


INPUTS = ModemLines.CTS | ModemLines.DSR
"""Those that are on at a fake device."""


def server_at(address: SocketAddress) -> SocketOptions:
    return SocketOptions(addr=address, wait=False, rfc2217=True)


SERVER = server_at(InetAddress(LOOPBACK, "0"))


@attrs.define
class Board:
    """A registry with a board, a bridge to a server, and a client of that server."""

    registry: tc.Registry
    device: FakeDevice
    client: tc.Frontend
    events: list[BackendEvent]

    @property
    def server(self) -> SocketBackend:
        backend = self.registry["users"].backend
        assert isinstance(backend, SocketBackend)
        return backend

    async def leave(self) -> None:
        """Remove the client."""
        await self.client.aclose()
        await self.registry.remove("far")


def outputs_of(call: object) -> ModemLines:
    assert isinstance(call, ModemLines)
    return call & OUTPUTS


@asynccontextmanager
async def board(device: FakeDevice) -> AsyncIterator[Board]:
    async with open_registry_with(any_opener, driver_of) as registry:
        await registry.add("board", FakeOptions(device=device))
        await registry.add("users", SERVER)
        registry.devices.add(tc.BridgeOptions(id="b", chardev="board", peer="users"))
        port = registry["users"].backend.port
        addr = InetAddress(LOOPBACK, str(port))
        await registry.add("far", SocketOptions(addr=addr, server=False, rfc2217=True))
        events: list[BackendEvent] = []
        client = registry["far"].attach(be_change=tc.stateless, on_event=events.append)
        with trio.fail_after(10):
            await until(lambda: registry["users"].is_open)
            yield Board(registry, device, client, events)


def with_line(**faults: Any) -> FakeDevice:
    return FakeDevice("board", has_line=True, **faults)


# ---------------------------------------------------------------- the socket


async def test_a_server_keeps_the_contract(tmp_path: Path) -> None:
    """With a plain client of telnet, as nobody reads while the peer of a rule shakes hands."""
    await check_contract(tmp_path, server_at, lambda: TelnetConnection(CLIENT))


async def test_each_byte_reaches_one_of_two_backends(tmp_path: Path) -> None:
    await check_change(tmp_path, server_at, lambda: com_port_client(Port()))


def test_it_is_no_terminal_of_ibm() -> None:
    options = attrs.evolve(SERVER, tn3270=True)
    with pytest.raises(OptionsError, match="'rfc2217' option is incompatible with 'tn3270'"):
        SocketBackend(_request(), options)


def _request() -> tc.OpenRequest:
    return tc.OpenRequest(id="x", on_event=lambda event: None)


async def test_query_chardev_names_the_protocol() -> None:
    async with board(with_line()) as here:
        assert here.server.filename.startswith("rfc2217:127.0.0.1:")
        assert here.client.backend.filename.startswith("rfc2217:127.0.0.1:")


async def test_every_byte_goes_both_ways() -> None:
    data = bytes(range(256)) * 3 + b"\r\0\r\n\xff\xff"
    async with board(with_line()) as here:
        await here.client.send_all(data)
        await until(lambda: bytes(here.device.sent) == data)
        here.device.feed(data)
        got = b""
        while len(got) < len(data):
            got += await here.client.receive_some()
        assert got == data


# ---------------------------------------------------------------- the line behind a bridge


async def test_a_client_sets_the_line_behind_the_bridge() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        assert here.device.line_calls[-1] == SLOW
        assert here.client.line.settings == SLOW


async def test_what_comes_before_and_after_a_setting_stays_there() -> None:
    async with board(with_line()) as here:
        seen: list[object] = []
        here.device.line_calls = _Spy(lambda: seen.append(bytes(here.device.sent)))
        await here.client.send_all(b"old")
        await here.client.line.set(LineSettings(300))
        await here.client.send_all(b"new")
        await until(lambda: bytes(here.device.sent) == b"oldnew")
        assert seen == [b"old"]


class _Spy(list[object]):
    """Tells of what is appended."""

    def __init__(self, on_append: object) -> None:
        super().__init__()
        self._on_append = on_append

    def append(self, item: object) -> None:
        super().append(item)
        assert callable(self._on_append)
        self._on_append()


async def test_what_is_in_force_already_does_not_reach_the_line() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        calls = len(here.device.line_calls)
        layer = here.server.layer
        assert layer is not None
        peer = here.client.backend
        assert isinstance(peer, SocketBackend)
        assert peer.layer is not None
        party = peer.layer.codec.party  # type: ignore[attr-defined]
        for _ in range(100):
            party.begin()
            party.ask_settings(SLOW, only_changes=False)
            party.ask_outputs(OUTPUTS, only_changes=False)
            peer.flush(peer.layer)
        await until(lambda: party.is_answered)
        assert len(here.device.line_calls) == calls


async def test_what_the_line_refuses_is_answered_with_what_it_has() -> None:
    async with board(FakeDevice("board", has_line=True, line_fails=True)) as here:
        here.server.com_port.line = SLOW
        before = here.client.line.settings
        with pytest.raises(BackendError, match="does not do 300 8N1"):
            await here.client.line.set(LineSettings(300))
        assert before != LineSettings(300)


async def test_dtr_and_rts_reach_the_line_crossed_as_by_a_null_modem() -> None:
    async with board(with_line()) as here:
        await here.client.line.set_modem(ModemLines.RTS)
        assert outputs_of(here.device.line_calls[-1]) == ModemLines.RTS
        assert await here.client.line.get_modem() & OUTPUTS == ModemLines.RTS


async def test_a_break_is_a_state_and_over_when_its_client_leaves() -> None:
    async with board(with_line()) as here:
        await here.client.line.set_break(True)
        assert here.device.line_calls[-1] is True
        await here.client.line.set_break(False)
        assert here.device.line_calls[-1] is False
        await here.client.line.set_break(True)
        await here.leave()
        await until(lambda: here.device.line_calls[-1] is False)
        assert not here.server.com_port.is_break


async def test_a_break_of_a_clients_lasts_as_long_as_it_was_asked_for() -> None:
    async with board(with_line()) as here:
        await here.client.line.send_break(0.01)
        await until(lambda: here.device.line_calls[-2:] == [True, False])


async def test_a_purge_is_done_when_it_is_answered() -> None:
    async with board(with_line()) as here:
        await here.client.line.purge(Purge.RECEIVE | Purge.TRANSMIT)
        assert here.device.line_calls[-1] == Purge.RECEIVE | Purge.TRANSMIT


async def test_a_device_without_a_line_is_as_one_that_does_all() -> None:
    """pySerial, for one, gives up if it is not answered, or with another value."""
    async with board(FakeDevice("board")) as here:
        await here.client.line.set(SLOW)
        await here.client.line.set_modem(ModemLines.DTR)
        await here.client.line.set_break(True)
        await here.client.line.purge(Purge.RECEIVE)
        assert here.client.line.settings == SLOW
        assert await here.client.line.get_modem() == ModemLines.DTR


async def test_without_a_bridge_each_request_is_granted_too() -> None:
    async with board(with_line()) as here:
        here.registry.devices["b"].scope.cancel()
        await until(lambda: "b" not in here.registry.devices)
        seen: list[BackendEvent] = []
        async with here.registry["users"].attach(on_event=seen.append):
            await here.client.line.set(SLOW)
            await here.client.line.set_break(True)
        assert seen[0] is Event.OPENED
        assert BreakState(True) in seen
        assert SLOW in seen
        assert here.device.line_calls == []


async def test_settings_are_redone_on_the_boards_new_backend() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        await here.client.line.set_modem(ModemLines.DTR)
        await here.client.line.set_break(True)
        new = with_line()
        await here.registry.change("board", FakeOptions(device=new))
        assert new.line_calls[0] == SLOW
        assert outputs_of(new.line_calls[1]) == ModemLines.DTR
        assert new.line_calls[2] is True
        assert here.registry["users"].is_open


async def test_a_new_backend_that_refuses_them_undoes_the_change() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        new = FakeDevice("new", has_line=True, line_fails=True)
        with pytest.raises(tc.ChangeFailedError):
            await here.registry.change("board", FakeOptions(device=new))
        here.device.feed(b"still here")
        assert await here.client.receive_some() == b"still here"


async def test_the_inputs_of_the_line_and_its_breaks_are_notified() -> None:
    async with board(with_line()) as here:
        assert here.device.backend is not None
        here.device.backend.say(ModemLines.CTS | ModemLines.CAR)  # type: ignore[attr-defined]
        await until(lambda: ModemLines.CTS | ModemLines.CAR in here.events)
        here.device.backend.say(Event.BREAK)  # type: ignore[attr-defined]
        await until(lambda: Event.BREAK in here.events)
        modem = await here.client.line.get_modem()
        assert modem & ~OUTPUTS == ModemLines.CTS | ModemLines.CAR


async def test_a_client_learns_which_inputs_were_on_before_it_came() -> None:
    """By the first look at a line which has to be looked at; no change would tell it."""
    async with board(with_line(polled=frozenset({"modem"}))) as here:
        modem = ModemLines(0)
        while modem & ~OUTPUTS != INPUTS:
            modem = await here.client.line.get_modem()


async def test_the_server_of_another_server_learns_them_too() -> None:
    """They are known from what that one has notified; nobody has to look."""
    async with board(with_line(polled=frozenset({"modem"}))) as here:
        await here.client.aclose()
        await here.registry.add("again", SERVER)
        here.registry.devices.add(tc.BridgeOptions(chardev="far", peer="again"))
        again = here.registry["again"].backend
        assert isinstance(again, SocketBackend)
        await until(lambda: again.com_port.inputs == INPUTS)


async def test_a_client_that_wants_silence_gets_it_until_it_resumes() -> None:
    async with board(with_line()) as here:
        party = here.server.layer.codec.party  # type: ignore[union-attr]
        party.is_suspended = True
        here.device.feed(b"later")
        await wait_all_tasks_blocked(0.01)
        assert here.client.statistics().bytes_waiting == 0
        await here.client.line.set_modem(ModemLines.DTR)  # what is asked is answered all the same
        peer = here.client.backend
        assert isinstance(peer, SocketBackend)
        assert peer.layer is not None
        peer.layer.codec.party._to_send.append(bytes([9]))  # type: ignore[attr-defined]
        peer.flush(peer.layer)
        assert await here.client.receive_some() == b"later"


async def test_a_suspended_client_that_leaves_stops_nobody() -> None:
    async with board(with_line()) as here:
        here.server.layer.codec.party.is_suspended = True  # type: ignore[union-attr]
        here.device.feed(b"lost")
        await wait_all_tasks_blocked(0.01)
        await here.leave()
        await until(lambda: not here.registry["users"].is_open)
        await wait_all_tasks_blocked()
        info = here.registry.devices["b"].info
        assert isinstance(info, BridgeInfo)
        assert info.to_peer.bytes + info.to_peer.dropped == 4


async def test_a_client_that_asks_without_end_and_does_not_read_is_let_go() -> None:
    question = bytes([IAC, SB, COM_PORT, 0, IAC, SE])  # the signature: a long answer to a short one
    async with board(with_line()) as here:
        await here.leave()
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        await sock.connect((LOOPBACK, here.server.port))
        with sock, suppress(OSError):
            while True:
                await sock.send(question * 1000)
        await until(lambda: not here.registry["users"].is_open)


async def test_a_client_that_sets_without_end_is_answered_and_keeps_little_waiting() -> None:
    requests = b"".join(
        bytes([IAC, SB, COM_PORT, 1, 0, 0, 1, number % 250, IAC, SE]) for number in range(5000)
    )
    async with board(with_line()) as here:
        await here.leave()
        answers = bytearray()
        stream = await trio.open_tcp_stream(LOOPBACK, here.server.port or 0)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, requests)
            while answers.count(bytes([IAC, SB, COM_PORT, 101])) < 5000:
                answers += await stream.receive_some()


async def test_the_next_client_learns_what_is_in_force() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        await here.leave()
        addr = InetAddress(LOOPBACK, str(here.server.port))
        await here.registry.add("next", SocketOptions(addr=addr, server=False, rfc2217=True))
        async with here.registry["next"].attach() as client:
            assert client.line.settings == SLOW


async def test_the_state_of_the_line_stays_with_a_peer_that_is_kept() -> None:
    async with board(with_line()) as here:
        await here.client.line.set(SLOW)
        port = str(here.server.port)
        await here.registry.change("users", server_at(InetAddress(LOOPBACK, port)), keep_peer=True)
        assert here.server.com_port.line == SLOW
        await here.client.line.set(LineSettings(300))
        assert here.device.line_calls[-1] == LineSettings(300)


async def test_a_hub_passes_the_answer_on_to_who_has_asked() -> None:
    async with open_registry_with(any_opener, driver_of) as registry:
        device = with_line()
        await registry.add("board", FakeOptions(device=device))
        for id in ("one", "two"):
            await registry.add(id, SERVER)
        await registry.add("users", tc.HubOptions(chardevs=("one", "two")))
        registry.devices.add(tc.BridgeOptions(chardev="board", peer="users"))
        clients = []
        for id in ("one", "two"):
            addr = InetAddress(LOOPBACK, str(registry[id].backend.port))
            far = SocketOptions(addr=addr, server=False, rfc2217=True)
            await registry.add(f"far-{id}", far)
            clients.append(registry[f"far-{id}"].attach(be_change=tc.stateless))
        with trio.fail_after(10):
            await clients[0].line.set(SLOW)
            await clients[1].line.set(LineSettings(300))
            await clients[1].line.set_break(True)
        assert device.line_calls[-1] is True
        assert LineSettings(300) in device.line_calls


# ---------------------------------------------------------------- a client and its server


async def test_a_server_without_rfc2217_is_refused() -> None:
    async with tc.open_registry() as registry:
        await registry.add("plain", attrs.evolve(SERVER, rfc2217=False, telnet=True))
        async with registry["plain"].attach():
            addr = InetAddress(LOOPBACK, str(registry["plain"].backend.port))
            with pytest.raises(BackendError, match="the server does not speak RFC 2217"):
                await registry.add("far", SocketOptions(addr=addr, server=False, rfc2217=True))


async def test_what_is_set_while_the_server_is_away_is_set_when_it_is_back() -> None:
    async with board(with_line()) as here:
        addr = InetAddress(LOOPBACK, str(here.server.port))
        await here.leave()
        again = SocketOptions(addr=addr, server=False, rfc2217=True, reconnect_ms=200)
        await here.registry.add("far", again)
        async with here.registry["far"].attach() as client:
            await until(lambda: client.is_open)
            here.server.peer.disconnect()
            await until(lambda: not client.is_open)
            await client.line.set(SLOW)
            await client.line.set_modem(ModemLines.RTS)
            assert client.line.settings == SLOW
            await until(lambda: client.is_open)
            await until(lambda: SLOW in here.device.line_calls)
            await until(lambda: here.server.com_port.outputs == ModemLines.RTS)


async def test_a_server_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket_line, "ANSWER_TIMEOUT", 0.01)
    async with board(with_line()) as here:
        here.server.layer.codec.party.receive = lambda message: None  # type: ignore[union-attr]
        with pytest.raises(BackendError, match="did not answer within"):
            await here.client.line.set(SLOW)
        assert here.client.line.missing == set()
        await here.client.line.set_modem(ModemLines(0))  # as with ser2net at a PTY
        assert here.client.line.missing == {"modem"}
        assert await here.client.line.get_modem() & OUTPUTS == ModemLines(0)


async def test_a_setting_that_is_cancelled_is_undone() -> None:
    async with board(with_line()) as here:
        before = here.client.line.settings
        party = here.server.layer.codec.party  # type: ignore[union-attr]
        answer, party.receive = party.receive, lambda message: None
        with trio.move_on_after(0.01) as scope:
            await here.client.line.set(SLOW)
        assert scope.cancelled_caught
        party.receive = answer
        await here.client.line.set_modem(ModemLines.DTR)
        assert here.client.line.settings == before
        assert SLOW not in here.device.line_calls


async def test_a_server_that_leaves_wakes_who_waits_for_its_answer() -> None:
    async with board(with_line()) as here:
        here.server.layer.codec.party.receive = lambda message: None  # type: ignore[union-attr]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_in_vain, here.client)
            await wait_all_tasks_blocked(0.01)
            here.server.peer.disconnect(at_once=True)


async def _set_in_vain(client: tc.Frontend) -> None:
    with pytest.raises(BackendError):
        await client.line.set(SLOW)


# ---------------------------------------------------------------- the addresses of pySerial


async def test_a_serial_line_may_be_that_of_another_host() -> None:
    async with board(with_line()) as here:
        await here.leave()
        device = f"rfc2217://{LOOPBACK}:{here.server.port}"
        await here.registry.add("line", tc.SerialOptions(path=device, speed=19200, parity="E"))
        async with here.registry["line"].attach() as line:
            assert line.line.settings == LineSettings(19200, parity="E")
            await until(lambda: LineSettings(19200, parity="E") in here.device.line_calls)
            await line.send_all(b"hello")
            await until(lambda: bytes(here.device.sent) == b"hello")


async def test_a_serial_line_may_be_the_bytes_of_a_socket() -> None:
    async with tc.open_registry() as registry:
        await registry.add("raw", attrs.evolve(SERVER, rfc2217=False))
        device = f"socket://{LOOPBACK}:{registry['raw'].backend.port}"
        async with registry["raw"].attach() as near:
            await registry.add("line", tc.SerialOptions(path=device))
            async with registry["line"].attach() as far:
                await far.send_all(b"\xff\r")
                assert await near.receive_some() == b"\xff\r"
                with pytest.raises(tc.NotSupportedError):
                    await far.line.set(SLOW)


async def test_a_line_of_another_host_must_be_there_at_first() -> None:
    with pytest.raises(BackendError, match="Connection refused"):
        async with tc.open_registry() as registry:
            await registry.add("line", tc.SerialOptions(path=f"rfc2217://{LOOPBACK}:1"))


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("rfc2217://", "is no address such as 'rfc2217://HOST:PORT'"),
        ("rfc2217://host", "is no address such as 'rfc2217://HOST:PORT'"),
        ("socket://:4000", "is no address such as 'socket://HOST:PORT'"),
        ("socket://host:4000/path", "is no address such as 'socket://HOST:PORT'"),
        ("socket://me@host:4000", "is no address such as 'socket://HOST:PORT'"),
        ("rfc2217://host:99999", "Port out of range"),
        ("rfc2217://host:port", "Port could not be cast"),
        ("rfc2217://[host:1", "Invalid IPv6 URL"),
        ("rfc2217://host:1?logging=debug", "there is no option 'logging' here"),
    ],
)
async def test_an_address_that_is_none_is_refused_in_a_line(device: str, why: str) -> None:
    async with tc.open_registry() as registry:
        with pytest.raises(OptionsError, match=why) as failed:
            await registry.add("line", tc.SerialOptions(path=device))
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("scheme", "options", "what"),
    [
        ("rfc2217", {"exclusive": True}, "exclusive"),
        ("rfc2217", {"hupcl": False}, "hupcl"),
        ("rfc2217", {"rs485": True}, "rs485"),
        ("rfc2217", {"low_latency": True}, "low-latency"),
        ("socket", {"dtr": "on"}, "dtr"),
        ("socket", {"rts": "off"}, "rts"),
    ],
)
async def test_what_only_a_line_of_this_machine_has_is_refused(
    scheme: str, options: dict[str, Any], what: str
) -> None:
    path = f"{scheme}://{LOOPBACK}:1"
    async with tc.open_registry() as registry:
        with pytest.raises(OptionsError, match=f"'{path}' has no {what}$"):
            await registry.add("line", tc.SerialOptions(path=path, **options))


async def test_dtr_and_rts_of_another_host_are_set_at_first() -> None:
    async with board(with_line()) as here:
        await here.leave()
        path = f"rfc2217://{LOOPBACK}:{here.server.port}"
        await here.registry.add("line", tc.SerialOptions(path=path, dtr="off", rts="on"))
        calls = here.device.line_calls
        await until(lambda: any(c & OUTPUTS == ModemLines.RTS for c in _modem_calls(calls)))


def _modem_calls(calls: list[object]) -> list[ModemLines]:
    return [call for call in calls if isinstance(call, ModemLines)]


async def test_a_line_of_another_host_may_come_later() -> None:
    async with tc.open_registry() as registry:
        options = tc.SerialOptions(path=f"rfc2217://{LOOPBACK}:1", wait=False)
        chardev = await registry.add("line", options)
        assert not chardev.is_open
        refused = f"Failed to connect to '{LOOPBACK}:1': Connection refused"
        await until(lambda: chardev.state.last_error == refused)
        assert chardev.state.next_try is not None


async def test_a_line_of_another_host_that_has_come_is_dialled_now() -> None:
    async with board(with_line()) as here:
        await here.leave()
        port = str(here.server.port)
        path = f"rfc2217://{LOOPBACK}:{port}"
        await here.registry.change("users", tc.NullOptions())
        options = tc.SerialOptions(path=path, wait=False, reopen_ms=60_000)
        line = await here.registry.add("line", options)
        await until(lambda: line.state.last_error is not None)
        served = tc.SocketOptions(addr=tc.InetAddress(LOOPBACK, port), wait=False, rfc2217=True)
        await here.registry.change("users", served)
        assert not line.is_open
        line.retry()
        await until(lambda: line.is_open)


async def test_pyserials_workarounds_are_not_needed() -> None:
    async with board(with_line()) as here:
        await here.leave()
        device = f"rfc2217://{LOOPBACK}:{here.server.port}?ign_set_control&poll_modem"
        await here.registry.add("line", tc.SerialOptions(path=device))
        assert here.registry["line"].is_open


def test_a_client_offers_binary_before_any_byte() -> None:
    wire = com_port_client(Port()).data_to_send()
    assert wire.startswith(bytes([IAC, WILL, 0, IAC, DO, 0]))
