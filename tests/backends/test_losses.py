"""What QEMU loses, stalls or leaves dead in a change, and what happens here instead.

Each test says what QEMU 7.2 does. For what other modules already test see docs/guarantees.md.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.matrix import eventually
from tests.places import Place, dial, place_for
from tests.users import PATIENCE, Refuser, until, using
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.core.controls import Controls
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
)

MESSAGE = bytes(range(256)) * 8192  # more than a socket takes
RING = RingbufOptions(size=1 << 22)


# ---------------------------------------------------------------- what blocks the whole process


async def test_a_change_to_a_server_that_waits_for_its_client_holds_up_nobody(
    tmp_path: Path,
) -> None:
    """QEMU: the guest and all monitors stand still until somebody connects."""
    waiting = SocketOptions(addr=UnixAddress(str(tmp_path / "s")), wait=True)
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user, trio.open_nursery() as nursery:
            nursery.start_soon(user.registry.change, "c", waiting)
            await until((tmp_path / "s").is_socket)
            await wait_all_tasks_blocked()
            await user.talk()
            await user.registry.add("other", RING)
            await user.registry.change("other", NullOptions())
            with dial(waiting.addr):
                ours = user.registry["c"]
                await until(lambda: ours.backend.filename == f"unix:{tmp_path}/s,server=on")


async def test_a_change_to_a_client_of_a_server_that_is_busy_holds_up_nobody(
    tmp_path: Path,
) -> None:
    """QEMU: connect(2) blocks in it, as long as the server's queue is full."""
    path = str(tmp_path / "busy")
    with (
        place_for("socket-unix", tmp_path) as place,
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as first,
    ):
        server.bind(path)
        server.listen(0)
        first.connect(path)
        async with using(place) as user, trio.open_nursery() as nursery:
            connecting = SocketOptions(addr=UnixAddress(path), server=False)
            nursery.start_soon(user.registry.change, "c", connecting)
            await wait_all_tasks_blocked(0.001)
            await user.talk()
            nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- what a failed change leaves behind


async def test_after_a_failed_change_the_frontend_is_open_as_before(tmp_path: Path) -> None:
    """QEMU: query-chardev says that it is not, until it sets its handlers again."""
    refuser = Refuser()
    with place_for("socket-unix", tmp_path) as place:
        async with using(place, refuser.be_change) as user:
            before = user.registry.query()
            assert before[0].frontend_open
            with pytest.raises(ChangeFailedError):
                await user.change(Place(options=NullOptions()))
            assert user.registry.query() == before


async def test_a_failed_change_to_its_own_file_leaves_no_hole_in_it(tmp_path: Path) -> None:
    """QEMU: it is truncated, and the original goes on at its old offset, behind NULs."""
    refuser = Refuser()
    with place_for("file", tmp_path) as place:
        assert isinstance(place.options, FileOptions)
        async with using(place, refuser.be_change) as user:
            await user.write(b"precious ")
            with pytest.raises(ChangeFailedError):
                await user.change(place)
            await user.write(b"and whole")
            assert await trio.Path(place.options.out).read_bytes() == b"precious and whole"


@pytest.mark.parametrize("name", ["stdio-pipes", "stdio-terminal"])
async def test_stdio_is_live_after_a_failed_change_to_itself_and_one_that_succeeds(
    name: str, tmp_path: Path
) -> None:
    """QEMU: the first is refused, the second succeeds and leaves a chardev that is dead."""
    refuser = Refuser()
    with place_for(name, tmp_path) as place:
        async with using(place, refuser.be_change, place.fds) as user:
            with pytest.raises(ChangeFailedError):
                await user.change(place)
            await user.talk()
            for _ in range(3):
                await user.change(place)
                await user.talk()


@pytest.mark.parametrize("has_user", [True, False])
async def test_a_backend_that_does_not_open_costs_nothing_of_a_rings_content(
    has_user: bool, tmp_path: Path
) -> None:
    """QEMU: without a user the ring is gone, and its id with it."""
    async with using(Place(options=RING)) as user:
        await user.frontend.send_all(b"content")
        if not has_user:
            await user.frontend.aclose()
        with pytest.raises(BackendError):
            await user.registry.change("c", FileOptions(out=f"{tmp_path}/missing/out"), carry=True)
        ring = user.registry["c"].backend
        assert isinstance(ring, RingbufBackend)
        assert ring.read(100) == b"content"


