"""Commands about descriptors and connections: compared with the emulator, and what it can't show.

QEMU's storage daemon has none of them, so the emulator itself is asked, without a machine.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.peers import need
from tests.services import Qmp, running, until
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core.handlers import stateless
from trio_chardev.core.reactor import get_reactor
from trio_chardev.errors import BackendError
from trio_chardev.qmp.client.client import QmpClient, QmpConnectionError, QmpError, open_qmp_client
from trio_chardev.qmp.commands.context import Context, Host, NoArguments
from trio_chardev.qmp.commands.descriptor import query_yank
from trio_chardev.qmp.server import dispatcher
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

PATIENCE = 5  # seconds
MONITOR = "compat_monitor0"  # what the emulator calls that of -qmp


class FdQmp(Qmp):
    """Passes descriptors too, and gives the class of an error that is not generic."""

    def run(self, name: str, arguments: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
        wire = json.dumps({"execute": name, "arguments": arguments}).encode()
        socket.send_fds(self._sock, [wire], fds)
        reply = self.read()
        if "return" in reply:
            return reply["return"]
        error = reply["error"]
        prefix = "" if error["class"] == "GenericError" else f"{error['class']}: "
        return prefix + error["desc"]


def count_fds(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# ---------------------------------------------------------------- beside the emulator


@attrs.frozen
class Step:
    """A command, the descriptors that go with it, and our answer if it is not the emulator's."""

    name: str
    arguments: dict[str, Any]
    fds: str
    ours: Any


def step(name: str, fds: str = "", *, ours: Any = None, **arguments: Any) -> Step:
    """*fds* are letters: those of `descriptors`."""
    return Step(name, {key.replace("_", "-"): arguments[key] for key in arguments}, fds, ours)


@contextmanager
def descriptors() -> Iterator[dict[str, int]]:
    """n: /dev/null, w: a file to be written, r and p: ends of a pipe, s and t: sockets that are
    connected, u: one that is not, l: one that listens, d: one of datagrams."""
    with ExitStack() as stack:
        null = os.open("/dev/null", os.O_RDWR)
        reader, writer = os.pipe()
        file = stack.enter_context(tempfile.TemporaryFile())
        only_written = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY)
        pairs = [stack.enter_context(s) for _ in "st" for s in socket.socketpair()]
        unconnected, listener = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in "ul")
        listener.bind("")
        listener.listen()
        datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        for fd in (null, reader, writer, only_written):
            stack.callback(os.close, fd)
        sockets = {"s": pairs[0], "t": pairs[2], "u": unconnected, "l": listener, "d": datagram}
        fds = {letter: sock.fileno() for letter, sock in sockets.items()}
        yield fds | {"n": null, "r": reader, "p": writer, "w": only_written}


def named(name: str = "n", fds: str = "n") -> Step:
    return step("getfd", fds, fdname=name)


def is_gone(name: str = "n") -> Step:
    """The descriptor is not the monitor's any more."""
    return step("closefd", fdname=name)


def add(id: str, kind: str, *, ours: Any = None, **data: Any) -> Step:
    data = {key.replace("_", "-").rstrip("-"): value for key, value in data.items()}
    return step("chardev-add", ours=ours, id=id, backend={"type": kind, "data": data})


def add_fd_socket(id: str, name: str, *, server: bool, ours: Any = None) -> Step:
    addr = {"type": "fd", "data": {"str": name}}
    return add(id, "socket", addr=addr, server=server, ours=ours)


def remove(id: str, *, ours: Any = None) -> Step:
    return step("chardev-remove", id=id, ours=ours)


def add_client(id: str, *, ours: Any = None, **more: bool) -> Step:
    return Step("add_client", {"protocol": id, "fdname": "n", **more}, "", ours)


def yank(*ids: str) -> Step:
    return step("yank", instances=[{"type": "chardev", "id": id} for id in ids])


def file_at(path: str, **data: Any) -> tuple[Step, ...]:
    """Add and remove a file chardev."""
    return add("f", "file", out=path, **data), remove("f")


QUERY = step("query-chardev")
NO_FD_SET = "Failed to add chardev 'f': Could not open '/dev/fdset/{}': Invalid argument"
GONE = remove("f", ours="Chardev 'f' not found")
NOT_ADDED = "Failed to add chardev 'a': "

