from __future__ import annotations

import array
import itertools
import math
import os
import socket
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from tests.peers import need
from tests.services import PROGRAM
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.client.client import (
    GRACE,
    QmpClient,
    QmpConnectionError,
    QmpError,
    open_qmp_client,
)
from trio_chardev.qmp.json.codec import Decoder, encode
from trio_chardev.testing import CancelAtStep

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}
STAMP = {"seconds": 1500000000, "microseconds": 0}


# ---------------------------------------------------------------- real servers

# Each takes the options of qemu-storage-daemon behind these words.
SERVERS = {
    "qemu-storage-daemon": ["qemu-storage-daemon"],
    "trio-chardev": [*PROGRAM, "serve"],
}
# wait=on, because QEMU 7.2 may greet twice, or crash, if the client comes while it starts.
OPTIONS = ["--chardev", "socket,id=m,fd={fd},server=on,wait=on", "--monitor", "chardev=m"]


@attrs.frozen
class Server:
    """A QMP server of its own process, for one client at a time."""

    path: str
    process: subprocess.Popen[bytes]


@contextmanager
def running(words: list[str], path: Path, *options: str) -> Iterator[Server]:
    """A server that listens at *path*; ``{fd}`` in *options* is its listening socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        fd = listener.fileno()
        argv = [need(words[0]), *words[1:], *(option.format(fd=fd) for option in options)]
        process = subprocess.Popen(argv, pass_fds=[fd])
    try:
        yield Server(os.fspath(path), process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=SERVERS)
def qmp_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Stays for the next test."""
    path = tmp_path_factory.mktemp("server") / "qmp.sock"
    with running(SERVERS[request.param], path, *OPTIONS) as server:
        yield server


