"""What each command returns, and QEMU's error texts."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.peers import need
from trio_chardev.backends.ringbuf.file import RingFile
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import ChardevError
from trio_chardev.events import Event
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.json.codec import Encoded
from trio_chardev.qmp.server.session import Session
from trio_chardev.registry import open_registry
from trio_chardev.testing import FakeFrontend


class Commands:
    """Runs commands as a monitor does."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.registry = context.host.registry

    async def __call__(self, name: str, /, **arguments: Any) -> Any:
        command = COMMANDS[name]
        result = command.run(self.context, arguments)
        if command.waits(self.context, arguments):
            result = await result
        return json.loads(result) if isinstance(result, Encoded) else result

    async def add(self, id: str, kind: str = "ringbuf", **data: Any) -> Any:
        return await self("chardev-add", id=id, backend={"type": kind, "data": data})

    async def change(self, id: str, kind: str, **data: Any) -> Any:
        return await self("chardev-change", id=id, backend={"type": kind, "data": data})

    async def error(self, name: str, /, **arguments: Any) -> str:
        with pytest.raises(ChardevError) as raised:
            await self(name, **arguments)
        return str(raised.value)


@asynccontextmanager
async def open_commands(quits: list[str] | None = None) -> AsyncIterator[Commands]:
    async with open_registry() as registry:
        said = [] if quits is None else quits
        host = Host(registry, said.append)
        yield Commands(Context(host, Session(is_negotiated=True)))


def backend(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


# ---------------------------------------------------------------- the service


async def test_qmp_capabilities() -> None:
    async with open_commands() as run:
        run.context.session = Session()
        assert await run("qmp_capabilities", enable=["oob"]) == {}
        assert run.context.session.is_oob_enabled
        text = "Capabilities negotiation is already complete, command ignored"
        assert await run.error("qmp_capabilities") == text


async def test_a_bad_capability_leaves_negotiation_open() -> None:
    async with open_commands() as run:
        run.context.session = Session()
        text = await run.error("qmp_capabilities", enable=["bogus"])
        assert text == "Parameter 'null' does not accept value 'bogus'"
        assert not run.context.session.is_negotiated


async def test_query_version_names_a_qemu() -> None:
    async with open_commands() as run:
        version = await run("query-version")
    assert set(version) == {"qemu", "package"}
    assert set(version["qemu"]) == {"major", "minor", "micro"}
    assert version["package"].startswith("trio-chardev ")


async def test_query_commands_lists_what_there_is() -> None:
    async with open_commands() as run:
        names = {row["name"] for row in await run("query-commands")}
    assert {"chardev-add", "chardev-change", "query-commands", "quit"} <= names


async def test_query_chardev_backends_lists_qemus_kinds() -> None:
    async with open_commands() as run:
        names = [row["name"] for row in await run("query-chardev-backends")]
    assert names == [
        *("file", "memory", "mux", "null", "parallel", "pipe", "pty", "ringbuf", "serial"),
        *("socket", "stdio", "udp"),
    ]


async def test_quit_counts_once() -> None:
    quits: list[str] = []
    async with open_commands(quits) as run:
        assert await run("quit") == {}
        assert await run("quit") == {}
    assert quits == ["host-qmp-quit"]


async def test_a_command_without_arguments_takes_none() -> None:
    async with open_commands() as run:
        assert await run.error("query-chardev", x=1) == "Parameter 'x' is unexpected"


# ---------------------------------------------------------------- add, remove, query


async def test_add_query_remove() -> None:
    async with open_commands() as run:
        assert await run.add("a", "null") == {}
        assert await run("query-chardev") == [
            {"label": "a", "filename": "null", "frontend-open": False}
        ]
        async with run.registry["a"].attach():
            assert (await run("query-chardev"))[0]["frontend-open"] is True
        assert await run("chardev-remove", id="a") == {}
        assert await run("query-chardev") == []


async def test_add_of_a_pty_gives_its_path() -> None:
    async with open_commands() as run:
        assert (await run.add("p", "pty"))["pty"].startswith("/dev/pts/")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"backend": backend("null")}, "Parameter 'id' is missing"),
        ({"id": "b"}, "Parameter 'backend' is missing"),
        (
            {"id": 1, "backend": backend("null")},
            "Invalid parameter type for 'id', expected: string",
        ),
        ({"id": "b", "backend": {"type": "null"}}, "Parameter 'backend.data' is missing"),
        ({"id": "b", "backend": {"data": {}}}, "Parameter 'backend.type' is missing"),
        ({"id": "b", "backend": backend("x")}, "Parameter 'type' does not accept value 'x'"),
        (
            {"id": "b", "backend": backend("null", x=1)},
            "Parameter 'backend.data.x' is unexpected",
        ),
        (
            {"id": "b", "backend": backend("ringbuf", size="8")},
            "Invalid parameter type for 'backend.data.size', expected: integer",
        ),
        (
            {"id": "b", "backend": backend("ringbuf", size=3)},
            "Failed to add chardev 'b': size of ringbuf chardev must be power of two",
        ),
        ({"id": "a", "backend": backend("ringbuf", size=3)}, "Chardev with id 'a' already exists"),
        (
            {"id": "b", "backend": backend("file", out="/missing/x")},
            "Failed to add chardev 'b': Could not open '/missing/x': No such file or directory",
        ),
    ],
)
async def test_errors_of_add(arguments: dict[str, Any], text: str) -> None:
    async with open_commands() as run:
        await run.add("a", "null")
        assert await run.error("chardev-add", **arguments) == text
        assert list(run.registry) == ["a"]


