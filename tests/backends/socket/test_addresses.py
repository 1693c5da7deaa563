"""Addresses: their texts, how they are resolved, and QEMU's error texts."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.services import until
from trio_chardev.backends.socket import resolving
from trio_chardev.backends.socket.addresses import (
    Endpoint,
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
    VsockAddress,
    connection_name,
    fixed_endpoint,
    listening_address,
    path_for_kernel,
)
from trio_chardev.backends.socket.dialer import connect
from trio_chardev.backends.socket.resolving import resolve
from trio_chardev.errors import BackendError

HANGS = InetAddress("hangs.invalid", "1")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (InetAddress("127.0.0.1", "4001"), "tcp:127.0.0.1:4001"),
        (InetAddress("::1", "4001"), "tcp:::1:4001"),
        (UnixAddress("/tmp/x"), "unix:/tmp/x"),
        (UnixAddress("x", abstract=True), "unix:x,abstract=on,tight=on"),
        (UnixAddress("x", abstract=True, tight=False), "unix:x,abstract=on"),
        (VsockAddress("3", "1234"), "vsock:3:1234"),
        (FdAddress("7"), "fd:7"),
        (FdAddress(""), "fd:"),
    ],
)
def test_address_is_named_as_qemu_names_it(address: SocketAddress, name: str) -> None:
    assert address.name == name


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (
            InetAddress("127.0.0.1", "nosuchservice"),
            "address resolution failed for 127.0.0.1:nosuchservice: "
            "Servname not supported for ai_socktype",
        ),
        (
            InetAddress("127.0.0.1", "-1"),
            "address resolution failed for 127.0.0.1:-1: Servname not supported for ai_socktype",
        ),
        (
            InetAddress("127.0.0.1", "70000"),
            "address resolution failed for 127.0.0.1:70000: a port is at most 65535",
        ),
        (
            InetAddress("127.0.0.1", "9" * 5000),
            f"address resolution failed for 127.0.0.1:{'9' * 5000}: a port is at most 65535",
        ),
        (
            InetAddress("127.0.0.1", "1", ipv6=True, ipv4=False),
            "address resolution failed for 127.0.0.1:1: Address family for hostname not supported",
        ),
        (
            InetAddress("[::1]", "1", numeric=True),
            "address resolution failed for [::1]:1: Name or service not known",
        ),
        (
            InetAddress("127.0.0.1", "1", ipv6=False, ipv4=False),
            "Cannot disable IPv4 and IPv6 at same time",
        ),
        (VsockAddress("abc", "1"), "Failed to parse cid 'abc'"),
        (VsockAddress("4294967296", "1"), "Failed to parse cid '4294967296'"),
        (VsockAddress("1", ""), "Failed to parse port ''"),
        (UnixAddress("p" * 109), f"UNIX socket path '{'p' * 109}' is too long"),
        (UnixAddress("p" * 108, abstract=True), f"UNIX socket path '{'p' * 108}' is too long"),
        (UnixAddress("é" * 55), f"UNIX socket path '{'é' * 55}' is too long"),
        (UnixAddress("a\0b"), r"UNIX socket path 'a\x00b' has a NUL in it"),
    ],
)
async def test_what_is_no_address_is_refused_in_qemus_words(
    address: SocketAddress, error: str
) -> None:
    with pytest.raises(BackendError) as caught:
        await resolve(address, passive=True)
    assert str(caught.value) == error


def test_a_path_that_can_not_be_encoded_is_one_error() -> None:
    with pytest.raises(BackendError, match="can't be encoded"):
        fixed_endpoint(UnixAddress("\ud800"))


@pytest.mark.parametrize("host", ["a\0b", "x" * 70, "a..b", "\ud800", "é" * 1_000_000])
async def test_what_can_be_no_host_name_is_one_error(host: str) -> None:
    with pytest.raises(BackendError, match="address resolution failed"):
        await resolve(InetAddress(host, "1"), passive=False)


async def test_an_empty_path_is_refused_by_the_kernel_as_qemus_is() -> None:
    with pytest.raises(BackendError, match="^Failed to connect to '': Connection refused$"):
        await connect(UnixAddress(""))


async def test_mptcp_is_for_streams_and_makes_such_sockets() -> None:
    address = InetAddress("127.0.0.1", "4001", mptcp=True)
    [endpoint] = await resolve(address, passive=True)
    assert endpoint.protocol == socket.IPPROTO_MPTCP
    with pytest.raises(BackendError, match="^mptcp is for stream sockets only$"):
        await resolve(address, passive=True, kind=socket.SOCK_DGRAM)


async def test_empty_host_is_a_wildcard_for_a_server_only() -> None:
    endpoints = await resolve(InetAddress("", "4001"), passive=True)
    assert Endpoint(socket.AF_INET, ("0.0.0.0", 4001)) in endpoints
    with pytest.raises(BackendError, match="for :4001: Name or service not known"):
        await resolve(InetAddress("", "4001"), passive=False)


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "families"),
    [
        (None, None, {socket.AF_INET, socket.AF_INET6}),
        (True, True, {socket.AF_INET, socket.AF_INET6}),
        (True, None, {socket.AF_INET}),
        (True, False, {socket.AF_INET}),
        (None, False, {socket.AF_INET}),
        (None, True, {socket.AF_INET6}),
        (False, True, {socket.AF_INET6}),
        (False, None, {socket.AF_INET6}),
    ],
)
async def test_an_ip_version_that_is_on_excludes_the_other(
    ipv4: bool | None, ipv6: bool | None, families: set[int]
) -> None:
    found = await resolve(InetAddress("", "1", ipv4=ipv4, ipv6=ipv6), passive=True)
    assert {endpoint.family for endpoint in found} == families


@pytest.mark.parametrize(("port", "number"), [("0080", 80), ("65535", 65535), ("http", 80)])
async def test_port_may_be_a_number_or_a_service(port: str, number: int) -> None:
    [endpoint] = await resolve(InetAddress("127.0.0.1", port), passive=True)
    assert endpoint.address == ("127.0.0.1", number)


async def test_a_host_is_listed_once_however_often_the_resolver_says_it() -> None:
    endpoints = await resolve(InetAddress("localhost", "1"), passive=True)
    assert len(endpoints) == len(set(endpoints)) > 0


async def test_a_resolver_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not who is cancelled, not addresses that are numbers, not the threads of others."""
    answers = threading.Event()
    getaddrinfo = socket.getaddrinfo
    asked = []

    def hang(*query: Any) -> Any:
        if query[0] != "hangs.invalid" or query[-1] & socket.AI_NUMERICHOST:
            return getaddrinfo(*query)
        asked.append(query)
        answers.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(resolving, "MAX_LOOKUPS", 3)
    limit = trio.to_thread.current_default_thread_limiter()
    try:
        with trio.fail_after(5):
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(partial(resolve, HANGS, passive=False))
                    await until(lambda: len(asked) == 3)
                    assert limit.borrowed_tokens == 0
                    assert await trio.to_thread.run_sync(lambda: "in time") == "in time"
                    assert await resolve(InetAddress("127.0.0.1", "1"), passive=False)
                    nursery.cancel_scope.cancel()
    finally:
        answers.set()
    with trio.fail_after(5), pytest.raises(BackendError, match="Temporary failure"):
        await resolve(HANGS, passive=False)