@pytest.fixture(params=SERVERS)
def mortal_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One that the test ends."""
    with running(SERVERS[request.param], tmp_path / "qmp.sock", *OPTIONS) as server:
        yield server


async def test_greeting_and_result(qmp_server: Server) -> None:
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path) as qmp:
            assert qmp.greeting["capabilities"] == ["oob"]
            assert not qmp.is_oob_enabled
            version = await qmp.execute("query-version")
            assert version["qemu"].keys() == {"major", "minor", "micro"}
            assert version == qmp.greeting["version"]


async def test_one_client_after_another(qmp_server: Server) -> None:
    with trio.fail_after(60):
        for address in (qmp_server.path, Path(qmp_server.path), UnixAddress(qmp_server.path)):
            async with open_qmp_client(address) as qmp:
                await qmp.execute("query-chardev")


async def test_chardev_is_added_changed_and_removed(qmp_server: Server) -> None:
    ringbuf = {"type": "ringbuf", "data": {"size": 64}}
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path) as qmp:
            assert await qmp.execute("chardev-add", id="x", backend=ringbuf) == {}
            await qmp.execute("ringbuf-write", device="x", data='Grüße 🎉 "\\"')
            assert await qmp.execute("ringbuf-read", device="x", size=64) == 'Grüße 🎉 "\\"'
            null = {"id": "x", "backend": {"type": "null", "data": {}}}
            assert await qmp.execute("chardev-change", null) == {}
            chardevs = {each["label"]: each for each in await qmp.execute("query-chardev")}
            assert chardevs["x"]["filename"] == "null"
            await qmp.execute("chardev-remove", arguments={"id": "x"})


async def test_error_has_the_servers_class_and_words(qmp_server: Server) -> None:
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path) as qmp:
            with pytest.raises(QmpError, match=r"^Chardev 'x' not found$") as generic:
                await qmp.execute("chardev-remove", id="x")
            assert generic.value.error_class == "GenericError"
            with pytest.raises(QmpError, match="bogus has not been found") as unknown:
                await qmp.execute("bogus")
            assert unknown.value.error_class == "CommandNotFound"


async def test_hundred_tasks_share_a_client(qmp_server: Server) -> None:
    async def remove(qmp: QmpClient, name: str) -> None:
        with pytest.raises(QmpError, match=f"^Chardev '{name}' not found$"):
            await qmp.execute("chardev-remove", id=name)

    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path) as qmp, trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(remove, qmp, f"x{number}")


async def test_oob_is_enabled_on_demand(qmp_server: Server) -> None:
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path, oob=True) as qmp:
            assert qmp.is_oob_enabled
            with pytest.raises(QmpError, match="The command query-version does not support OOB"):
                await qmp.execute("query-version", oob=True)
        async with open_qmp_client(qmp_server.path) as qmp:
            with pytest.raises(QmpError, match="'exec-oob' is unexpected"):
                await qmp.execute("query-version", oob=True)


async def test_negotiating_is_left_to_the_block(qmp_server: Server) -> None:
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path, negotiate=False) as qmp:
            with pytest.raises(QmpError, match="Expecting capabilities negotiation"):
                await qmp.execute("query-version")
            await qmp.execute("qmp_capabilities", enable=["oob"])
            await qmp.execute("query-version")


async def test_large_command_and_reply(qmp_server: Server) -> None:
    text = "x" * 70_000
    backend = {"type": "ringbuf", "data": {"size": 1 << 19}}
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path) as qmp:
            await qmp.execute("chardev-add", id="x", backend=backend)
            await qmp.execute("ringbuf-write", device="x", data=text)
            assert await qmp.execute("ringbuf-read", device="x", size=1 << 19) == text
            await qmp.execute("chardev-remove", id="x")


async def test_second_client_gets_no_greeting(qmp_server: Server) -> None:
    """The commonest reason for silence, so the error asks for it."""
    with trio.fail_after(60):
        async with open_qmp_client(qmp_server.path):
            with pytest.raises(QmpConnectionError) as caught:
                async with open_qmp_client(qmp_server.path, timeout=0.05):
                    pass
    assert str(caught.value) == (
        f"The QMP server '{qmp_server.path}' sent no greeting within 0.05 seconds: "
        "it is busy with another client, or hangs"
    )


async def test_quit_is_answered_and_is_the_end(mortal_server: Server) -> None:
    with trio.fail_after(60):
        async with open_qmp_client(mortal_server.path) as qmp:
            with qmp.open_events() as events:
                assert await qmp.execute("quit") == {}
                async for event in events:
                    assert event.name == "SHUTDOWN"
            with pytest.raises(QmpConnectionError) as caught:
                await qmp.execute("query-version")
    assert str(caught.value) == f"The QMP server '{mortal_server.path}' closed the connection"


async def test_killed_server_is_noticed_by_who_waits(mortal_server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "listening.sock")
    backend = {
        "type": "socket",
        "data": {"addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": True},
    }

    async def kill() -> None:
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - it is another process
            await trio.sleep(0.005)
        mortal_server.process.kill()

    with trio.fail_after(60):
        async with open_qmp_client(mortal_server.path) as qmp, trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(QmpConnectionError, match="closed the connection"):
                await qmp.execute("chardev-add", id="x", backend=backend)


async def test_events_of_the_storage_daemon(tmp_path: Path) -> None:
    image = {"driver": "file", "filename": str(tmp_path / "image"), "size": 65536}
    states = []
    words = SERVERS["qemu-storage-daemon"]
    with running(words, tmp_path / "qmp.sock", *OPTIONS) as server, trio.fail_after(60):
        async with open_qmp_client(server.path) as qmp:
            with qmp.open_events() as events:
                await qmp.execute("blockdev-create", job_id="j", options=image)
                async for event in events:
                    assert event.name == "JOB_STATUS_CHANGE"
                    states.append(event.data["status"])
                    if event.data["status"] == "concluded":
                        break
    assert states[0] == "created"


async def test_qemu_takes_descriptors(tmp_path: Path) -> None:
    words = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    options = [
        "-chardev",
        "socket,id=m,fd={fd},server=on,wait=on",
        "-mon",
        "chardev=m,mode=control",
    ]
    with running(words, tmp_path / "qmp.sock", *options) as server, trio.fail_after(10):
        async with open_qmp_client(server.path) as qmp:
            fd = os.open(os.devnull, os.O_RDONLY)
            await qmp.execute("getfd", fdname="x", fds=[fd])
            os.close(fd)
            await qmp.execute("closefd", fdname="x")
            with pytest.raises(QmpError, match="No file descriptor supplied via SCM_RIGHTS"):
                await qmp.execute("getfd", fdname="x")


# ---------------------------------------------------------------- a fake server


class FakeServer:
    """Says what it is told to, and remembers what it has heard."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.answered: list[str] = []
        self._decoder = Decoder()
        self._heard: deque[Any] = deque()

    async def send(self, *messages: object) -> None:
        for message in messages:
            await self.stream.send_all(message if isinstance(message, bytes) else encode(message))

    async def receive(self) -> Any:
        """The next message; None at the end."""
        while not self._heard:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._heard.extend(self._decoder.feed(bytes(data)))
        return self._heard.popleft()

    async def answer_all(self) -> None:
        """Answer each command with its name, in order."""
        while (command := await self.receive()) is not None:
            self.answered.append(command["execute"])
            await self.send({"return": command["execute"], "id": command["id"]})