async def test_errors_of_remove() -> None:
    async with open_commands() as run:
        assert await run.error("chardev-remove", id="a") == "Chardev 'a' not found"
        await run.add("a", "null")
        async with run.registry["a"].attach():
            assert await run.error("chardev-remove", id="a") == "Chardev 'a' is busy"


async def test_send_break_reaches_the_frontend() -> None:
    async with open_commands() as run:
        assert await run.error("chardev-send-break", id="a") == "Chardev 'a' not found"
        await run.add("a", "null")
        assert await run("chardev-send-break", id="a") == {}
        user = FakeFrontend()
        async with run.registry["a"].attach(on_event=user.on_event):
            assert await run("chardev-send-break", id="a") == {}
        assert user.events == [Event.BREAK]


# ---------------------------------------------------------------- change


async def test_change_gives_the_path_of_a_pty() -> None:
    async with open_commands() as run:
        await run.add("a", "null")
        assert (await run.change("a", "pty"))["pty"].startswith("/dev/pts/")
        assert await run.change("a", "null") == {}


async def test_details_tell_the_options_and_the_users() -> None:
    async with open_commands() as run:
        await run.add("a")
        await run("chardev-add", id="m", backend=backend("mux", chardev="a"))
        await run("device_add", driver="discard", id="d", chardev="m")
        base, mux = await run("query-chardev-details")
        assert base == {
            "label": "a",
            "filename": "ringbuf",
            "backend": backend("ringbuf"),
            "open": True,
            "others-wait": False,
            "lent": False,
            "is-used": True,
            "users": ["m"],
        }
        assert (mux["backend"], mux["users"]) == (backend("mux", chardev="a"), ["d"])
        await run.change("a", "null")
        assert (await run("query-chardev-details"))[0]["backend"] == backend("null")
        with pytest.raises(ChardevError):
            await run.change("a", "file", out="/missing/x")
        assert (await run("query-chardev-details"))[0]["backend"] == backend("null")


async def test_errors_of_change_in_their_order() -> None:
    bad = {"out": "/missing/x"}
    could_not = "Could not open '/missing/x': No such file or directory"
    async with open_commands() as run:
        with pytest.raises(ChardevError, match=r"^Parameter 'type' does not accept value 'x'$"):
            await run.change("a", "x")
        with pytest.raises(ChardevError, match=r"^Chardev 'a' does not exist$"):
            await run.change("a", "file", **bad)
        await run.add("a")
        with pytest.raises(ChardevError, match=f"^Failed to change chardev 'a': {could_not}$"):
            await run.change("a", "file", **bad)
        async with run.registry["a"].attach():
            with pytest.raises(
                ChardevError, match=r"^Chardev user does not support chardev hotswap"
            ):
                await run.change("a", "file", **bad)
        async with run.registry["a"].attach(be_change=stateless):
            with pytest.raises(ChardevError, match=f"^{could_not}$"):
                await run.change("a", "file", **bad)
        assert (await run("query-chardev"))[0]["filename"] == "ringbuf"


