"""A terminal with somebody at it, and a board behind a console, for tests of ``attach``."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.services import PROGRAM, TIMEOUT, Qmp, Running, running
from tests.terminals import AtTerminal, read_until as read_until, until as until


@attrs.define
class Terminal(AtTerminal):
    """A terminal in which a program runs."""

    process: subprocess.Popen[bytes]

    def take(self, size: int) -> bytes:
        """Return *size* bytes or more that are shown next."""
        while len(self.seen) < size:
            assert select.select([self.user], [], [], TIMEOUT)[0], self.seen[-1000:]
            self.seen += os.read(self.user, 65536)
        taken, self.seen = self.seen, b""
        return taken

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self.tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def hang_up(self) -> None:
        """Close the user's side."""
        if self.user != -1:
            os.close(self.user)
            self.user = -1

    def wait(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self.user], [], [], 0.01)[0]:  # or it would wait for room
                self.seen += os.read(self.user, 65536)
        while select.select([self.user], [], [], 0)[0]:
            self.seen += os.read(self.user, 65536)
        return self.process.returncode


@contextmanager
def terminal(*arguments: str, cols: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """Run the program at a terminal of its own, of which it has control."""
    with program_at_terminal([*PROGRAM, *arguments], cols, rows) as it:
        yield it


@contextmanager
def program_at_terminal(command: list[str], cols: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """Run *command* so."""
    user, tty_fd = os.openpty()
    fcntl.ioctl(tty_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=tty_fd, stdout=tty_fd, stderr=tty_fd
    )
    it = Terminal(user, tty_fd, process)
    try:
        yield it
    finally:
        process.kill()
        process.wait()
        it.hang_up()
        os.close(tty_fd)


@attrs.define
class Board:
    """A service with the console of a board, which is at a PTY."""

    folder: Path
    service: Running
    device: int
    seen: bytes = b""

    @property
    def socket(self) -> str:
        return str(self.folder / "q")

    def attach(self, *more: str) -> list[str]:
        """The arguments that attach to its console."""
        return ["attach", "-s", self.socket, "board", *more]

    def print(self, data: bytes) -> None:
        os.write(self.device, data)

    def expect(self, text: bytes) -> bytes:
        """Wait until the board got *text*; return what it got before."""
        before, self.seen = read_until(self.device, text, self.seen)
        return before

    def qmp(self) -> Qmp:
        return Qmp(self.folder / "q")

    def kill(self) -> None:
        self.service.process.send_signal(signal.SIGKILL)
        self.service.process.wait()


@contextmanager
def board(folder: Path, *more: str, device: int | None = None, **options: str) -> Iterator[Board]:
    """Serve a board; *options* are those of its console, and *device* that of an earlier one.

    The PTY is the test's own, so that the board outlives the service.
    """
    slave = None
    if device is None:
        device, slave = os.openpty()
        tty.setraw(slave)
        (folder / "device").unlink(missing_ok=True)
        os.symlink(os.ttyname(slave), folder / "device")
    console = "".join(f",{name.replace('_', '-')}={value}" for name, value in options.items())
    arguments = [
        *("--chardev", f"serial,id=board,path={folder}/device,hupcl=off"),
        *("--chardev", f"console,id=board-console{console}"),
        *("--device", "bridge,id=board-bridge,chardev=board,peer=board-console"),
        *("--qmp", f"unix:{folder}/q,server=on,wait=off"),
        *more,
    ]
    try:
        with running(*arguments) as service:
            Qmp(folder / "q").__exit__(None, None, None)  # until it listens
            yield Board(folder, service, device)
    finally:
        if slave is not None:
            os.close(slave)
            os.close(device)
