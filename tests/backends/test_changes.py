"""Changes between real backends: no byte is lost, and one that fails harms nothing.

Each goes through a registry, as a user's does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio._core._run as trio_run
from trio.testing import wait_all_tasks_blocked

from tests.places import Place, connect_to, dial, place_for
from tests.steps import SEEDS, steps
from tests.users import PATIENCE, Refuser, User, until, using
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChardevError,
)
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import CancelAtStep

# ---------------------------------------------------------------- from each kind to each

NAMES = [
    "null",
    "memory",
    "ringbuf",
    "replay",
    "file-with-fifo",
    "pipe",
    "pty",
    "serial",
    "stdio-pipes",
    "udp",
    "socket-unix",
    "socket-tcp",
    "socket-fd",
    "socket-unix-client",
    "mux",
    "hub",
    "hub-with-ringbuf",
]


@pytest.mark.parametrize("new", NAMES)
@pytest.mark.parametrize("old", NAMES)
async def test_each_byte_goes_to_one_backend_and_comes_from_one(
    old: str, new: str, tmp_path: Path
) -> None:
    if old == new == "stdio-pipes":
        pytest.skip("a process has one standard input")
    with place_for(old, tmp_path) as here, place_for(new, tmp_path) as there:
        fds = max(here.fds, there.fds)
        async with using(here, fds=fds) as user:
            came = await user.send(b"from the old;")
            assert await user.write(b"to the old;") == b"to the old;"
            old_peer = user.peer
            await user.change(there)
            if old_peer is not None:
                await old_peer.aclose()
            await user.meet(there)
            assert await user.write(b"to the new;") == b"to the new;"
            came += await user.send(b"from the new;")
            assert await user.read(len(came)) == came


@pytest.mark.parametrize(
    "old", ["pipe", "pty", "serial", "stdio-pipes", "udp", "socket-unix", "socket-tcp", "hub"]
)
async def test_unread_input_of_the_old_one_comes_first(old: str, tmp_path: Path) -> None:
    """More than the chardev keeps by itself, so the rest of it waits in the kernel."""
    with place_for(old, tmp_path) as here, place_for("pipe", tmp_path) as there:
        async with using(here, fds=here.fds) as user:
            expected = b""
            for i in range((INBOX_CAPACITY + 3000) // 1000):
                expected += await user.send(b"%04d" % i * 250)
            await wait_all_tasks_blocked()
            old_peer = user.peer
            await user.change(there)
            await user.meet(there)
            expected += await user.send(b"the new one's")
            assert await user.read(len(expected)) == expected
            assert old_peer is not None
            await old_peer.aclose()


# ---------------------------------------------------------------- to the same address

SAME = [
    "file",
    "pipe",
    "pty",
    "serial",
    "stdio-pipes",
    "stdio-terminal",
    "udp",
    "socket-unix",
    "socket-tcp",
    "socket-abstract",
]
SERVERS = {"socket-unix", "socket-tcp", "socket-abstract"}


def same_as(user: User, place: Place) -> Place:
    """*place* once more, with the port that the system has chosen."""
    backend = user.frontend.backend
    if isinstance(backend, SocketBackend):
        assert isinstance(place.options, SocketOptions)
        return attrs.evolve(place, options=attrs.evolve(place.options, addr=backend.address))
    return place


@pytest.mark.parametrize("name", SAME)
async def test_refused_change_to_the_same_address_leaves_the_original(
    name: str, tmp_path: Path
) -> None:
    refuser = Refuser()
    with place_for(name, tmp_path) as place:
        async with using(place, refuser.be_change, place.fds) as user:
            await user.talk()
            before = user.filename, user.frontend.is_open, os.listdir(place.folder)
            links = read_links(place)
            with pytest.raises(
                ChangeFailedError,
                match=r"^Chardev 'c' change failed: the frontend does not want this backend$",
            ):
                await user.change(same_as(user, place))
            assert len(refuser.asked) == 2
            assert refuser.asked[1] == user.filename
            assert (user.filename, user.frontend.is_open, os.listdir(place.folder)) == before
            assert read_links(place) == links
            await user.talk()
            if name == "file":
                assert read_output(place) == b"pingping"
            if name in SERVERS:  # others still find it
                assert user.peer is not None
                await user.peer.aclose()
                await until(lambda: not user.frontend.is_open)
                await user.meet(place)
                await user.talk()
        assert not [name for name in os.listdir(place.folder) if name.startswith(".")]


def read_output(place: Place) -> bytes:
    return Path(place.folder, "out").read_bytes()


def read_links(place: Place) -> list[str]:
    return [str(path.readlink()) for path in Path(place.folder).iterdir() if path.is_symlink()]


@pytest.mark.parametrize("name", SAME)
async def test_change_to_the_same_address_takes_it_over(name: str, tmp_path: Path) -> None:
    with place_for(name, tmp_path) as place:
        async with using(place, fds=place.fds) as user:
            await user.talk()
            first = user.frontend.backend
            files = os.listdir(place.folder)
            await user.change(again := same_as(user, place))
            assert user.frontend.backend is not first
            assert os.listdir(place.folder) == files
            if name in SERVERS:
                assert isinstance(user.peer, trio.SocketStream)
                with trio.fail_after(PATIENCE):
                    assert await user.peer.receive_some() == b""
                assert user.filename.startswith("disconnected:")
            if name in SERVERS or name in ("pty", "file"):  # else it stays
                assert user.peer is not None
                await user.peer.aclose()
                if name == "file":  # a thread empties it, soon
                    await until(lambda: read_output(place) == b"")
                await user.meet(again)
            await user.talk()
            if name == "file":
                assert read_output(place) == b"ping"
            if name == "pty":
                backend = user.frontend.backend
                assert read_links(place) == [backend.pty]
        assert not [name for name in os.listdir(place.folder) if name.startswith(".")]


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-abstract"])
async def test_who_waits_for_the_old_server_is_served_by_the_old_one_if_the_change_fails(
    name: str, tmp_path: Path
) -> None:
    """A client that comes while the change is under way, at an address that two have."""

    async def come_and_refuse(backend: Controls) -> None:
        if not late:
            late.append(dial(address))
            late[0].send(b"hello")
            await wait_all_tasks_blocked()
            raise ValueError("the frontend does not want this backend")

    late: list[socket.socket] = []
    with place_for(name, tmp_path) as place:
        async with using(place, come_and_refuse) as user:
            again = same_as(user, place)
            assert isinstance(again.options, SocketOptions)
            address = again.options.addr
            with pytest.raises(ChangeFailedError):
                await user.change(again)
            await user.talk()
            assert user.peer is not None
            await user.peer.aclose()
            [client] = late
            with client:
                assert await user.read(5) == b"hello"
                await user.frontend.send_all(b"your turn")
                assert client.recv(100) == b"your turn"


@pytest.mark.parametrize("append", [False, True])
async def test_same_log_file(append: bool, tmp_path: Path) -> None:
    refuser = Refuser()
    path = tmp_path / "log"
    place = Place(options=NullOptions(logfile=str(path), logappend=append))
    async with using(place, refuser.be_change) as user:
        await user.write(b"one ")
        with pytest.raises(ChangeFailedError):
            await user.change(place)
        await user.write(b"two ")
        await until(lambda: path.read_bytes() == b"one two ")
        await user.change(place)
        await user.write(b"three")
    assert path.read_bytes() == (b"one two three" if append else b"three")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("null", "null", "null"),
        ("ringbuf", "ringbuf", "ringbuf"),
        ("memory", "memory", "memory"),
        ("file", "file", "file"),
        ("pipe", "pipe", "pipe"),
        ("pty", "pty:{pty}", "pty:{pty}"),
        ("serial", "serial", "serial"),
        ("stdio-pipes", "stdio", "stdio"),
        ("udp", "udp", "udp"),
        ("socket-unix", "disconnected:unix:{at},server=on", "unix:{at},server=on"),
        ("socket-tcp", "disconnected:tcp:{at},server=on", "tcp:{at},server=on <-> {peer}"),
        (
            "socket-abstract",
            "disconnected:unix:{at},abstract=on,tight=on,server=on",
            "unix:{at},abstract=on,tight=on,server=on",
        ),
        ("socket-unix-client", "unix:{at}", "unix:{at}"),
        ("socket-tcp-client", "tcp:{peer} <-> {at}", "tcp:{peer} <-> {at}"),
    ],
)
async def test_query_names_the_backend_in_place(
    name: str, before: str, after: str, tmp_path: Path
) -> None:
    with place_for(name, tmp_path) as place:
        async with using(Place(options=NullOptions()), fds=place.fds) as user:
            assert user.filename == "null"
            await user.change(place)
            backend = user.frontend.backend
            words = {"pty": backend.pty, "at": "", "peer": ""}
            if isinstance(backend, SocketBackend):
                words["at"] = str(backend.address)
            at_once = user.filename
            await user.meet(place)
            if isinstance(user.peer, trio.SocketStream):
                ours, theirs = user.peer.socket.getsockname(), user.peer.socket.getpeername()
                end = theirs if name == "socket-tcp-client" else ours
                words["peer"] = f"{end[0]}:{end[1]}" if name.startswith("socket-tcp") else ""
            assert at_once == before.format(**words)
            assert user.filename == after.format(**words)


# ---------------------------------------------------------------- opens that fail


FAILING: list[tuple[Callable[[str], BackendOptions], str]] = [
    (lambda tmp: FileOptions(out=tmp), "Could not open '{tmp}': Is a directory"),
    (
        lambda tmp: FileOptions(out=f"{tmp}/out", in_=f"{tmp}/none"),
        "Could not open '{tmp}/none': No such file or directory",
    ),
    (
        lambda tmp: PipeOptions(device=f"{tmp}/none"),
        "Could not open '{tmp}/none': No such file or directory",
    ),
    (
        lambda tmp: SerialOptions(path=f"{tmp}/none"),
        "Could not open '{tmp}/none': No such file or directory",
    ),
    (lambda tmp: RingbufOptions(size=3), "size of ringbuf chardev must be power of two"),
    (
        lambda tmp: PtyOptions(path=f"{tmp}/plain"),
        "Failed to create PTY symlink '{tmp}/plain': File exists",
    ),
    (
        lambda tmp: NullOptions(logfile=f"{tmp}/none/log"),
        "Could not create '{tmp}/none/log': No such file or directory",
    ),
    (
        lambda tmp: SocketOptions(addr=UnixAddress("x" * 109)),
        f"UNIX socket path '{'x' * 109}' is too long",
    ),
    (
        lambda tmp: SocketOptions(addr=UnixAddress(f"{tmp}/none/s")),
        "Failed to bind socket to {tmp}/none/s: No such file or directory",
    ),
    (
        lambda tmp: SocketOptions(addr=UnixAddress(f"{tmp}/plain")),
        "Failed to bind socket to {tmp}/plain: Address already in use"
        " (what is there is not a socket)",
    ),
    (
        lambda tmp: SocketOptions(addr=InetAddress("127.0.0.1", "99999")),
        "address resolution failed for 127.0.0.1:99999: a port is at most 65535",
    ),
    (
        lambda tmp: SocketOptions(addr=InetAddress("h", "1", ipv4=False, ipv6=False)),
        "Cannot disable IPv4 and IPv6 at same time",
    ),
    (
        lambda tmp: SocketOptions(addr=UnixAddress(f"{tmp}/none"), server=False),
        "Failed to connect to '{tmp}/none': No such file or directory",
    ),
    (
        lambda tmp: SocketOptions(addr=FdAddress("none")),
        "File descriptor named 'none' has not been found",
    ),
    (
        lambda tmp: SocketOptions(addr=UnixAddress("s"), server=False, wait=True),
        "'wait' option is incompatible with socket in client connect mode",
    ),
    (lambda tmp: UdpOptions(remote=UnixAddress("s")), "socket type unsupported for datagram"),
    (lambda tmp: UdpOptions(remote=InetAddress("h", "")), "remote port not specified"),
]


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize(("options", "text"), FAILING, ids=range(len(FAILING)))
async def test_what_does_not_open_is_told_in_qemus_words(
    options: Callable[[str], BackendOptions], text: str, has_user: bool, tmp_path: Path
) -> None:
    """Without a user QEMU adds anew, says so, and has lost the old one by then; here it stays."""
    (tmp_path / "plain").write_bytes(b"precious")
    expected = text.format(tmp=tmp_path)
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            if not has_user:
                await user.frontend.aclose()
            files = os.listdir(tmp_path)
            with pytest.raises(ChardevError) as failed:
                await user.registry.change("c", options(str(tmp_path)), timeout=PATIENCE)
            prefix = "" if has_user else "Failed to change chardev 'c': "
            assert str(failed.value) == prefix + expected
            assert os.listdir(tmp_path) == files
            assert (tmp_path / "plain").read_bytes() == b"precious"
            if not has_user:
                user.frontend = user.registry["c"].attach()
            await user.talk()


@pytest.mark.parametrize("name", ["socket-unix", "socket-tcp", "socket-abstract", "stdio-pipes"])
async def test_address_of_another_chardev_is_refused(name: str, tmp_path: Path) -> None:
    texts = {
        "socket-unix": "Failed to bind socket to {at}: Address already in use"
        " (somebody listens there)",
        "socket-tcp": "Failed to find an available port: Address already in use",
        "socket-abstract": "Failed to bind socket to {at}: Address already in use",
        "stdio-pipes": "cannot use stdio by multiple character devices",
    }
    with place_for(name, tmp_path) as place:
        async with using(place, fds=place.fds) as user:
            backend = user.frontend.backend
            at = backend.address if isinstance(backend, SocketBackend) else ""
            await user.registry.add("other", RingbufOptions(size=64))
            with pytest.raises(BackendError) as failed:
                await user.registry.change("other", same_as(user, place).options)
            text = f"Failed to change chardev 'other': {texts[name].format(at=at)}"
            assert str(failed.value) == text
            assert isinstance(user.registry["other"].backend, RingbufBackend)
            await user.talk()


async def test_what_is_not_open_in_time_is_given_up(tmp_path: Path) -> None:
    waits = SocketOptions(addr=UnixAddress(str(tmp_path / "late")), wait=True)
    with place_for("socket-unix", tmp_path) as place:
        async with using(place) as user:
            files = os.listdir(tmp_path)
            with pytest.raises(BackendError, match=r"^not open after 0\.01 seconds$"):
                await user.registry.change("c", waits, timeout=0.01)
            assert os.listdir(tmp_path) == files
            await user.talk()


# ---------------------------------------------------------------- cancelled at every step

# A schedule is a seed: what pytest-trio does for hypothesis.
trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
SCHEDULES = int(SEEDS or 2)
MESSAGE = b"".join(b"%07d\n" % i for i in range(40_000))  # more than a socket's buffer takes
INPUT = b"".join(b"%03d\n" % i for i in range(200))


class Torn:
    """A change from a socket to a PTY, or back, with a writer and a reader, cancelled at step k."""

    def __init__(self, folder: Path, to_pty: bool, k: int, when: str) -> None:
        self.socket = SocketOptions(addr=UnixAddress(str(folder / "socket")))
        self.pty = PtyOptions(path=str(folder / "link"))
        self.folder = folder
        self.to_pty = to_pty
        self.scope = trio.CancelScope()
        self.injector = CancelAtStep(k, when, self.scope)
        self.got: list[bytearray] = []  # by each peer
        self.read = bytearray()
        self.written = False

    async def main(self) -> bool:
        """True if step k was reached."""
        old, new = (self.socket, self.pty) if self.to_pty else (self.pty, self.socket)
        trio.lowlevel.add_instrument(self.injector)
        async with open_registry_with(opener_of) as registry, trio.open_nursery() as nursery:
            self.nursery = nursery
            await registry.add("c", old)
            frontend = registry["c"].attach(be_change=stateless)
            peer = await self.come(registry)
            await until(lambda: frontend.is_open)
            nursery.start_soon(self.write, frontend)
            nursery.start_soon(self.receive, frontend)
            await peer.send_all(INPUT)
            self.injector.armed = True
            with self.scope:
                await registry.change("c", new, timeout=PATIENCE)
            self.injector.armed = False
            changed = not self.scope.cancelled_caught
            is_pty = self.to_pty is changed
            assert os.listdir(self.folder) == ["link" if is_pty else "socket"]
            if changed:
                peer = await self.come(registry)
            await until(lambda: self.written)
            await peer.send_all(b"end")
            await until(lambda: self.read.endswith(b"end"))
            await until(lambda: sum(map(len, self.got)) >= len(MESSAGE))
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(self.injector)
        assert os.listdir(self.folder) == []
        assert self.read == INPUT + b"end"
        assert b"".join(self.got) == MESSAGE
        return self.injector.fired

    async def come(self, registry: Registry) -> trio.abc.Stream:
        """Be the peer of the backend in place, and receive what comes."""
        backend = registry["c"].backend
        peer: trio.abc.Stream
        if backend.pty is None:
            peer = connect_to(backend)
        else:
            slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            peer = trio.lowlevel.FdStream(slave)
        self.got.append(got := bytearray())
        self.nursery.start_soon(collect, peer, got)
        return peer

    async def write(self, frontend: Frontend) -> None:
        rest = memoryview(MESSAGE)
        while rest:
            try:
                rest = rest[await frontend.send_some(rest) :]
            except BackendDisconnectedError:  # changed, and nobody is there yet
                await trio.sleep(0.0005)
        self.written = True

    async def receive(self, frontend: Frontend) -> None:
        while True:
            self.read += await frontend.receive_some()


async def collect(peer: trio.abc.Stream, got: bytearray) -> None:
    async with peer:
        with suppress(trio.BrokenResourceError):  # a PTY that was hung up
            while data := await peer.receive_some():
                got += data


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("to_pty", [True, False])
def test_cancelled_at_every_step_no_byte_is_lost(to_pty: bool, when: str, tmp_path: Path) -> None:
    endings = set()
    for seed in range(SCHEDULES):
        for k in steps(10_000):
            trio_run._r.seed(seed)
            run = Torn(tmp_path, to_pty, k, when)
            try:
                fired = trio.run(run.main)
            except BaseException as exc:
                exc.add_note(f"{k=} {seed=}")
                raise
            endings.add((fired, len(run.got)))
            if not fired:
                break
    # Cancelled and the original in place, cancelled too late, not cancelled at all.
    assert endings == {(True, 1), (True, 2), (False, 2)}