SCRIPTS: dict[str, list[Step]] = {
    "getfd": [
        step("getfd", fdname="x"),
        named("1x"),
        named(""),
        is_gone(""),
        named("x"),
        named("x", "r"),
        named("é"),
        is_gone("é"),
        is_gone("x"),
        is_gone("x"),
        step("closefd"),
    ],
    "of two descriptors in a message the first counts": [
        named("x", "nrw"),
        step("getfd", fdname="y"),
        is_gone("x"),
    ],
    "a descriptor of an earlier message": [
        step("query-fdsets", "n"),
        step("query-fdsets"),
        step("getfd", fdname="x"),
        step("getfd", fdname="y"),
        step("query-fdsets", "n"),
        step("query-fdsets", "rw"),
        step("getfd", fdname="x"),
        is_gone("x"),
    ],
    "a descriptor with a command that is refused": [
        step("getfd", "n", fdname=3),
        step("getfd", fdname="x"),
        is_gone("x"),
        step("nonsense", "n"),
        step("getfd", fdname="x"),
        is_gone("x"),
    ],
    "no such descriptor for a chardev": [
        add_fd_socket("a", "x", server=False),
        add_fd_socket("a", "x", server=True),
        add_fd_socket("a", "2", server=False),
        add_fd_socket("a", "", server=False),
    ],
    "a descriptor is consumed though the add fails": [
        *(named(), add_fd_socket("a", "n", server=False), is_gone()),
        *(named(), add_fd_socket("a", "n", server=True), is_gone()),
        *(named(fds="u"), add_fd_socket("a", "n", server=True), is_gone()),
        *(named(fds="s"), add_fd_socket("a", "n", server=True), is_gone()),
        # The emulator makes a chardev of what was never a connection.
        named(fds="d"),
        add_fd_socket(
            "a", "n", server=False, ours=NOT_ADDED + "File descriptor 'n' is not a stream socket"
        ),
        *(is_gone(), remove("a", ours="Chardev 'a' not found")),
        named(fds="u"),
        add_fd_socket(
            "a",
            "n",
            server=False,
            ours=NOT_ADDED + "Failed to connect to 'n': Transport endpoint is not connected",
        ),
        *(is_gone(), remove("a", ours="Chardev 'a' not found")),
    ],
    "a descriptor is kept when the arguments are wrong": [
        named(),
        add("a", "socket", addr={"type": "fd", "data": {"str": "n"}}, server=1),
        is_gone(),
    ],
    "a chardev of a connected descriptor": [
        *(named(fds="s"), add_fd_socket("a", "n", server=False), is_gone()),
        *(QUERY, step("query-yank"), remove("a"), step("query-yank")),
    ],
    "a chardev of a listening descriptor": [
        *(named(fds="l"), add_fd_socket("a", "n", server=True), is_gone()),
        *(step("query-yank"), remove("a")),
    ],
    "add_client": [
        add_client("a"),
        *(named(fds="s"), add_client("a"), is_gone()),
        add("a", "null"),
        *(named(fds="s"), add_client("a"), is_gone()),
        remove("a"),
        *(named(fds="s"), add_client(MONITOR), is_gone()),
    ],
    "add_client to a server without address": [
        add_fd_socket("a", "", server=True),
        QUERY,
        *(named(fds="s"), add_client("a"), is_gone(), QUERY),
        *(named(fds="t"), add_client("a"), is_gone(), QUERY),
        *(yank("a"), QUERY),
        *(named(fds="t"), add_client("a"), QUERY),
        remove("a"),
    ],
    "add_client to a client that was cut off": [
        *(named(fds="s"), add_fd_socket("a", "n", server=False), yank("a"), QUERY),
        *(named(fds="t"), add_client("a"), is_gone(), QUERY),
        remove("a"),
    ],
    "add_client with what is no client": [
        add_fd_socket("a", "", server=True),
        *(named(), add_client("a", ours="File descriptor 'n' is not a socket"), is_gone()),
        QUERY,
        # The emulator has it as a client for a moment.
        *(named(fds="u"), add_client("a", ours="failed to add client"), is_gone(), QUERY),
        remove("a"),
    ],
    "add_client with datagrams": [
        add_fd_socket("a", "", server=True),
        *(named(fds="d"), add_client("a", ours="File descriptor 'n' is not a stream socket")),
        *(is_gone(), remove("a")),
    ],
    "add_client with what is for displays": [
        add_fd_socket("a", "", server=True),
        named(fds="s"),
        add_client(
            "a",
            skipauth=True,
            ours="'skipauth' and 'tls' are for VNC and SPICE, which are not here",
        ),
        step("closefd", fdname="n", ours={}),  # a wrong argument, so it is kept
        remove("a"),
    ],
    "yank": [
        add("n", "null"),
        *(named(fds="s"), add_fd_socket("a", "n", server=False)),
        step("query-yank"),
        *(yank("n"), yank("x"), yank("a", "x"), QUERY),
        step("yank"),
        step("yank", instances={"type": "chardev", "id": "a"}),
        step("yank", instances=[{"type": "chardev"}]),
        step("yank", instances=[{"id": "a"}]),
        step("yank", instances=[{"type": "x", "id": "a"}]),
        step("yank", instances=[{"type": "chardev", "id": "a", "x": 1}]),
        step(
            "yank",
            instances=[{"type": "migration"}],
            ours="Parameter 'type' does not accept value 'migration'",
        ),
        *(yank(), QUERY, yank("a", "a"), QUERY, step("query-yank"), yank("a")),
        *(remove("a"), remove("n"), step("query-yank")),
    ],
    "fd sets": [
        step("add-fd"),
        step("add-fd", "n", fdset_id=-1),
        step("add-fd", "n", fdset_id="1"),
        step("add-fd", "n", fdset_id=1 << 63),
        step("add-fd"),
        *(step("add-fd", "n", fdset_id=5, opaque="o"), step("add-fd", "n"), step("add-fd", "n")),
        *(step("add-fd", "n", fdset_id=1), step("add-fd", "n", fdset_id=5, opaque="")),
        *(step("add-fd", "nrw", fdset_id=2), step("add-fd", "n", fdset_id=(1 << 63) - 1)),
        step("query-fdsets"),
        step("remove-fd"),
        step("remove-fd", fdset_id=9),
        step("remove-fd", fdset_id=9, fd=3),
        step("remove-fd", fdset_id=5, fd=999),
        step("remove-fd", fdset_id=-1),
        *(step("remove-fd", fdset_id=5), step("remove-fd", fdset_id=5)),
        step("query-fdsets"),
        step("add-fd", "n"),
        *(step("remove-fd", fdset_id=id) for id in (0, 1, 2, 3, (1 << 63) - 1)),
        step("query-fdsets"),
    ],
    "opening a descriptor of an fd set": [
        *(step("add-fd", fds, fdset_id=id) for id, fds in enumerate("rwnp")),
        *(line for id in range(3) for line in file_at(f"/dev/fdset/{id}")),
        *file_at("/dev/fdset/9"),
        *file_at("/dev/fdset/01"),
        *file_at("//dev/fdset/1"),
        *file_at("/dev/fdset/1", append=True),
        # The emulator truncates whatever it is.
        *(add("f", "file", out="/dev/fdset/3", ours={}), remove("f", ours={})),
        *file_at("/dev/fdset/3", append=True),
        *(
            line
            for name in ("", "x", "-1", "1/", "0x1", "1\n", "٣", "9" * 20, "9" * 5000)
            for line in file_at(f"/dev/fdset/{name}")
        ),
        # These two it takes, as strtol(3) does.
        *(add("f", "file", out="/dev/fdset/ 1", ours=NO_FD_SET.format(" 1")), GONE),
        *(add("f", "file", out="/dev/fdset/+1", ours=NO_FD_SET.format("+1")), GONE),
        *file_at("/dev/null", in_="/dev/fdset/0"),
        *file_at("/dev/null", in_="/dev/fdset/1"),
        *file_at("/dev/fdset/1", in_="/dev/fdset/0"),
        *file_at("/dev/null", logfile="/dev/fdset/1"),
        add(
            "f",
            "file",
            out="/dev/null",
            logfile="/dev/fdset/0",
            ours="Failed to add chardev 'f': Could not create '/dev/fdset/0': Permission denied",
        ),
        *(
            line
            for kind in ("pipe", "serial")  # with "parallel" the emulator closes its own fd 0
            for id in (1, 2)
            for line in (add("f", kind, device=f"/dev/fdset/{id}"), remove("f"))
        ),
        *(step("remove-fd", fdset_id=id) for id in range(4)),
    ],
    "a set may be removed while its descriptor is in use": [
        step("add-fd", "w", fdset_id=3),
        add("f", "file", out="/dev/fdset/3"),
        *(step("remove-fd", fdset_id=3), step("query-fdsets"), remove("f")),
        step("query-fdsets"),
    ],
}