async def test_a_user_that_refuses_the_new_backend() -> None:
    async def refuse(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError

    async with open_commands() as run:
        await run.add("a")
        async with run.registry["a"].attach(be_change=refuse):
            with pytest.raises(ChardevError, match=r"^Chardev 'a' change failed: ValueError$"):
                await run.change("a", "null")
        assert (await run("query-chardev"))[0]["filename"] == "ringbuf"


# ---------------------------------------------------------------- ringbuf


async def write64(run: Commands, data: bytes) -> None:
    await run("ringbuf-write", device="r", data=base64.b64encode(data).decode(), format="base64")


async def test_ringbuf_reads_what_was_written() -> None:
    async with open_commands() as run:
        await run.add("r")
        assert await run("ringbuf-write", device="r", data="héllo") == {}
        assert await run("ringbuf-read", device="r", size=1) == "h"
        assert await run("ringbuf-read", device="r", size=100) == "éllo"
        assert await run("ringbuf-read", device="r", size=100) == ""


@pytest.mark.parametrize(
    ("command", "more", "left"),
    [("ringbuf-write", {"data": "2"}, "12"), ("ringbuf-read", {"size": 1}, "")],
)
async def test_ringbuf_commands_are_answered_when_the_file_has_it(
    command: str,
    more: dict[str, Any],
    left: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    follow = RingFile.follow

    def hang(file: RingFile, start: int, begin: int, data: bytes) -> None:
        go.wait(10)
        follow(file, start, begin, data)

    async with open_commands() as run:
        await run.add("r", path=str(tmp_path / "r"))
        await run("ringbuf-write", device="r", data="1")
        monkeypatch.setattr(RingFile, "follow", hang)
        answered = []

        async def ask() -> None:
            answered.append(await run(command, device="r", **more))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                assert not answered
                go.set()
        shutil.copy(tmp_path / "r", tmp_path / "copy")
        await run.add("copy", path=str(tmp_path / "copy"))
        assert await run("ringbuf-read", device="copy", size=9) == left


async def test_ringbuf_base64_is_exact() -> None:
    everything = bytes(range(256))
    async with open_commands() as run:
        await run.add("r")
        await write64(run, everything)
        read = await run("ringbuf-read", device="r", size=256, format="base64")
        assert base64.b64decode(read) == everything


async def test_nul_is_kept_as_c0_80() -> None:
    async with open_commands() as run:
        await run.add("r")
        await run("ringbuf-write", device="r", data="a\0b")
        read = await run("ringbuf-read", device="r", size=9, format="base64")
        assert base64.b64decode(read) == b"a\xc0\x80b"
        await run("ringbuf-write", device="r", data="a\0b")
        assert await run("ringbuf-read", device="r", size=9) == "a\0b"


async def test_a_nul_byte_is_given_and_what_is_behind_it() -> None:
    """QEMU takes all and gives what is before it."""
    async with open_commands() as run:
        await run.add("r")
        await write64(run, b"ab\0cd\0")
        assert await run("ringbuf-read", device="r", size=9) == "ab\0cd\0"
        assert await run("ringbuf-read", device="r", size=9) == ""


async def test_a_character_that_the_size_cuts_is_read_next() -> None:
    async with open_commands() as run:
        await run.add("r")
        await run("ringbuf-write", device="r", data="ab€cd")
        assert await run("ringbuf-read", device="r", size=4) == "ab"
        assert await run("ringbuf-read", device="r", size=4) == "€c"
        assert await run("ringbuf-read", device="r", size=4) == "d"


async def test_bytes_that_are_no_text_are_read_as_in_qemu() -> None:
    async with open_commands() as run:
        await run.add("r")
        await write64(run, b"a\xff\xe2\x82")
        assert await run("ringbuf-read", device="r", size=9) == "a\ufffd\ufffd"
        await write64(run, b"a\xc3\xa9")
        read = await run("ringbuf-read", device="r", size=2, format="base64")
        assert base64.b64decode(read) == b"a\xc3"


async def test_a_character_is_cut_if_nothing_else_fits() -> None:
    async with open_commands() as run:
        await run.add("r")
        await run("ringbuf-write", device="r", data="€")
        assert await run("ringbuf-read", device="r", size=2) == "\ufffd"
        assert await run("ringbuf-read", device="r", size=2) == "\ufffd"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("YQ==", b"a"),
        ("YW\nI=\n", b"ab"),
        ("YR==", b"a"),  # bits that mean nothing
        ("YWJjZ", b"abc"),  # an incomplete group
        ("YQ", b""),
        ("YQ======", b"a\0"),
        ("Y=Q=", b"`\x04"),
        ("Z=+++Z=", b"d\x0f\xbe"),
        ("", b""),
    ],
)
async def test_base64_is_read_leniently(data: str, text: bytes) -> None:
    async with open_commands() as run:
        await run.add("r")
        await run("ringbuf-write", device="r", data=data, format="base64")
        read = await run("ringbuf-read", device="r", size=9, format="base64")
        assert base64.b64decode(read) == text


