"""Where a server begins to listen: ports, paths, passed sockets, and what is refused."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.socket.test_listener import (
    dial,
    listening,
    next_client,
    no_descriptors_left,
    port_of,
    resolving_to,
)
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    UnixAddress,
    VsockAddress,
)
from trio_chardev.backends.socket.listening import listen, listen_on
from trio_chardev.errors import BackendError, OptionsError


@contextlib.contextmanager
def holding_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


async def test_port_0_becomes_the_real_port_and_an_empty_host_the_wildcard() -> None:
    async with listening(InetAddress("", "0")) as listener:
        assert isinstance(listener.address, InetAddress)
        assert listener.address.host in ("0.0.0.0", "::")
        port = port_of(listener)
        assert port > 0
        for host in ("127.0.0.1", "::1"):  # both at the same port
            with socket.create_connection((host, port), timeout=5):
                (await next_client(listener)).close()


async def test_the_ipv6_wildcard_alone_serves_ipv4_too_unless_that_is_off() -> None:
    """As QEMU."""
    async with listening(InetAddress("::", "0")) as listener:
        with socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5):
            (await next_client(listener)).close()
    async with listening(InetAddress("", "0", ipv4=False)) as listener:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5)


async def test_a_port_in_use_is_refused_in_qemus_words() -> None:
    with holding_port() as port, pytest.raises(BackendError) as caught:
        await listen(InetAddress("127.0.0.1", str(port)), None)
    assert str(caught.value) == "Failed to find an available port: Address already in use"


async def test_to_tries_the_following_ports() -> None:
    with holding_port() as port:
        address = InetAddress("127.0.0.1", str(port), to=port + 20)
        async with listening(address) as listener:
            assert port < port_of(listener) <= port + 20


async def test_to_is_for_ports_in_use_only() -> None:
    with pytest.raises(BackendError) as caught:
        await listen(InetAddress("192.0.2.1", "4001", to=4010), None)
    assert str(caught.value) == "Failed to bind socket: Cannot assign requested address"


async def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(OptionsError, match="'to' is below port 4001"):
        await listen(InetAddress("127.0.0.1", "4001", to=4000), None)


async def test_a_port_that_one_address_of_the_host_has_in_use_is_not_taken_by_half() -> None:
    with holding_port() as port, pytest.raises(BackendError, match="Address already in use"):
        await listen(InetAddress("", str(port)), None)
    with socket.create_server(("127.0.0.1", port)):
        pass  # nothing was left open


async def test_nothing_stays_open_when_the_second_address_is_in_use() -> None:
    with socket.socket(socket.AF_INET6) as ipv6:
        ipv6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ipv6.bind(("::", 0))
        ipv6.listen()
        port = ipv6.getsockname()[1]
        with pytest.raises(BackendError, match="Address already in use"):
            await listen(InetAddress("", str(port)), None)
        with socket.create_server(("127.0.0.1", port)):
            pass


async def test_an_address_that_this_host_lacks_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with resolving_to("192.0.2.1", "127.0.0.1"):
        async with listening(InetAddress("board", "0")) as listener:
            with dial(listener) as client, await next_client(listener) as peer:
                assert peer.getpeername() == client.getsockname()
    assert "not all addresses of board:0 can be listened at" in caplog.text


async def test_an_empty_path_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with listening(UnixAddress("")) as listener:
        assert isinstance(listener.address, UnixAddress)
        assert listener.address.path.startswith(str(tmp_path / "qemu-socket-"))
        with dial(listener), await next_client(listener):
            pass
    assert os.listdir(tmp_path) == []


async def test_path_errors_are_in_qemus_words() -> None:
    with pytest.raises(BackendError) as caught:
        await listen(UnixAddress("/nonexistent/s"), None)
    assert str(caught.value) == "Failed to bind socket to /nonexistent/s: No such file or directory"


async def test_vsock_listens() -> None:
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError as exc:
        pytest.skip(f"no vsock here: {exc}")
    async with listening(VsockAddress("4294967295", "45670")) as listener:
        assert listener.take() is None
        async with listening(VsockAddress("4294967295", "45670"), listener) as successor:
            assert successor.is_taking_over
    with pytest.raises(BackendError, match=r"^Failed to bind socket: "):
        await listen(VsockAddress("77", "45670"), None)


async def test_another_port_or_an_overlapping_address_is_not_shared() -> None:
    async with listening(InetAddress("127.0.0.1", "0")) as old:
        with pytest.raises(BackendError, match="Address already in use"):
            await listen(InetAddress("", str(port_of(old))), old)
        async with listening(InetAddress("127.0.0.1", "0"), old) as new:
            assert not new.is_taking_over
            assert port_of(new) != port_of(old)


async def test_a_passed_socket_that_listens_is_used_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        ours = theirs.dup()
        ours.setblocking(False)
        listener = listen_on(FdAddress("x"), ours)
        assert listener.address == InetAddress("127.0.0.1", str(theirs.getsockname()[1]))
        with dial(listener), await next_client(listener):
            pass
        listener.close()


async def test_a_passed_socket_that_is_only_bound_is_made_to_listen(tmp_path: Path) -> None:
    """Its path is not ours to unlink, as QEMU does: systemd will pass it again."""
    path = tmp_path / "s"
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    bound.setblocking(False)
    listener = listen_on(FdAddress("x"), bound)
    assert listener.address == UnixAddress(str(path))
    with dial(listener), await next_client(listener):
        pass
    listener.close()
    assert path.exists()


def test_a_passed_socket_that_is_connected_can_not_listen() -> None:
    a, b = socket.socketpair()
    with b, pytest.raises(BackendError) as caught:
        listen_on(FdAddress("x"), a)
    assert str(caught.value) == "Failed to listen on fd socket: Invalid argument"
    assert a.fileno() == -1


async def test_no_descriptor_for_a_socket_is_an_error_in_one_line() -> None:
    with no_descriptors_left(), pytest.raises(BackendError, match="Too many open files"):
        await listen(InetAddress("127.0.0.1", "0"), None)