@asynccontextmanager
async def session(**options: Any) -> AsyncIterator[tuple[QmpClient, FakeServer]]:
    """A client that has not negotiated, and its server."""
    ours, theirs = memory_stream_pair()
    server = FakeServer(theirs)
    await server.send(GREETING)
    with trio.fail_after(60):
        async with open_qmp_client(ours, negotiate=False, **options) as qmp:
            yield qmp, server


async def attempt(results: dict[str, Any], qmp: QmpClient, command: str, **more: Any) -> None:
    """Keep the result of *command*, or the text of its error."""
    try:
        results[command] = await qmp.execute(command, **more)
    except (QmpError, QmpConnectionError) as exc:
        results[command] = str(exc)


async def test_arguments_and_keywords_are_joined() -> None:
    """Names with an underscore, and names that are parameters here, go into `arguments`."""
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.answer_all)
        assert await qmp.execute("plain") == "plain"
        nursery.cancel_scope.cancel()
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        exact = {"a_b": 1, "oob": 2}
        nursery.start_soon(partial(qmp.execute, "x", exact, job_id="j", command={"c_d": 3}))
        command = await server.receive()
        assert command["arguments"] == {"a_b": 1, "oob": 2, "job-id": "j", "command": {"c_d": 3}}
        assert exact == {"a_b": 1, "oob": 2}
        nursery.cancel_scope.cancel()


async def test_hundred_replies_in_reverse() -> None:
    results: dict[str, Any] = {}
    names = [f"c{number}" for number in range(100)]
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(partial(attempt, results, qmp, name, oob=True))
        commands = [await server.receive() for _ in names]
        for command in reversed(commands):
            await server.send({"return": command["exec-oob"], "id": command["id"]})
    assert results == {name: name for name in names}


async def test_events_come_between_replies() -> None:
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        with qmp.open_events() as events:
            event = encode({"event": "E", "timestamp": STAMP, "data": {"n": 1}})
            results: dict[str, Any] = {}
            nursery.start_soon(attempt, results, qmp, "c")
            command = await server.receive()
            reply = encode({"return": 1, "id": command["id"]})
            for byte in event + reply + event:  # in the smallest packets
                await server.send(bytes([byte]))
            assert [(await events.receive()).data for _ in range(2)] == [{"n": 1}, {"n": 1}]
    assert results == {"c": 1}


async def test_slow_subscriber_loses_the_oldest_events() -> None:
    async with session() as (qmp, server):
        with qmp.open_events(max_pending=2) as events:
            for name in "ABCDE":
                await server.send({"event": name, "timestamp": STAMP})
            await server.stream.aclose()
            await wait_all_tasks_blocked()
            assert [event.name async for event in events] == ["D", "E"]
            assert events.dropped == 3


@pytest.mark.parametrize("last", [b"", b'{"return": {"a', b'"no object" '])
async def test_server_dies_in_the_middle(last: bytes) -> None:
    """Everybody who waits hears of it, with or without a piece of a reply; events end."""
    results: dict[str, Any] = {}
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        with qmp.open_events() as events:
            for name in ("a", "b"):
                nursery.start_soon(attempt, results, qmp, name)
                await server.receive()
            await server.send(last)
            await server.stream.aclose()
            assert [event async for event in events] == []
    what = (
        "sent what is not QMP: it is no JSON object" if b"no" in last else "closed the connection"
    )
    assert results == dict.fromkeys("ab", f"The QMP server {what}")


