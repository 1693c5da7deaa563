"""Real QMP clients, and people who type QMP, with a service in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from tests.peers import need
from tests.services import Qmp, Running, running

CHARDEVS = 10_000
BATCH = 100


@contextlib.contextmanager
def service_in(folder: Path) -> Iterator[Running]:
    """Its monitors are at ``folder / "q"``, for many, and ``"m"``, for one at a time."""
    arguments = [
        *("--chardev", f"socket,id=m,path={folder}/m,server=on,wait=off", "--monitor", "m"),
        *("--qmp", f"unix:{folder}/q,server=on,wait=off"),
    ]
    with running(*arguments) as process:
        with Qmp(folder / "q"):  # it listens
            pass
        yield process


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    """One that the test may end, in *tmp_path*."""
    with service_in(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("service")
    with service_in(folder):
        yield folder


@pytest.fixture
def folder(kept_folder: Path) -> Iterator[Path]:
    """Of one that stays for the next test, which does not find what this one has made."""
    yield kept_folder
    with Qmp(kept_folder / "q") as qmp:
        for row in qmp("query-chardev"):
            if row["label"] != "m":
                assert qmp("chardev-remove", id=row["label"]) == {}


# ---------------------------------------------------------------- qemu.qmp


async def drive(path: Path) -> None:
    """What a manager of VMs does."""
    qmp = QMPClient("test")
    await qmp.connect(str(path))
    assert qmp.greeting is not None

    async def run(name: str, **arguments: Any) -> Any:
        return await qmp.execute(name, arguments)

    await run("chardev-add", id="c", backend={"type": "ringbuf", "data": {"size": 64}})
    await run("ringbuf-write", device="c", data="hé")
    assert await run("ringbuf-read", device="c", size=10) == "hé"
    assert (await run("chardev-change", id="c", backend={"type": "pty", "data": {}}))["pty"]
    rows: Any = await run("query-chardev")
    assert {row["label"] for row in rows} == {"c", "m"}
    with pytest.raises(ExecuteError, match="Chardev 'x' not found"):
        await run("chardev-remove", id="x")
    await run("chardev-remove", id="c")
    with qmp.listener("SHUTDOWN") as listener:
        await run("quit")
        event = await listener.get()
        assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
    with contextlib.suppress(EOFError):  # the service may have been faster
        await qmp.disconnect()


@pytest.mark.parametrize("name", ["q", "m"])
def test_the_client_of_qemu(service: Running, tmp_path: Path, name: str) -> None:
    asyncio.run(asyncio.wait_for(drive(tmp_path / name), 10))
    assert service.process.wait(timeout=5) == 0


def test_the_shell_of_qemu(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from qemu.qmp.qmp_shell import main; main()", str(folder / "q")],
        input="chardev-add id=a backend={'type':'null','data':{}}\nquery-chardev\n",
        capture_output=True,
        text=True,
        timeout=10,
        env={"HOME": str(folder)},
    )
    assert "Connected to QEMU 7.2" in done.stdout
    assert '"label": "a"' in done.stdout


def test_the_tui_of_qemu(folder: Path) -> None:
    """It draws the greeting, and the answer to what is typed at it."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (60, 120))  # rows, columns
    tui = subprocess.Popen(
        [sys.executable, "-m", "qemu.qmp.qmp_tui", str(folder / "q")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(terminal)
    try:
        draw_until(master, '"capabilities"')
        draw_until(master, '"label"', b'{"execute": "query-chardev"}\x1b\r')  # alt-enter sends it
    finally:
        tui.kill()
        tui.wait()
        os.close(master)


def draw_until(screen: int, text: str, typed: bytes = b"") -> None:
    """Press the down key, which gets to the line for input, and makes it draw what is new.

    *typed* comes after it. All that again and again: what comes while it starts may be thrown
    away, and more and more slowly, so that it can keep up where the machine is busy.
    """
    drawn = b""
    pause = 0.05
    deadline = time.monotonic() + 30
    while text.encode() not in drawn:
        assert time.monotonic() < deadline, drawn
        os.write(screen, b"\x1b[B" + typed)
        while text.encode() not in drawn and select.select([screen], [], [], pause)[0]:
            drawn += os.read(screen, 65536)
        pause = min(1.5 * pause, 1)


# ---------------------------------------------------------------- by hand


def socat(path: Path, data: bytes) -> list[Any]:
    """What comes back when *data* is piped into socat, which then shuts down its side."""
    done = subprocess.run(
        [need("socat"), "-", f"UNIX-CONNECT:{path}"], input=data, capture_output=True, timeout=10
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def add(id: str) -> bytes:
    arguments = {"id": id, "backend": {"type": "null", "data": {}}}
    return json.dumps({"execute": "chardev-add", "arguments": arguments}).encode()


@pytest.mark.parametrize("name", ["q", "m"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_all_that_is_piped_in_is_answered(folder: Path, name: str, end: bytes) -> None:
    """Though its end has come long before the last answer."""
    commands = [b'{"execute": "qmp_capabilities"}', add("a"), add("b"), add("a")]
    commands.append(b'{"execute": "query-chardev"}')
    greeting, *replies, last = socat(folder / name, end.join(commands))
    assert "QMP" in greeting
    assert replies[:3] == [{"return": {}}] * 3
    assert replies[3]["error"]["desc"] == "Chardev with id 'a' already exists"
    assert {row["label"] for row in last["return"]} == {"a", "b", "m"}


def test_junk_then_recovery(folder: Path) -> None:
    data = b'HELO there\r\n\r\n\xff{"execute": "qmp_capabilities", "id": 1}'
    _, *errors, last = socat(folder / "q", data)
    assert last == {"return": {}, "id": 1}
    assert errors
    assert all(error["error"]["class"] == "GenericError" for error in errors)


def test_what_is_piped_in_is_answered_as_by_qemu(folder: Path) -> None:
    program = need("qemu-storage-daemon")
    monitor = f"socket,id=m,path={folder}/qsd,server=on,wait=on"
    data = b"".join(
        [
            b'{"execute": "query-chardev"}nonsense {"execute": 5, "id": [1]}\r\n',
            b'{"execute": "qmp_capabilities"}{"execute": "qmp_capabilities"}',
            add("a") + add("a") + b'{"execute": "chardev-remove", "arguments": {"id": "x"}}',
            b'{"execute": "chardev-change", "arguments": {"id": "x"}} [} {"execute": "x"}',
            b'{"execute": "chardev-remove", "arguments": {"id": "m"}, "id": {"z": 1.0}}',
        ]
    )
    daemon = subprocess.Popen([program, "--chardev", monitor, "--monitor", "chardev=m"])
    try:
        with Qmp(folder / "qsd"):
            pass
        theirs = socat(folder / "qsd", data)
    finally:
        daemon.kill()
        daemon.wait()
    assert socat(folder / "m", data)[1:] == theirs[1:]


# ---------------------------------------------------------------- scale


def test_ten_thousand_chardevs(service: Running, tmp_path: Path) -> None:
    with Qmp(tmp_path / "q") as qmp:
        for first in range(0, CHARDEVS, BATCH):
            qmp.write(b"".join(add(f"n{n}") for n in range(first, first + BATCH)))
            taken = 0
            while taken < BATCH:
                message = qmp.read()
                assert message.get("return", {}) == {}, message
                taken += "return" in message
        labels = [row["label"] for row in qmp("query-chardev")]
        assert labels == ["m", *(f"n{n}" for n in range(CHARDEVS))]
        assert qmp("chardev-remove", id="n5000") == {}
        assert len(qmp("query-chardev")) == CHARDEVS
    status, _, errors = service.stop()
    assert (status, errors) == (0, "")