def test_abstract_names_are_padded_unless_they_are_tight() -> None:
    assert fixed_endpoint(UnixAddress("x", abstract=True)).address == b"\0x"
    padded = fixed_endpoint(UnixAddress("x", abstract=True, tight=False)).address
    assert padded == b"\0x" + b"\0" * 106
    assert len(fixed_endpoint(UnixAddress("x" * 107, abstract=True)).address) == 108


def test_a_path_of_108_bytes_can_be_connected_to(tmp_path: Path) -> None:
    """bind(2) takes 107, so the file is bound under a short name and gets the long one."""
    folder = os.fsencode(tmp_path)
    path = os.path.join(folder, b"s" * (107 - len(folder)))
    assert len(path) == 108
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(os.path.join(folder, b"short"))
        server.listen()
        os.rename(os.path.join(folder, b"short"), path)
        with Endpoint(socket.AF_UNIX, path).for_connect() as name:
            client.connect(name)
        with path_for_kernel(b"short") as name:
            assert name == b"short"


def test_listening_address_has_the_port_that_the_system_chose() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        asked = InetAddress("localhost", "0", keep_alive=True)
        assert listening_address(asked, sock) == InetAddress("127.0.0.1", port, keep_alive=True)
        assert listening_address(FdAddress("x"), sock) == InetAddress("127.0.0.1", port)


def test_listening_address_of_a_passed_socket_is_its_own() -> None:
    name = f"trio-chardev-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        address = listening_address(FdAddress("x"), sock)
        assert address == UnixAddress(name, abstract=True)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_connection_name_has_both_ends_with_ipv6_in_brackets(host: str, shown: str) -> None:
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = stack.enter_context(socket.create_server((host, 0), family=family))
        client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        peer = stack.enter_context(server.accept()[0])
        here, there = server.getsockname()[1], client.getsockname()[1]
        address = InetAddress(host, str(here))
        assert (
            connection_name(address, peer, is_server=True)
            == f"tcp:{shown}:{here},server=on <-> {shown}:{there}"
        )
        assert (
            connection_name(address, client, is_server=False)
            == f"tcp:{shown}:{there} <-> {shown}:{here}"
        )


def test_connection_name_of_a_unix_socket_is_its_address() -> None:
    """HEAD's, also for a client; QEMU 7.2 shows "unix:" there, and for an abstract name."""
    a, b = socket.socketpair()
    with a, b:
        path = UnixAddress("/tmp/x")
        assert connection_name(path, a, is_server=True) == "unix:/tmp/x,server=on"
        assert connection_name(path, a, is_server=False) == "unix:/tmp/x"
        assert connection_name(FdAddress("7"), a, is_server=False) == "unix:"
        name = connection_name(UnixAddress("x", abstract=True), a, is_server=True)
        assert name == "unix:x,abstract=on,tight=on,server=on"


def test_fd_addresses_are_nothing_to_resolve() -> None:
    with pytest.raises(BackendError, match="has no address"):
        fixed_endpoint(FdAddress("7"))