# ---------------------------------------------------------------- who is at the address


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-abstract"])
@pytest.mark.parametrize("is_kept", [True, False])
async def test_who_waits_in_the_queue_is_served_by_the_new_server_of_the_same_address(
    name: str, is_kept: bool, tmp_path: Path
) -> None:
    """QEMU: it sees the end of the connection, or at TCP the change is refused."""
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            backend = user.frontend.backend
            assert isinstance(backend, SocketBackend)
            with dial(backend.address) as late:
                late.send(b"hello")
                same = SocketOptions(addr=backend.address)
                await user.registry.change("c", same, keep_peer=is_kept)
                assert user.peer is not None
                await user.peer.aclose()
                assert await user.read(5) == b"hello"
                await user.frontend.send_all(b"your turn")
                assert late.recv(100) == b"your turn"


async def test_who_waits_is_handed_on_from_change_to_change_and_let_go_in_the_end(
    tmp_path: Path,
) -> None:
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            assert isinstance(place.options, SocketOptions)
            with dial(place.options.addr) as late, dial(place.options.addr) as later:
                for _ in range(3):
                    await user.registry.change("c", place.options, keep_peer=True)
                assert user.peer is not None
                await user.peer.aclose()
                late.send(b"hello")
                assert await user.read(5) == b"hello"
                await user.change(Place(options=NullOptions()))
                assert late.recv(1) == b""
                assert later.recv(1) == b""


# ---------------------------------------------------------------- a writer that was blocked


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("options", [NullOptions(), RING], ids=["null", "ringbuf"])
async def test_a_blocked_writer_goes_on_with_a_backend_that_never_blocks(
    options: NullOptions | RingbufOptions, carry: bool, tmp_path: Path
) -> None:
    """QEMU: a UART waits for a watch that null and ringbuf do not have, and never sends again."""
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user, trio.open_nursery() as nursery:
            nursery.start_soon(user.frontend.send_all, MESSAGE)
            await wait_all_tasks_blocked()
            with trio.fail_after(PATIENCE):
                await user.registry.change("c", options, carry=carry)
                await user.frontend.send_all(b"and more")
            ring = user.registry["c"].backend
            if isinstance(ring, RingbufBackend):
                rest = ring.read(ring.count)
                assert (MESSAGE + b"and more").endswith(rest)
                assert 8 < len(rest) < len(MESSAGE)


async def test_a_blocked_writer_hears_that_nobody_is_at_the_new_backend_and_may_go_on(
    tmp_path: Path,
) -> None:
    """QEMU: a UART waits for a watch that a server without a client does not have."""
    with place_for("socket-unix", tmp_path) as place, place_for("socket-tcp", tmp_path) as there:
        async with using(place) as user:
            got = bytearray()
            sent = 0

            async def write() -> None:
                nonlocal sent
                while sent < len(MESSAGE):
                    try:
                        sent += await user.frontend.send_some(MESSAGE[sent:])
                    except BackendDisconnectedError:
                        heard.set()
                        await trio.sleep(0.001)

            async def receive(peer: trio.abc.AsyncResource | None) -> None:
                assert isinstance(peer, trio.abc.ReceiveStream)
                while data := await peer.receive_some():
                    got.extend(data)

            heard = trio.Event()
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write)
                    await wait_all_tasks_blocked()
                    old = user.peer
                    await user.change(there)
                    await heard.wait()
                    await receive(old)
                    await user.meet(there)
                    nursery.start_soon(receive, user.peer)
                    await eventually(lambda: len(got) >= len(MESSAGE))
                    nursery.cancel_scope.cancel()
            assert got == MESSAGE
            assert old is not None
            await old.aclose()


async def test_a_paused_user_takes_changes(tmp_path: Path) -> None:
    """QEMU: a virtio port has no handlers while the VM is paused, and a change is refused."""
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            await user.send(b"before;")
            user.frontend.pause_input()
            ring = Place(options=RING)
            await user.change(ring)
            user.frontend.accept_input()
            assert await user.read(7) == b"before;"


async def test_it_is_the_user_that_decides_not_what_it_uses(tmp_path: Path) -> None:
    """QEMU: monitors, parallel ports and the like refuse; here a user that gives no be_change."""
    async with using(Place(options=NullOptions())) as user:
        await user.frontend.aclose()
        user.frontend = user.registry["c"].attach()
        text = "^Chardev user does not support chardev hotswap\n"
        with pytest.raises(ChangeRefusedError, match=text):
            await user.change(Place(options=FileOptions(out=str(tmp_path / "untouched"))))
        assert os.listdir(tmp_path) == []


async def test_a_user_learns_of_the_backend_by_its_handler_and_its_name(tmp_path: Path) -> None:
    """QEMU: until 6.0 the new backend had no label while it opened, and crashed (f36b0efd7f)."""
    seen: list[str] = []

    async def be_change(backend: Controls) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(backend.filename)

    with place_for("socket-unix", tmp_path) as place:
        async with using(Place(options=NullOptions()), be_change) as user:
            await user.change(place)
            assert seen == [user.filename]
            assert user.frontend.backend.id == "c"