async def test_garbage_is_the_end() -> None:
    async with session() as (qmp, server):
        await server.send(b"\xff")
        with pytest.raises(QmpConnectionError, match="sent what is not QMP: JSON parse error, str"):
            await qmp.execute("x")


async def test_last_replies_are_read_when_sending_fails(autojump_clock: trio.abc.Clock) -> None:
    results: dict[str, Any] = {}
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        nursery.start_soon(attempt, results, qmp, "quit")
        command = await server.receive()
        assert isinstance(server.stream, trio.StapledStream)
        await server.stream.receive_stream.aclose()
        nursery.start_soon(attempt, results, qmp, "late")
        await wait_all_tasks_blocked()
        await server.send({"return": {}, "id": command["id"]})
    assert trio.current_time() == pytest.approx(GRACE)
    assert results == {"quit": {}, "late": "The QMP server closed the connection"}


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("first", [b"SSH-2.0-OpenSSH_9.2\r\n", b'{"return": {}}', b"220 hi\r\n"])
async def test_other_servers_are_told_from_qmp(first: bytes) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(first)
    with trio.fail_after(60), pytest.raises(QmpConnectionError) as caught:
        async with open_qmp_client(ours):
            pass
    text = "The QMP server sent no greeting: it speaks another protocol"
    assert str(caught.value) == text
    assert await theirs.receive_some() == b""  # the stream was closed


async def test_connection_closed_before_the_greeting() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    with trio.fail_after(60), pytest.raises(QmpConnectionError) as caught:
        async with open_qmp_client(ours):
            pass
    assert str(caught.value) == "The QMP server closed the connection before its greeting"


async def test_greeting_has_a_deadline(autojump_clock: trio.abc.Clock) -> None:
    ours, _theirs = memory_stream_pair()
    with pytest.raises(QmpConnectionError, match="sent no greeting within 30 seconds"):
        async with open_qmp_client(ours):
            pass
    assert trio.current_time() == pytest.approx(30)


async def test_negotiation_shares_the_deadline(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = memory_stream_pair()

    async def greet_late() -> None:
        await trio.sleep(4)
        await FakeServer(theirs).send(GREETING)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet_late)
        with pytest.raises(QmpConnectionError, match="did not answer qmp_capabilities within 5 s"):
            async with open_qmp_client(ours, timeout=5):
                pass
    assert trio.current_time() == pytest.approx(5)


async def test_block_may_take_as_long_as_it_likes(autojump_clock: trio.abc.Clock) -> None:
    async with session(timeout=1) as (qmp, server):
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.answer_all)
            assert await qmp.execute("x") == "x"
            nursery.cancel_scope.cancel()


async def test_refused_negotiation_is_the_servers_error() -> None:
    ours, theirs = memory_stream_pair()
    server = FakeServer(theirs)

    async def refuse() -> None:
        await server.send(GREETING)
        command = await server.receive()
        assert command["arguments"] == {"enable": ["oob"]}
        error = {"class": "GenericError", "desc": "Capability oob not available"}
        await server.send({"error": error, "id": command["id"]})

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(QmpError, match="Capability oob not available"):
                async with open_qmp_client(ours, oob=True):
                    pass


async def test_oob_is_not_enabled_where_it_is_not_offered() -> None:
    ours, theirs = memory_stream_pair()
    server = FakeServer(theirs)
    await server.send({"QMP": {"version": {}, "capabilities": []}})
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.answer_all)
            async with open_qmp_client(ours, oob=True, timeout=math.inf) as qmp:
                assert not qmp.is_oob_enabled
            nursery.cancel_scope.cancel()


async def test_oob_needs_negotiation() -> None:
    with pytest.raises(OptionsError, match="oob is enabled by negotiating"):
        async with open_qmp_client("/nowhere", oob=True, negotiate=False):
            pass


