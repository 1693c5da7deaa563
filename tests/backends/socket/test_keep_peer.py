"""keep-peer: a change of options hands the connected client over; only at the commit."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.certificates import server_credentials
from tests.links import come_by_tls, come_to
from tests.places import Place, dial, place_for, socket_stream
from tests.users import PATIENCE, Refuser, User, until, using
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.core.backend import Backend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError, ChangeFailedError, ChangeRefusedError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.telnet import telnet_connection
from trio_chardev.protocols.websocket import websocket_connection

PLACES = ["socket-unix", "socket-tcp", "socket-abstract", "socket-unix-client", "socket-tcp-client"]
OTHER_ADDRESS = r"^'keep-peer' requires two sockets of the same address$"


def in_place(user: User) -> SocketBackend:
    backend = user.frontend.backend
    assert isinstance(backend, SocketBackend)
    return backend


async def keep(user: User, place: Place, **options: Any) -> None:
    """Change to the same address with other *options*."""
    assert isinstance(place.options, SocketOptions)
    same = attrs.evolve(place.options, addr=in_place(user).address, **options)
    with trio.fail_after(PATIENCE):
        await user.registry.change("c", same, keep_peer=True)


@pytest.mark.parametrize("name", PLACES)
async def test_the_client_stays_and_options_change(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            await user.talk()
            first = in_place(user)
            filename = user.filename
            await keep(user, place, logfile=str(log))
            assert in_place(user) is not first
            assert user.filename == filename
            await user.talk()
            await until(lambda: log.read_bytes() == b"ping")


@pytest.mark.parametrize("name", PLACES)
async def test_a_change_that_fails_leaves_the_client_with_the_original(
    name: str, tmp_path: Path
) -> None:
    refuser = Refuser()
    with place_for(name, tmp_path) as place:
        async with using(place, refuser.be_change) as user:
            first = in_place(user)
            with pytest.raises(ChangeFailedError):
                await keep(user, place)
            assert in_place(user) is first
            await user.talk()


async def test_a_commit_that_fails_leaves_the_client_with_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(listener: Listener) -> None:
        raise BackendError("it can't be")

    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            first = in_place(user)
            monkeypatch.setattr(Listener, "activate", fail)
            with pytest.raises(BackendError, match="it can't be"):
                await keep(user, place)
            assert in_place(user) is first
            await user.talk()


@pytest.mark.parametrize("name", PLACES)
async def test_a_change_that_is_cancelled_leaves_the_client_with_the_original(
    name: str, tmp_path: Path
) -> None:
    async def hang(backend: object) -> None:
        if not scope.cancel_called:
            scope.cancel()
            await trio.sleep_forever()

    scope = trio.CancelScope()
    with place_for(name, tmp_path) as place:
        async with using(place, hang) as user:
            with scope:
                await keep(user, place)
            assert scope.cancelled_caught
            await user.talk()


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-abstract"])
async def test_who_comes_next_is_served_by_the_new_one(name: str, tmp_path: Path) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            await keep(user, place)
            assert user.peer is not None
            await user.peer.aclose()
            await until(lambda: not user.frontend.is_open)
            await user.meet(place)
            await user.talk()
            assert len(os.listdir(place.folder)) == (name == "socket-unix")


async def test_the_user_hears_opened_and_no_closed(tmp_path: Path) -> None:
    """As in every change from open to open."""
    events: list[BackendEvent] = []
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            await user.frontend.aclose()
            user.frontend = user.registry["c"].attach(be_change=stateless, on_event=events.append)
            await keep(user, place)
            assert events == [Event.OPENED, Event.OPENED]
            await user.talk()


@pytest.mark.parametrize("name", PLACES)
async def test_input_that_was_not_read_is_neither_lost_nor_repeated(
    name: str, tmp_path: Path
) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            expected = b""
            for i in range(50):
                expected += await user.send(b"%04d" % i * 250)
            await keep(user, place)
            expected += await user.send(b"more")
            assert await user.read(len(expected)) == expected


@pytest.mark.parametrize("name", PLACES)
async def test_a_writer_that_is_stuck_goes_on_with_the_same_client(
    name: str, tmp_path: Path
) -> None:
    message = bytes(range(256)) * 4096
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            assert isinstance(user.peer, trio.abc.ReceiveStream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(user.frontend.send_all, message)
                await wait_all_tasks_blocked()
                await keep(user, place)
                await keep(user, place)
                got = bytearray()
                with trio.fail_after(PATIENCE):
                    while len(got) < len(message):
                        got += await user.peer.receive_some()
            assert got == message


async def test_tcp_options_are_the_new_ones(tmp_path: Path) -> None:
    with place_for("socket-tcp", tmp_path) as place:
        async with using(place) as user:

            def options() -> tuple[bool, bool]:
                sock = in_place(user).there.link._sock  # type: ignore[union-attr]
                return (
                    bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
                    bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
                )

            assert options() == (False, False)
            address = in_place(user).address
            assert isinstance(address, InetAddress)
            for choice in (True, False):
                addr = attrs.evolve(address, keep_alive=choice)
                same = SocketOptions(addr=addr, nodelay=choice)
                await user.registry.change("c", same, keep_peer=True)
                assert options() == (choice, choice)


async def test_a_peer_of_its_own_is_let_go_for_the_one_that_is_kept(tmp_path: Path) -> None:
    """Two could come to one address: to the original, and to the new one by another way."""
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            ours, kept = socket.socketpair()
            ours.setblocking(False)
            kept.settimeout(PATIENCE)
            own = user.peer
            assert isinstance(own, trio.abc.ReceiveStream)
            with kept:
                in_place(user)._take_over(UnixConnection(ours, "unix:kept"))
                with trio.fail_after(PATIENCE):
                    assert await own.receive_some(1) == b""
                await user.frontend.send_all(b"to the one that is kept")
                assert kept.recv(100) == b"to the one that is kept"


# ---------------------------------------------------------------- when there is nobody to keep


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-abstract"])
async def test_a_server_without_a_client_is_changed_all_the_same(name: str, tmp_path: Path) -> None:
    with place_for(name, tmp_path) as place:
        async with using(attrs.evolve(place, join=None)) as user:
            await keep(user, place)
            assert not user.frontend.is_open
            await user.meet(place)
            await user.talk()


@pytest.mark.parametrize("comes", [True, False])
async def test_a_client_may_come_or_leave_during_the_change(comes: bool, tmp_path: Path) -> None:
    events: list[BackendEvent] = []
    with place_for("socket-unix", tmp_path) as place:
        async with using(attrs.evolve(place, join=None) if comes else place) as user:
            await user.frontend.aclose()

            async def be_change(backend: object) -> None:
                assert user.frontend.is_open is not comes
                if comes:
                    user.peer = socket_stream(dial(in_place(user).address))
                else:
                    assert user.peer is not None
                    await user.peer.aclose()
                await until(lambda: user.frontend.is_open is comes)

            user.frontend = user.registry["c"].attach(be_change=be_change, on_event=events.append)
            await keep(user, place)
            assert user.frontend.is_open is comes
            if comes:
                await user.talk()
            assert events == [Event.OPENED, Event.OPENED] if comes else [Event.OPENED, Event.CLOSED]


async def test_a_client_whose_server_leaves_during_the_change_stays_as_it_is(
    tmp_path: Path,
) -> None:
    with place_for("socket-unix-client", tmp_path) as place:
        async with using(place) as user:
            await user.frontend.aclose()

            async def be_change(backend: object) -> None:
                if user.frontend.is_open:
                    assert user.peer is not None
                    await user.peer.aclose()
                    await until(lambda: not user.frontend.is_open)

            first = in_place(user)
            user.frontend = user.registry["c"].attach(be_change=be_change)
            with pytest.raises(BackendError, match=r"^the peer at '.*' has left$"):
                await keep(user, place)
            assert in_place(user) is first


async def test_a_client_without_a_server_connects_anew(tmp_path: Path) -> None:
    with place_for("socket-unix-client", tmp_path) as place:
        async with using(place) as user:
            assert user.peer is not None
            await user.peer.aclose()
            await until(lambda: not user.frontend.is_open)
            await keep(user, place)
            await user.meet(place)
            await user.talk()


async def test_a_client_is_given_other_options_for_connecting_again(tmp_path: Path) -> None:
    with place_for("socket-unix-client", tmp_path) as place:
        async with using(place) as user:
            await keep(user, place, reconnect_ms=1)
            await user.talk()
            assert user.peer is not None
            await user.peer.aclose()
            with trio.fail_after(PATIENCE):
                while True:  # until it has connected again; before, a place would read it, too
                    with contextlib.suppress(BlockingIOError):
                        if user.frontend.is_open:
                            await user.meet(place)
                            break
                    await wait_all_tasks_blocked(0.001)
            await user.talk()


# ---------------------------------------------------------------- where it makes no sense


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-unix-client"])
@pytest.mark.parametrize(
    "options",
    [
        lambda folder: RingbufOptions(),
        lambda folder: PtyOptions(),
        lambda folder: SocketOptions(addr=UnixAddress(f"{folder}/other")),
        lambda folder: SocketOptions(addr=UnixAddress(f"{folder}/other"), server=False),
    ],
    ids=["ringbuf", "pty", "server", "client"],
)
async def test_another_address_is_refused(
    name: str, options: Callable[[Path], BackendOptions], tmp_path: Path
) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            with pytest.raises(ChangeRefusedError, match=OTHER_ADDRESS):
                await user.registry.change("c", options(tmp_path), keep_peer=True)
            await user.talk()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("option", ["telnet", "tn3270", "websocket"])
async def test_another_protocol_is_refused(option: str, tmp_path: Path) -> None:
    text = (
        r"^'keep-peer' requires the same 'tls-creds', 'tls-authz', 'websocket', 'binary-only', "
        r"'ws-path', 'telnet' and 'tn3270'$"
    )
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            with pytest.raises(BackendError, match=text):
                await keep(user, place, **{option: True})
            await user.talk()


# ---------------------------------------------------------------- protocols


async def come_speaking(option: str, backend: Backend) -> trio.abc.AsyncResource:
    if option == "tls_creds":
        return await come_by_tls(backend)
    if option == "telnet":
        return await come_to(backend, telnet_connection(is_server=False, tn3270=False))
    return await come_to(
        backend, websocket_connection(is_server=False, host="h", binary_only=False)
    )


@pytest.mark.parametrize("option", ["telnet", "websocket", "tls_creds"])
async def test_a_client_that_speaks_a_protocol_goes_on_in_the_midst_of_it(
    option: str, tmp_path: Path
) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    value = "server" if option == "tls_creds" else True
    options = SocketOptions(addr=address, **{option: value})  # type: ignore[arg-type]

    place = Place(options=options)
    async with using(Place(options=RingbufOptions())) as user:
        user.registry.objects["server"] = server_credentials(tmp_path / "server")
        await user.registry.change("c", options)
        await user.meet(attrs.evolve(place, join=partial(come_speaking, option)))
        await user.talk()
        await keep(user, place)
        await user.talk()
        message = bytes(range(256)) * 2048
        assert isinstance(user.peer, trio.abc.ReceiveStream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(user.frontend.send_all, message)
            await wait_all_tasks_blocked()
            await keep(user, place)
            got = bytearray()
            with trio.fail_after(PATIENCE):
                while len(got) < len(message):
                    got += await user.peer.receive_some()
        assert got == message


async def test_a_telnet_clients_break_goes_to_the_new_one(tmp_path: Path) -> None:
    """What the protocol has beside bytes is heard by the backend that has the client now."""
    events: list[BackendEvent] = []
    options = SocketOptions(addr=UnixAddress(str(tmp_path / "s")), telnet=True)
    place = Place(options=options)
    async with using(place) as user:
        peer = dial(in_place(user).address)
        with peer:
            await until(lambda: user.frontend.is_open)
            await keep(user, place)
            await user.frontend.aclose()
            user.frontend = user.registry["c"].attach(on_event=events.append)
            peer.send(b"\xff\xf3")
            await until(lambda: Event.BREAK in events)
