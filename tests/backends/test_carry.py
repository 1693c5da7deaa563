"""carry on real descriptors: what Incus does by hand when somebody opens a VM's console.

Also what the kernel drops of an old backend's output if nobody waits for it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.matrix import eventually
from tests.places import Place, place_for
from tests.users import PATIENCE, Refuser, User, until, using
from trio_chardev.backends.descriptor import DescriptorBackend
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.errors import ChangeFailedError

OUTPUT = b"".join(b"%05d\n" % i for i in range(600))  # less than a PTY or a FIFO takes
MESSAGE = b"".join(b"%07d\n" % i for i in range(100_000))  # more than a socket takes
RING = Place(options=RingbufOptions(size=1 << 20))


async def change(user: User, place: Place, *, carry: bool = True) -> None:
    with trio.fail_after(PATIENCE):
        await user.registry.change(
            "c", place.options, carry=carry, take_fd=place.take_fd, drain_timeout=0.01
        )


async def receive(peer: trio.abc.AsyncResource | None, size: int) -> bytes:
    assert isinstance(peer, trio.abc.ReceiveStream)
    data = bytearray()
    with trio.fail_after(PATIENCE):
        while len(data) < size:
            data += await peer.receive_some(size - len(data))
    return bytes(data)


def ring_of(user: User) -> bytes:
    ring = user.frontend.backend
    assert isinstance(ring, RingbufBackend)
    return ring.read(ring.count)


PEERS = ["pipe", "pty", "serial", "stdio-pipes", "socket-unix", "socket-tcp", "socket-unix-client"]


@pytest.mark.parametrize("name", PEERS)
async def test_a_rings_content_is_the_first_that_the_new_peer_reads(
    name: str, tmp_path: Path
) -> None:
    """Whoever connects later gets it, too: nothing is written in between."""
    with place_for(name, tmp_path) as place:
        async with using(RING, fds=place.fds) as user:
            await user.frontend.send_all(OUTPUT)
            await change(user, place)
            await user.meet(place)
            assert await receive(user.peer, len(OUTPUT)) == OUTPUT
            assert await user.write(b"new") == b"new"


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp"])
async def test_the_console_of_incus(name: str, tmp_path: Path) -> None:
    """A ring, somebody opens the console, closes it, and a ring again: nothing is missing."""
    with place_for(name, tmp_path) as place:
        async with using(RING) as user:
            written, got = b"", b""
            for i in range(3):
                written += (line := b"%d: nobody looks\n" % i)
                await user.frontend.send_all(line)
                await change(user, place)
                await user.meet(place)
                written += (line := b"%d: somebody does\n" % i)
                await user.frontend.send_all(line)
                got += await receive(user.peer, len(written) - len(got))
                await change(user, RING)
                assert user.peer is not None
                await user.peer.aclose()
                user.peer = None
            assert got == written
            assert ring_of(user) == b"", "nothing is repeated"


async def test_nobody_came_and_it_is_in_the_ring_again(tmp_path: Path) -> None:
    with place_for("socket-unix", tmp_path) as place:
        async with using(RING) as user:
            await user.frontend.send_all(OUTPUT)
            await change(user, place)
            await change(user, RING)
            assert ring_of(user) == OUTPUT


async def test_a_client_that_reads_half_leaves_the_unsent_rest_to_the_ring(
    tmp_path: Path,
) -> None:
    """What its kernel has taken is its own; not a byte of the rest is lost."""
    with place_for("socket-unix", tmp_path) as place:
        async with using(RING) as user:
            await user.frontend.send_all(MESSAGE)
            await change(user, place)
            await user.meet(place)
            await wait_all_tasks_blocked()
            start = await receive(user.peer, 1000)
            old = user.peer
            await change(user, RING)
            assert isinstance(old, trio.abc.ReceiveStream)
            while more := await old.receive_some():
                start += more
            await old.aclose()
            user.peer = None
            rest = ring_of(user)
            assert 0 < len(rest) < len(MESSAGE)
            assert start + rest == MESSAGE


@pytest.mark.parametrize("name", ["pty", "pipe"])
async def test_what_nobody_has_read_of_a_pty_or_a_fifo_is_taken_back(
    name: str, tmp_path: Path
) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place) as user:
            await user.frontend.send_all(OUTPUT)
            read = await receive(user.peer, 100)
            await change(user, RING)
            assert read + ring_of(user) == OUTPUT


@pytest.mark.parametrize("name", ["pty", "pipe"])
async def test_a_writer_that_was_stuck_is_behind_what_was_taken_back(
    name: str, tmp_path: Path
) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place) as user, trio.open_nursery() as nursery:
            nursery.start_soon(user.frontend.send_all, MESSAGE)
            await wait_all_tasks_blocked(0.001)
            await change(user, RING)
            await until(lambda: not user.registry["c"]._parts.outbox._write_lock.locked())
            assert ring_of(user) == MESSAGE


async def test_a_fifo_that_was_made_larger_is_taken_back_too(tmp_path: Path) -> None:
    with place_for("pipe", tmp_path) as place:
        async with using(place) as user:
            backend = user.frontend.backend
            assert isinstance(backend, DescriptorBackend)
            fcntl.fcntl(backend.sink.fd, fcntl.F_SETPIPE_SZ, 1 << 20)
            await user.frontend.send_all(MESSAGE)
            assert backend.leaving.take_back() == MESSAGE
            assert backend.leaving.take_back() == b""


async def test_of_a_fifo_for_both_ways_nothing_is_taken_back(tmp_path: Path) -> None:
    """It can't be told from input."""
    os.mkfifo(tmp_path / "both")
    place = Place(options=PipeOptions(device=str(tmp_path / "both")))
    async with using(place) as user:
        await user.frontend.send_all(b"echo")
        assert await user.read(4) == b"echo"
        await user.frontend.send_all(b"more")
        await change(user, RING)
        assert ring_of(user) == b""
        assert await user.read(4) == b"more"