async def test_connecting_fails_in_qemus_words(tmp_path: Path) -> None:
    path = tmp_path / "nobody.sock"
    with pytest.raises(QmpConnectionError) as caught:
        async with open_qmp_client(path):
            pass
    assert str(caught.value) == f"Failed to connect to '{path}': No such file or directory"
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(QmpConnectionError) as caught:
        async with open_qmp_client(("127.0.0.1", port)):
            pass
    assert str(caught.value) == f"Failed to connect to '127.0.0.1:{port}': Connection refused"


async def test_connecting_has_a_deadline(autojump_clock: trio.abc.Clock, tmp_path: Path) -> None:
    """The queue of a UNIX listener that does not accept is full at last."""
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(QmpConnectionError) as caught:
            async with open_qmp_client(path):
                pass
    assert str(caught.value) == (
        f"Failed to connect to '{path}': Connection timed out; "
        "it is busy or stopped, and others wait for it already"
    )


async def test_tcp() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        server = FakeServer(stream)
        await server.send(GREETING)
        await server.answer_all()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            async with open_qmp_client(listener.socket.getsockname()) as qmp:
                assert await qmp.execute("x") == "x"
            nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- the block's end


async def test_errors_of_the_block_come_out_bare() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with session():
            raise KeyError("mine")


async def test_nothing_is_left_behind() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with session() as (_qmp, server):
        assert trio.lowlevel.current_statistics().tasks_living > before
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert await server.receive() is None


async def test_waiters_outside_hear_that_the_block_has_ended() -> None:
    results: dict[str, Any] = {}
    async with trio.open_nursery() as nursery, session() as (qmp, _server):
        nursery.start_soon(attempt, results, qmp, "slow")
        await wait_all_tasks_blocked()
    await attempt(results, qmp, "late")
    assert results == dict.fromkeys(("slow", "late"), "The QMP client is closed")


# ---------------------------------------------------------------- cancellation


