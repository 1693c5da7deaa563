"""The commands of docs/from-ser2net.md and docs/board-tools.md do what the pages say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.peers import free_port, ser2net_argv
from tests.services import PROGRAM, TIMEOUT, Qmp, Running, running
from tests.wires import Wire, wire

serial: Any = pytest.importorskip("serial", reason="pyserial, of the extra 'test', is missing")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial

DOCS = Path(__file__).parent.parent / "docs"
BIN = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@attrs.define
class Board:
    """A line whose other end answers what it is sent, and keeps it."""

    wire: Wire
    got: bytearray = attrs.Factory(bytearray)
    is_over: bool = False
    has: threading.Condition = attrs.Factory(threading.Condition)

    def run(self) -> None:
        with suppress(OSError):  # it is closed
            while (data := os.read(self.wire.board, 4096)) and not self.is_over:
                os.write(self.wire.board, data)
                with self.has:
                    self.got += data
                    self.has.notify_all()

    def wait(self, data: bytes) -> None:
        with self.has:
            assert self.has.wait_for(lambda: data in self.got, TIMEOUT), bytes(self.got)


@contextmanager
def board() -> Iterator[Board]:
    with wire() as ends:
        here = Board(ends)
        thread = threading.Thread(target=here.run)
        thread.start()
        try:
            yield here
        finally:
            here.is_over = True
            os.write(ends.line, b"!")  # wakes the thread
            thread.join()


@attrs.define
class Site:
    """What the pages' names stand for here."""

    folder: Path
    board: Board
    port: int
    other: Board | None = None

    @property
    def qmp(self) -> Path:
        return self.folder / "qmp.sock"

    def named(self, text: str) -> str:
        for page, here in {
            "/run/trio-chardev/qmp.sock": str(self.qmp),
            "/dev/ttyUSB0": self.board.wire.path,
            "/dev/ttyUSB1": self.board.wire.path if self.other is None else self.other.wire.path,
            "4001": str(self.port),
            "\\\n": "",
        }.items():
            text = text.replace(page, here)
        return text

    @contextmanager
    def serving(self, command: str, *more: str) -> Iterator[Running]:
        arguments = shlex.split(self.named(command))
        assert arguments[:2] == ["trio-chardev", "serve"]
        with running(*arguments[2:], *more) as service, Qmp(self.qmp):
            yield service


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with board() as here:
        yield Site(tmp_path, here, int(free_port()))


def run(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of ours, or of a program that is installed beside Python."""
    name, *arguments = shlex.split(command)
    argv = PROGRAM if name == "trio-chardev" else [str(BIN / name)]
    return subprocess.run(
        [*argv, *arguments], capture_output=True, text=True, timeout=TIMEOUT, **options
    )


def use(port: int, speed: int, here: Board) -> None:
    """Use the board as a client does, which sets its line."""
    url = f"rfc2217://127.0.0.1:{port}?ign_set_control"
    with serial.serial_for_url(url, baudrate=speed, timeout=TIMEOUT) as client:
        client.write(b"hello")
        assert client.read(5) == b"hello"
        assert here.wire.speed == getattr(termios, f"B{speed}")


# ---------------------------------------------------------------- from-ser2net.md


def test_what_ser2net_does_is_done_here_too(site: Site) -> None:
    (config,) = blocks("from-ser2net.md", "yaml")
    text = site.named(config).replace("serialdev,", "serialdev(nouucplock=true),")
    ser2net = subprocess.Popen(ser2net_argv(text, site.folder), stderr=subprocess.DEVNULL)
    try:
        _wait_for_listener(site.port)
        use(site.port, 9600, site.board)
    finally:
        ser2net.kill()
        ser2net.wait()
    serve, change = blocks("from-ser2net.md", "sh")
    qmp = f"unix:{site.qmp},server=on,wait=off"
    with site.serving(serve, "--qmp", qmp), board() as other:
        site.other = other
        use(site.port, 300, site.board)
        command = site.named(change).replace("change ", f"change -s {site.qmp} ")
        done = run(command)
        assert (done.returncode, done.stderr) == (0, "")
        use(site.port, 300, other)


def _wait_for_listener(port: int) -> None:
    """Ask the kernel, as connecting would take the place of the one client."""
    entry = f":{port:04X} 00000000:0000 0A"  # proc(5): TCP_LISTEN
    for _ in range(int(TIMEOUT / 0.01)):
        if entry in Path("/proc/net/tcp").read_text():
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"nobody listens at {port}")


# ---------------------------------------------------------------- board-tools.md

SERVE, MINITERM, ESPTOOL, SEQUENCE = blocks("board-tools.md", "sh")


def test_the_program_with_pyserial(site: Site) -> None:
    (program,) = blocks("board-tools.md", "python")
    with site.serving(SERVE):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", site.named(program)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    assert (done.stdout, done.stderr) == ("b'hello\\n'\n", "")


def test_miniterm(site: Site) -> None:
    keys, terminal = os.openpty()
    with site.serving(SERVE):
        name, *arguments = shlex.split(site.named(MINITERM))
        process = subprocess.Popen(
            [str(BIN / name), *arguments], stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        try:
            _read_until(keys, b"Miniterm on")
            os.write(keys, b"typed")
            site.board.wait(b"typed")
            _read_until(keys, b"typed")
            os.write(keys, b"\x1d")  # ctrl-]
            _read_until(keys, b"--- exit ---")
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
            os.close(keys)


def _read_until(fd: int, text: bytes) -> None:
    got = b""
    while text not in got:
        got += os.read(fd, 4096)


def test_esptool_asks_the_chip_after_a_reset_by_us_or_by_itself(site: Site) -> None:
    """The board is none: it gets what the boot loader of a chip would get."""
    pytest.importorskip("esptool", reason="esptool, of the extra 'test', is missing")
    sync = bytes.fromhex("c0 00 08 24 00")  # SLIP, a request, SYNC, 36 bytes
    with site.serving(SERVE):
        for command in (ESPTOOL, *SEQUENCE.splitlines()):
            command = site.named(command)
            if command.startswith("esptool"):
                site.board.got.clear()
                done = run(command.replace("chip-id", "--connect-attempts 1 chip-id"))
                assert "Failed to connect" in done.stdout + done.stderr
                site.board.wait(sync)
            else:
                done = run(command)
                assert "has no modem lines" in done.stderr, done  # a PTY


def test_labgrids_configuration(site: Site) -> None:
    labgrid: Any = pytest.importorskip("labgrid", reason="labgrid, of the extra 'test', is missing")
    (config,) = blocks("board-tools.md", "yaml")
    path = site.folder / "env.yaml"
    path.write_text(site.named(config))
    with site.serving(SERVE):
        target = labgrid.Environment(str(path)).get_target("main")
        console = target.get_driver("SerialDriver")
        console.sendline("uname")
        console.expect("uname", timeout=TIMEOUT)
        target.deactivate(console)
    assert site.board.wire.speed == termios.B115200