@attrs.define
class Side:
    """One of the two that are compared."""

    qmp: FdQmp
    pid: int

    def run(self, step: Step, fds: dict[str, int]) -> Any:
        passed = tuple(fds[letter] for letter in step.fds)
        return tidy(self.qmp.run(step.name, step.arguments, passed))


def tidy(answer: Any) -> Any:
    """Without what differs by nature: numbers of descriptors, the order of lists, the monitor.

    The emulator also shows sets that were removed, without a descriptor, while one is in use.
    """
    if isinstance(answer, list):
        rows = [tidy(row) for row in answer if row.get("label", row.get("id")) != MONITOR]
        return sorted((row for row in rows if row.get("fds") != []), key=str)
    if isinstance(answer, dict):
        return {key: tidy(answer[key]) for key in sorted(answer) if key != "fd"}
    return answer


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """The emulator and ours."""
    emulator, folder = need("qemu-system-x86_64"), tmp_path_factory.mktemp("fds")
    with ExitStack() as stack:
        process = subprocess.Popen(
            [
                *(emulator, "-display", "none", "-nodefaults", "-machine", "none"),
                *("-qmp", f"unix:{folder}/qemu,server=on,wait=on"),
            ]
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        service = stack.enter_context(
            running(
                *("--chardev", f"socket,id={MONITOR},path={folder}/ours,server=on,wait=off"),
                *("--monitor", MONITOR),
            )
        )
        theirs, ours = FdQmp(folder / "qemu"), FdQmp(folder / "ours")
        with theirs, ours:
            ours("query-chardev-backends")  # waits for what is imported, by descriptors of its own
            yield Side(theirs, process.pid), Side(ours, service.process.pid)


def eventually(get: Callable[[], Any], expected: Callable[[], Any]) -> tuple[Any, Any]:
    """Both, equal if they become so: a connection that is cut off is noticed a moment later."""
    deadline = time.monotonic() + 30
    while (pair := (get(), expected()))[0] != pair[1] and time.monotonic() < deadline:
        time.sleep(0.002)
    return pair


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_the_emulator(sides: tuple[Side, Side], name: str) -> None:
    """In the end, both have as many descriptors open as before."""
    theirs, ours = sides
    before = [count_fds(side.pid) for side in sides]
    with descriptors() as fds:
        for line in SCRIPTS[name]:
            their_answer, our_answer = theirs.run(line, fds), ours.run(line, fds)
            if line.name.startswith("query-") and not line.fds:
                our_answer, their_answer = eventually(
                    functools.partial(ours.run, line, fds), functools.partial(theirs.run, line, fds)
                )
            if line.ours is not None:
                assert line.ours != their_answer, f"{line} is a difference no more"
            expected = their_answer if line.ours is None else line.ours
            assert our_answer == expected, line
    after, _ = eventually(lambda: [count_fds(side.pid) for side in sides], lambda: before)
    assert after == before


# ---------------------------------------------------------------- descriptors do not leak


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "q"


def options(path: Path, *, wait: bool | None = None) -> SocketOptions:
    return SocketOptions(addr=UnixAddress(str(path)), wait=wait)


def backend_at(path: Path, **data: Any) -> dict[str, Any]:
    """A socket backend that listens, as JSON."""
    addr = {"type": "unix", "data": {"path": str(path)}}
    return {"type": "socket", "data": {"addr": addr, **data}}


async def test_what_a_client_leaves_behind_is_closed_with_its_monitor(path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        get_reactor()  # its descriptor stays
        before = count_fds()
        with descriptors() as fds:
            given = [fds["n"], fds["r"]]
            within = count_fds()
            async with open_qmp_client(path) as qmp:
                await qmp.execute("getfd", fdname="x", fds=given)
                await qmp.execute("query-version", fds=given)
            with trio.fail_after(PATIENCE):
                await until(lambda: count_fds() == within)
        assert count_fds() == before


async def test_names_and_sets_outlive_the_client_of_a_chardevs_monitor(path: Path) -> None:
    """The emulator closes unused sets with its last client."""
    get_reactor()  # its descriptor stays
    before = count_fds()
    async with open_service() as service:
        await service.registry.add("m", options(path))
        await service.add_monitor("m")
        with descriptors() as fds:
            async with open_qmp_client(path) as qmp:
                await qmp.execute("getfd", fdname="x", fds=[fds["n"]])
                await qmp.execute("add-fd", fdset_id=3, fds=[fds["n"]])
        async with open_qmp_client(path) as qmp:
            await qmp.execute("closefd", fdname="x")
            assert [row["fdset-id"] for row in await qmp.execute("query-fdsets")] == [3]
            with descriptors() as fds:
                await qmp.execute("getfd", fdname="y", fds=[fds["n"]])
    with trio.fail_after(PATIENCE):
        await until(lambda: count_fds() == before)  # a thread closes what a client has passed


async def test_names_are_of_one_monitor_and_sets_of_all(path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        async with open_qmp_client(path) as one, open_qmp_client(path) as other:
            with descriptors() as fds:
                await one.execute("getfd", fdname="x", fds=[fds["n"]])
                await one.execute("add-fd", fds=[fds["n"]])
            with pytest.raises(QmpError, match="^File descriptor named 'x' not found$"):
                await other.execute("closefd", fdname="x")
            await other.execute("remove-fd", fdset_id=0)


async def test_no_descriptor_comes_over_tcp() -> None:
    async with open_service() as service:
        name = await service.listen_qmp(SocketOptions(addr=InetAddress("127.0.0.1", "0")))
        with socket.create_connection(("127.0.0.1", int(name.rsplit(":", 1)[1]))) as sock:
            sock.setblocking(False)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            async with open_qmp_client(stream) as qmp:
                with pytest.raises(QmpError, match="^No file descriptor supplied via SCM_RIGHTS$"):
                    await qmp.execute("getfd", fdname="x")


async def test_a_change_takes_its_descriptor_even_if_it_fails(path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        await service.registry.add("c", NullOptions())
        addr = {"type": "fd", "data": {"str": "x"}}
        backend = {"type": "socket", "data": {"addr": addr, "server": False}}
        async with open_qmp_client(path) as qmp:
            with descriptors() as fds:
                await qmp.execute("getfd", fdname="x", fds=[fds["n"]])
                with pytest.raises(QmpError, match="File descriptor 'x' is not a socket"):
                    await qmp.execute("chardev-change", id="c", backend=backend)
                with pytest.raises(QmpError, match="^File descriptor named 'x' not found$"):
                    await qmp.execute("closefd", fdname="x")
                await qmp.execute("getfd", fdname="x", fds=[fds["s"]])
                await qmp.execute("chardev-change", id="c", backend=backend)
                assert await filename_of(qmp, "c") == "unix:"


# ---------------------------------------------------------------- which instances there are


def yankable(registry: Registry) -> list[str]:
    context = Context(Host(registry, on_quit=lambda reason: None))
    return [row["id"] for row in query_yank(context, NoArguments())]


@pytest.mark.parametrize(
    ("kind", "is_listed"), [("socket", True), ("null", False), ("ringbuf", False), ("pty", False)]
)
async def test_what_can_be_yanked(tmp_path: Path, kind: str, *, is_listed: bool) -> None:
    kinds = {
        "socket": options(tmp_path / "s"),
        "null": NullOptions(),
        "ringbuf": RingbufOptions(),
        "pty": PtyOptions(),
    }
    async with open_registry() as registry:
        await registry.add("c", kinds[kind])
        assert yankable(registry) == (["c"] if is_listed else [])
        with pytest.raises(BackendError):
            await registry.change("c", options(tmp_path / "missing" / "s"))
        assert yankable(registry) == (["c"] if is_listed else [])


# ---------------------------------------------------------------- yank


def instances(*ids: str) -> list[dict[str, str]]:
    return [{"type": "chardev", "id": id} for id in ids]


async def connect(path: Path) -> trio.SocketStream:
    stream: trio.SocketStream = await trio.open_unix_socket(str(path))
    return stream


async def filename_of(qmp: QmpClient, id: str) -> str:
    rows = await qmp.execute("query-chardev")
    return next(str(row["filename"]) for row in rows if row["label"] == id)


async def test_yank_drops_the_client_and_the_next_is_served(tmp_path: Path, path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        await service.registry.add("c", options(tmp_path / "c"))
        with trio.fail_after(PATIENCE):
            async with (
                open_qmp_client(path) as qmp,
                service.registry["c"].attach() as frontend,
                await connect(tmp_path / "c") as one,
            ):
                await until(lambda: frontend.is_open)
                async with await connect(tmp_path / "c") as other:
                    await one.send_all(b"last words")
                    await qmp.execute("yank", instances=instances("c"))
                    assert await one.receive_some() == b""
                    await other.send_all(b" and first")
                    received = b""
                    while len(received) < len(b"last words and first"):
                        received += await frontend.receive_some()
                    assert received == b"last words and first"
                    await frontend.send_all(b"hello")
                    assert await other.receive_some() == b"hello"


async def test_yank_ends_the_handshakes_under_way(tmp_path: Path, path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        addr = UnixAddress(str(tmp_path / "c"))
        await service.registry.add("c", SocketOptions(addr=addr, websocket=True))
        with trio.fail_after(PATIENCE):
            async with (
                open_qmp_client(path) as qmp,
                await connect(tmp_path / "c") as silent,
                await connect(tmp_path / "c") as half,
            ):
                await half.send_all(b"GET / HTTP/1.1\r\n")
                await wait_all_tasks_blocked(0.01)
                await qmp.execute("yank", instances=instances("c"))
                assert await silent.receive_some() == b""
                assert await half.receive_some() == b""


async def test_an_unknown_instance_and_nothing_is_yanked(tmp_path: Path, path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(options(path))
        await service.registry.add("c", options(tmp_path / "c"))
        await service.registry.add("n", NullOptions())
        with trio.fail_after(PATIENCE):
            async with open_qmp_client(path) as qmp, await connect(tmp_path / "c"):
                await until(lambda: service.registry["c"].is_open)
                for unknown in ("x", "n"):
                    with pytest.raises(QmpError, match="^Instance not found$") as caught:
                        await qmp.execute("yank", instances=instances("c", unknown))
                    assert caught.value.error_class == "DeviceNotFound"
                await wait_all_tasks_blocked()
                assert await filename_of(qmp, "c") == f"unix:{tmp_path / 'c'},server=on"


async def test_out_of_band_a_yank_works_while_a_change_waits(tmp_path: Path, path: Path) -> None:
    """The change waits for a client, and so do the commands behind it."""
    async with open_service() as service:
        await service.listen_qmp(options(path))
        await service.registry.add("c", options(tmp_path / "c"))
        with trio.fail_after(PATIENCE):
            async with (
                service.registry["c"].attach(be_change=stateless),
                open_qmp_client(path, oob=True) as qmp,
                await connect(tmp_path / "c") as peer,
                trio.open_nursery() as nursery,
            ):
                await until(lambda: service.registry["c"].is_open)
                change = functools.partial(
                    qmp.execute, id="c", backend=backend_at(tmp_path / "new", wait=True)
                )
                nursery.start_soon(change, "chardev-change")
                await until((tmp_path / "new").exists)
                assert await qmp.execute("query-yank", oob=True) == instances("c")
                await qmp.execute("yank", instances=instances("c"), oob=True)
                assert await peer.receive_some() == b""
                async with await connect(tmp_path / "new"):
                    await until(lambda: (tmp_path / "c").exists() is False)


async def test_a_client_may_yank_itself(path: Path) -> None:
    """The monitor is there for the next one; the emulator's client has no reply either."""
    async with open_service() as service:
        await service.registry.add("m", options(path))
        await service.add_monitor("m")
        with trio.fail_after(PATIENCE):
            async with open_qmp_client(path) as qmp:
                with pytest.raises(QmpConnectionError):
                    await qmp.execute("yank", instances=instances("m"))
            async with open_qmp_client(path) as qmp:
                assert await qmp.execute("query-yank") == instances("m")


def has_waiting(client: Any, count: int) -> bool:
    return len(client.backlog) >= count


async def test_descriptors_wait_with_the_messages_that_they_came_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a command that waits more is read, and with it more descriptors."""
    monkeypatch.setattr(dispatcher, "PATIENCE", 0.01)
    waiting = {"path": str(tmp_path / "w")}
    backend = {
        "type": "socket",
        "data": {"addr": {"type": "unix", "data": waiting}, "server": True, "wait": True},
    }
    files = [os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in "ab"]
    with trio.fail_after(PATIENCE):
        async with open_service() as service:
            await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
            async with open_qmp_client(tmp_path / "q") as qmp:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        functools.partial(qmp.execute, "chardev-add", id="w", backend=backend)
                    )
                    await until((tmp_path / "w").exists)
                    [one] = service.broadcast.monitors
                    for name, fd, behind in zip("ab", files, (2, 4), strict=True):
                        nursery.start_soon(
                            functools.partial(qmp.execute, "getfd", fdname=name, fds=[fd])
                        )
                        client_of_it = one._client
                        assert client_of_it is not None
                        await until(functools.partial(has_waiting, client_of_it, behind))
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(waiting["path"])
                named = one._fds._fds
                assert [os.readlink(f"/proc/self/fd/{named[name]}") for name in "ab"] == [
                    str(tmp_path / name) for name in "ab"
                ]
    for fd in files:
        os.close(fd)