async def cancelled(qmp: QmpClient, command: str, **more: Any) -> None:
    """Cancel the command when everybody waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(qmp.execute, command, **more))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_late_reply_of_a_cancelled_command_is_dropped() -> None:
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        await cancelled(qmp, "first")
        nursery.start_soon(server.answer_all)
        assert await qmp.execute("second") == "second"
        assert server.answered == ["first", "second"]
        nursery.cancel_scope.cancel()


async def test_cancelled_beforehand_sends_nothing() -> None:
    async with session() as (qmp, server), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await qmp.execute("first")
        nursery.start_soon(server.answer_all)
        assert await qmp.execute("second") == "second"
        assert server.answered == ["second"]
        nursery.cancel_scope.cancel()


async def test_command_behind_a_stuck_one_is_taken_back() -> None:
    ours, theirs = lockstep_stream_pair()  # sends nothing before the other side reads
    server = FakeServer(theirs)
    with trio.fail_after(60):
        async with trio.open_nursery() as servers:
            servers.start_soon(server.send, GREETING)
            async with (
                open_qmp_client(ours, negotiate=False) as qmp,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(qmp.execute, "stuck")
                await wait_all_tasks_blocked()
                await cancelled(qmp, "taken back")
                nursery.start_soon(server.answer_all)
                assert await qmp.execute("next") == "next"
                assert server.answered == ["stuck", "next"]
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_any_step_leaves_the_client_usable(when: str) -> None:
    """The server gets whole commands, and the next one gets its own reply."""
    for k in itertools.count(1):
        scope = trio.CancelScope()
        cancel = CancelAtStep(k, when, scope)
        heard = trio.run(cancel_one, cancel, instruments=[cancel])
        assert heard in (["second"], ["first", "second"])
        if not cancel.fired:
            assert heard == ["first", "second"]
            return


async def cancel_one(cancel: CancelAtStep) -> list[str]:
    ours, theirs = lockstep_stream_pair()
    server = FakeServer(theirs)
    heard = []

    async def serve() -> None:
        await server.send(GREETING)
        decoder = Decoder()
        while data := await theirs.receive_some(7):  # in pieces, to cancel between them
            for command in decoder.feed(bytes(data)):
                assert isinstance(command, dict)
                heard.append(str(command["execute"]))
                await server.send({"return": command["execute"], "id": command["id"]})

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_qmp_client(ours, negotiate=False) as qmp:
                with cancel.scope:
                    cancel.armed = True
                    assert await qmp.execute("first", text="long enough") == "first"
                cancel.armed = False
                assert await qmp.execute("second") == "second"
    return heard


# ---------------------------------------------------------------- descriptors


@asynccontextmanager
async def unix_session() -> AsyncIterator[tuple[QmpClient, trio.socket.SocketType]]:
    ours, theirs = trio.socket.socketpair()
    with theirs, trio.fail_after(60):
        await theirs.send(encode(GREETING))
        async with open_qmp_client(trio.SocketStream(ours), negotiate=False) as qmp:
            yield qmp, theirs


async def receive_fds(sock: trio.socket.SocketType) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _, _ = await sock.recvmsg(1 << 16, socket.CMSG_SPACE(16 * fds.itemsize))
    for _level, _kind, payload in ancillary:
        fds.frombytes(payload)
    return data, fds.tolist()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_descriptors_go_with_their_command() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    async with unix_session() as (qmp, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(partial(qmp.execute, "getfd", fdname="x", fds=[writer, reader]))
        data, fds = await receive_fds(theirs)
        assert b'"fdname": "x"' in data
        os.write(fds[0], b"hello")
        os.close(fds[0])
        assert os.read(reader, 9) == b"hello"
        os.close(writer)
        await wait_all_tasks_blocked()
        assert os.read(reader, 9) == b""  # the client has kept no copy
        os.close(reader)
        os.close(fds[1])
        nursery.cancel_scope.cancel()


async def test_large_command_with_descriptors_is_sent_whole() -> None:
    """Only the first bytes go with sendmsg."""
    fd = os.open(os.devnull, os.O_RDONLY)
    text = "x" * 1_000_000
    async with unix_session() as (qmp, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(partial(qmp.execute, "getfd", text=text, fds=[fd]))
        await wait_all_tasks_blocked()
        data, [received] = await receive_fds(theirs)
        decoder = Decoder()
        while not (messages := decoder.feed(data)):
            data = await theirs.recv(1 << 16)
        assert isinstance(messages[0], dict)
        assert messages[0]["arguments"] == {"text": text}
        nursery.cancel_scope.cancel()
    os.close(received)
    os.close(fd)


async def test_caller_may_close_its_descriptors_when_cancelled() -> None:
    """The socket is full, so the command is only begun; it still brings the descriptor."""
    fd = os.open(os.devnull, os.O_RDONLY)
    async with unix_session() as (qmp, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(partial(qmp.execute, "large", text="x" * 1_000_000))
        await wait_all_tasks_blocked()
        waiting = open_fds()
        await cancelled(qmp, "taken back", fds=[fd])
        assert open_fds() == waiting
        nursery.start_soon(partial(qmp.execute, "getfd", fds=[fd]))
        await wait_all_tasks_blocked()
        assert open_fds() == waiting + 1
        os.close(fd)
        seen: list[int] = []
        while not seen:
            _, seen = await receive_fds(theirs)
        assert os.readlink(f"/proc/self/fd/{seen[0]}") == os.devnull
        os.close(seen[0])
        nursery.cancel_scope.cancel()


async def test_descriptors_that_cannot_be_passed() -> None:
    before = open_fds()
    fd = os.open(os.devnull, os.O_RDONLY)
    async with session() as (qmp, _server):
        with pytest.raises(OptionsError, match="can only be passed over a UNIX socket"):
            await qmp.execute("getfd", fds=[fd])
    async with unix_session() as (qmp, _theirs):
        with pytest.raises(OptionsError, match="No more than 16 descriptors"):
            await qmp.execute("getfd", fds=[fd] * 17)
        with pytest.raises(OptionsError, match=r"^Can't pass descriptor -1: Bad file descriptor$"):
            await qmp.execute("getfd", fds=[fd, -1])
        with pytest.raises(OptionsError, match="The command can't be sent"):
            await qmp.execute("getfd", fds=[fd], number=math.inf)
    os.close(fd)
    assert open_fds() == before
