"""Every goodbye has one reason: a line of text, a WebSocket's code and reason, and an event."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import websockets.exceptions
import websockets.sync.client

from tests.crowds import Served, read_all, read_until, served
from tests.rooms import read_all as read_to_the_end, room
from tests.services import TIMEOUT
from trio_chardev.backends.console.goodbye import Goodbye

Web = websockets.sync.client.ClientConnection
LISTENERS = ("text,in-band=on", "web,host=127.0.0.1,port=0,websocket=on")


@contextmanager
def web_client(it: Served) -> Iterator[Web]:
    """Connect a WebSocket to the listener "web"."""
    before = len(it.events("CHARDEV_CLIENT_ATTACHED"))
    url = f"ws://127.0.0.1:{it.port('web')}/"
    with websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as web:
        it.wait_event("CHARDEV_CLIENT_ATTACHED", before + 1)
        yield web


def close_of(web: Web) -> tuple[bytes, int, str]:
    """All that is sent to it, and its Close."""
    got = b""
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        while True:
            piece = web.recv(timeout=TIMEOUT)
            got += piece if isinstance(piece, bytes) else piece.encode()
    assert web.close_code is not None
    return got, web.close_code, web.close_reason or ""


def kick(it: Served) -> None:
    for client in it.qmp("query-clients", id="users"):
        it.qmp("chardev-kick", id="users", client=client["client"], reason="lunch")


def wait_for_idleness(it: Served) -> None:
    it.wait_event("CHARDEV_CLIENT_DETACHED", 2)


def let_newcomers_in(it: Served) -> None:
    with it.come("text"), it.come("text"):
        it.wait_event("CHARDEV_CLIENT_DETACHED", 2)


def change_kind(it: Served) -> None:
    it.change("users", "null")


def end_device(it: Served) -> None:
    it.board.shutdown(socket.SHUT_WR)


def disconnect_all(it: Served) -> None:
    it.qmp("device_del", id="text")
    it.qmp("device_del", id="web")


@pytest.mark.parametrize(
    ("console", "bridge", "act", "text", "code", "reason"),
    [
        ("", "", kick, "kicked: lunch", 1008, "kicked"),
        ("idle-timeout=1", "", wait_for_idleness, "idle for 1 s", 4001, "idle"),
        (
            "max-clients=2,on-full=kick",
            "",
            let_newcomers_in,
            "uid 0 has come in your place",
            4003,
            "replaced",
        ),
        ("", "", change_kind, "the console is replaced", 4003, "replaced"),
        ("", "eof=pass", end_device, "the device is gone", 4004, "gone"),
        ("", "", disconnect_all, "the listener is closed", 1001, "stopping"),
    ],
    ids=["kicked", "idle", "replaced", "changed", "gone", "listener"],
)
def test_a_goodbye_has_a_text_a_code_and_an_event(
    console: str,
    bridge: str,
    act: Callable[[Served], None],
    text: str,
    code: int,
    reason: str,
    tmp_path: Path,
) -> None:
    with served(tmp_path, *LISTENERS, console=console, bridge=bridge) as it:
        with it.come("text") as plain, web_client(it) as web:
            act(it)
            line = f"\r\n[trio-chardev: {text}]\r\n".encode()
            assert read_all(plain) == line
            assert close_of(web) == (line, code, text)
        gone = it.wait_event("CHARDEV_CLIENT_DETACHED", 2)[:2]
        told = sorted((event["client"], event["reason"]) for event in gone)  # in either order
        assert told == [(1, reason), (2, reason)]


def test_the_end_of_the_service_is_told(tmp_path: Path) -> None:
    with (
        served(tmp_path, *LISTENERS) as it,
        it.come("text") as plain,
        web_client(it) as web,
    ):
        status, _, said = it.service.stop()
        line = b"\r\n[trio-chardev: the service stops]\r\n"
        assert read_all(plain) == line
        assert close_of(web) == (line, 1001, "the service stops")
        assert status == 0, said
        assert it.wait_event("SHUTDOWN")[0]["reason"] == "host-signal"


def test_who_is_refused_as_it_is_full_is_told(tmp_path: Path) -> None:
    with served(tmp_path, *LISTENERS, console="max-clients=1") as it, it.come("text"):
        text = "console 'users' is full: 1 clients"
        line = f"\r\n[trio-chardev: {text}]\r\n".encode()
        with socket.socket(socket.AF_UNIX) as late:
            late.settimeout(TIMEOUT)
            late.connect(str(tmp_path / "text"))
            assert read_all(late) == line
        url = f"ws://127.0.0.1:{it.port('web')}/"
        with websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as web:
            assert close_of(web) == (line, 1013, text)
        gone = it.wait_event("CHARDEV_CLIENT_DETACHED", 2)
        assert [event["reason"] for event in gone] == ["full", "full"]
        assert ["client" in event for event in gone] == [False, False]


def test_one_that_is_too_slow_is_told_when_it_reads_again(tmp_path: Path) -> None:
    """Within the 2 s that the service gives it."""
    with (
        served(tmp_path, *LISTENERS, console="slow=kick") as it,
        it.come("text") as plain,
    ):
        flood(it)
        got = read_all(plain)
        assert got.startswith(b"xxx")
        assert b"[trio-chardev: too slow, " in got
        assert it.wait_event("CHARDEV_CLIENT_DETACHED")[0]["reason"] == "slow"


def test_a_slow_websocket_is_told_when_it_reads_again(tmp_path: Path) -> None:
    with (
        served(tmp_path, *LISTENERS, console="slow=kick") as it,
        web_client(it) as web,
    ):
        flood(it)
        got, code, text = close_of(web)
        assert b"[trio-chardev: too slow, " in got
        assert (code, text[:9]) == (4002, "too slow,")
        assert it.wait_event("CHARDEV_CLIENT_DETACHED")[0]["reason"] == "slow"


def flood(it: Served) -> None:
    """Print until nobody is there who does not read."""
    while it.qmp("query-clients", id="users"):
        it.board.sendall(b"x" * 65536)


async def test_one_whose_connection_is_full_is_told_when_there_is_room(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        one = await it.come(await it.listen(in_band=True))
        (client,) = it.clients
        with contextlib.suppress(BlockingIOError):
            while True:
                client.link.send(memoryview(b"x"))
        it.crowd.remove(client, Goodbye("kicked", "kicked"))
        got = await read_to_the_end(one)
        assert got.lstrip(b"x") == b"\r\n[trio-chardev: kicked]\r\n"


async def test_one_who_never_reads_is_let_go_without_a_word(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with room(tmp_path) as it:
        one = await it.come(await it.listen(in_band=True, abstract=True))
        (client,) = it.clients
        with contextlib.suppress(BlockingIOError):
            while True:
                client.link.send(memoryview(b"x"))
        it.crowd.remove(client, Goodbye("kicked", "kicked"))
        await trio.sleep(3)
        assert client.link.sock.fileno() == -1
        assert (await read_to_the_end(one)).lstrip(b"x") == b""


def test_a_listener_without_people_sends_no_text(tmp_path: Path) -> None:
    with served(tmp_path, "programs") as it, it.come("programs") as one:
        kick(it)
        assert read_until(one, b"]") == b""
