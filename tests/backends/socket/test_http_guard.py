"""Web pages that speak to what is not a web server."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_chardev as tc
from tests.links import serving, until
from tests.places import connect_to
from trio_chardev.backends.socket.http_guard import METHODS, OPENINGS, HttpGuard
from trio_chardev.events import Event
from trio_chardev.service import open_service

LOCAL = tc.InetAddress("127.0.0.1", "0")
PAGE = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n"
    b'{"execute": "qmp_capabilities"}\r\n{"execute": "quit"}\r\n'
)


@pytest.mark.parametrize("opening", OPENINGS)
def test_each_opening_is_known_at_any_split(opening: bytes) -> None:
    for i in range(len(opening)):
        guard = HttpGuard()
        assert not guard.is_browser(opening[:i])
        assert not guard.is_done
        assert guard.is_browser(opening[i:] + b"/ HTTP/1.1\r\n")


@pytest.mark.parametrize("data", [b"{", b"\r\n", b"get /", b"GETTY\r", b"P\r", b" POST /", b"\x16"])
def test_who_begins_otherwise_is_none(data: bytes) -> None:
    guard = HttpGuard()
    assert not guard.is_browser(data)
    assert not guard.is_browser(b"\r")
    assert guard.is_done
    assert not guard.is_browser(b"POST / HTTP/1.1\r\n")


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("way", ["listener", "chardev", "telnet", "byte by byte"])
async def test_a_page_cannot_drive_a_monitor(
    way: str, insecure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(20):
        async with open_service() as service:
            options = tc.SocketOptions(addr=LOCAL, telnet=way == "telnet")
            if way == "chardev":
                await service.registry.add("m", options)
                await service.add_monitor("m", insecure=insecure)
                name = service.registry["m"].backend.filename
            else:
                name = await service.listen_qmp(options, insecure=insecure)
            port = int(name.removesuffix(",server=on").rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as page:
                for piece in [PAGE] if way != "byte by byte" else [b"PO", b"ST", PAGE[4:]]:
                    await page.send_all(piece)
                    await trio.sleep(0.01 if len(piece) < 9 else 0)
                assert b"return" not in await all_of(page)
            assert not service._host.is_quitting
    assert "is a web browser; it is let go" in caplog.text


@pytest.mark.parametrize("telnet", [False, True])
async def test_with_the_option_a_chardev_lets_a_browser_go_and_serves_the_next(
    telnet: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(20):
        async with serving(tc.SocketOptions(addr=LOCAL, http_guard=True, telnet=telnet)) as served:
            async with connect_to(served.backend) as page:
                await page.send_all(PAGE)
                await all_of(page)
            async with connect_to(served.backend) as user:
                await user.send_all(b"reboot\r\nPOST / HTTP/1.1\r\n")
                await served.until_received(b"reboot\r\nPOST / HTTP/1.1\r\n")
            assert b"execute" not in served.received
            assert served.events[:2] == [Event.OPENED, Event.CLOSED]
    assert "chardev 'x': a web browser has come; it is let go" in caplog.messages


async def test_nobody_splices_past_the_guard() -> None:
    with trio.fail_after(20):
        options = tc.SocketOptions(addr=LOCAL, http_guard=True)
        async with serving(options) as served, connect_to(served.backend) as user:
            await until(lambda: served.backend.is_open)
            assert served.backend.direct is None
            await user.send_all(b"x")
            await served.until_received(b"x")
            assert served.backend.direct is not None


async def test_without_the_option_its_words_are_input() -> None:
    with trio.fail_after(20):
        options = tc.SocketOptions(addr=LOCAL)
        async with serving(options) as served, connect_to(served.backend) as page:
            await page.send_all(PAGE)
            await served.until_received(PAGE)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"server": False},
            "'http-guard' option is incompatible with socket in client connect mode",
        ),
        (
            {"websocket": True},
            "'http-guard' option is incompatible with 'websocket': see 'origins'",
        ),
    ],
)
async def test_where_it_can_not_be(options: dict[str, Any], what: str) -> None:
    async with tc.open_registry() as registry:
        with pytest.raises(tc.OptionsError, match=what):
            await registry.add("x", tc.SocketOptions(addr=LOCAL, http_guard=True, **options))


def test_every_method_ends_in_a_blank() -> None:
    assert all(method.endswith(b" ") for method in METHODS)