@pytest.mark.parametrize("data", ["Y Q", "YQ\r\n", "YQ-_", "é", "\0"])
async def test_base64_of_other_characters_writes_nothing(data: str) -> None:
    async with open_commands() as run:
        await run.add("r")
        text = await run.error("ringbuf-write", device="r", data=data, format="base64")
        assert text == "Base64 data contains invalid characters"
        assert await run("ringbuf-read", device="r", size=9) == ""


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("ringbuf-read", {"device": "x", "size": 0}, "Device 'x' not found"),
        ("ringbuf-read", {"device": "n", "size": 0}, "n is not a ringbuf device"),
        ("ringbuf-read", {"device": "r", "size": 0}, "size must be greater than zero"),
        ("ringbuf-read", {"device": "r", "size": -1}, "size must be greater than zero"),
        ("ringbuf-read", {"device": "r"}, "Parameter 'size' is missing"),
        ("ringbuf-write", {"device": "x", "data": ""}, "Device 'x' not found"),
        ("ringbuf-write", {"device": "n", "data": ""}, "n is not a ringbuf device"),
        (
            "ringbuf-write",
            {"device": "r", "data": "", "format": "hex"},
            "Parameter 'format' does not accept value 'hex'",
        ),
    ],
)
async def test_errors_of_ringbuf(name: str, arguments: dict[str, Any], text: str) -> None:
    async with open_commands() as run:
        await run.add("n", "null")
        await run.add("r")
        assert await run.error(name, **arguments) == text


async def test_memory_is_a_ringbuf_too() -> None:
    async with open_commands() as run:
        await run.add("m", "memory", size=4)
        await run("ringbuf-write", device="m", data="abcdef")
        assert await run("ringbuf-read", device="m", size=9) == "cdef"


# ---------------------------------------------------------------- the same as QEMU

PIECES = (
    *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\x80", b"\xc0"),
    *(b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff"),
    *(b"\xfc\x84\x80\x80\x80\x80", b"\xef\xbf\xbe", b"\xef\xb7\x90", b"\xc1", b"\x80", b"\xbf"),
    *(
        b"a",
        b"\xc3\xa9",
        b"\xe2\x82\xac",
        b"\xf0\x9f\x98\x80",
        b"\0",
        b"\r\n",
        b"\xf0\x9f",
        b"\xe2",
    ),
)


class StorageDaemon:
    """QEMU's, with a monitor."""

    def __init__(self, wire: io.BufferedRWPair) -> None:
        self.wire = wire
        wire.readline()
        self("qmp_capabilities")

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        self.wire.write(json.dumps({"execute": name, "arguments": arguments}).encode())
        self.wire.flush()
        reply = json.loads(self.wire.readline())
        return reply.get("return", reply)


@pytest.fixture
def storage_daemon(tmp_path: Path) -> Iterator[StorageDaemon]:
    path = tmp_path / "qmp"
    monitor = f"socket,id=m,path={path},server=on,wait=on"
    program = need("qemu-storage-daemon")
    process = subprocess.Popen([program, "--chardev", monitor, "--monitor", "chardev=m"])
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            for _ in range(500):
                if sock.connect_ex(str(path)) == 0:
                    break
                time.sleep(0.01)
            with sock.makefile("rwb") as wire:
                yield StorageDaemon(wire)
    finally:
        process.kill()
        process.wait()


def samples() -> Iterator[bytes]:
    """Bytes of all kinds, valid and not."""
    yield from PIECES
    chance = random.Random(7)
    for number in range(400):
        if number % 3:
            data = b"".join(chance.choices(PIECES, k=chance.randint(1, 5)))
            yield data[: chance.randint(1, len(data))] if number % 3 == 1 else data
        else:
            yield chance.randbytes(chance.randint(1, 12))


async def test_ringbuf_read_of_any_bytes_is_that_of_qemu(storage_daemon: StorageDaemon) -> None:
    storage_daemon("chardev-add", id="r", backend=backend("ringbuf"))
    async with open_commands() as run:
        await run.add("r")
        for data in (sample.replace(b"\0", b"") for sample in samples()):  # see differences.md
            text = base64.b64encode(data).decode()
            storage_daemon("ringbuf-write", device="r", data=text, format="base64")
            await write64(run, data)
            expected = storage_daemon("ringbuf-read", device="r", size=99)
            assert await run("ringbuf-read", device="r", size=99) == expected, data


async def test_base64_is_accepted_as_in_qemu(storage_daemon: StorageDaemon) -> None:
    storage_daemon("chardev-add", id="r", backend=backend("ringbuf"))
    chance = random.Random(8)
    async with open_commands() as run:
        await run.add("r")
        for _ in range(300):
            text = "".join(chance.choices("AbZ09+/=\n=\n -", weights=[9] * 11 + [1] * 2, k=7))
            arguments = {"device": "r", "data": text, "format": "base64"}
            reply = storage_daemon("ringbuf-write", **arguments)
            if "error" in reply:
                assert await run.error("ringbuf-write", **arguments) == reply["error"]["desc"]
            else:
                await run("ringbuf-write", **arguments)
            read = {"device": "r", "size": 99, "format": "base64"}
            expected = storage_daemon("ringbuf-read", **read)
            assert await run("ringbuf-read", **read) == expected, text