async def test_a_change_that_fails_leaves_the_ring_as_it_is(tmp_path: Path) -> None:
    refuser = Refuser()
    with place_for("socket-unix", tmp_path) as place:
        async with using(RING, refuser.be_change) as user:
            await user.frontend.send_all(OUTPUT)
            with pytest.raises(ChangeFailedError):
                await change(user, place)
            assert ring_of(user) == OUTPUT


async def test_a_smaller_ring_keeps_the_newest() -> None:
    async with using(RING) as user:
        await user.frontend.send_all(OUTPUT)
        await change(user, Place(options=RingbufOptions(size=1024)))
        assert ring_of(user) == OUTPUT[-1024:]


async def test_a_log_has_it_once(tmp_path: Path) -> None:
    """It was logged when it was written."""
    log = tmp_path / "log"
    logged = Place(options=RingbufOptions(logfile=str(log), logappend=True))
    async with using(logged) as user:
        await user.frontend.send_all(b"once ")
        await change(user, logged)
        await user.frontend.send_all(b"more")
    assert log.read_bytes() == b"once more"


# ---------------------------------------------------------------- what the kernel would drop


async def test_a_tcp_peer_gets_all_though_it_has_sent_what_nobody_has_read(
    tmp_path: Path,
) -> None:
    """close(2) with unread input is a reset, which drops what is still to be sent (RFC 2525)."""
    with place_for("socket-tcp", tmp_path) as place:
        async with using(place) as user:
            assert isinstance(user.peer, trio.SocketStream)
            sent = 0
            while more := user.frontend.try_send(MESSAGE[sent : sent + 10_000]):
                sent += more
            sock = user.frontend.backend.there.link._sock  # type: ignore[attr-defined]
            sock.shutdown(socket.SHUT_RD)  # what comes now is not read by the commit
            await user.peer.send_all(b"typed meanwhile")
            await change(user, RING, carry=False)
            assert await receive(user.peer, sent) == MESSAGE[:sent]
            with trio.fail_after(PATIENCE):
                assert await user.peer.receive_some() == b""


async def test_a_fifo_is_given_the_drain_timeout_for_a_reader_that_is_late(
    tmp_path: Path,
) -> None:
    """The last to close a FIFO drops what is in it."""
    with place_for("pipe", tmp_path) as place:
        async with using(Place(options=place.options)) as user, trio.open_nursery() as nursery:
            assert place.join is not None
            await user.frontend.send_all(OUTPUT)
            old = user.frontend.backend

            async def read() -> None:
                await eventually(lambda: user.frontend.backend is not old)
                assert place.join is not None
                async with await place.join(old) as peer:
                    assert await receive(peer, len(OUTPUT)) == OUTPUT

            nursery.start_soon(read)
            with trio.fail_after(PATIENCE):
                await user.registry.change("c", RING.options, drain_timeout=PATIENCE)
