"""The services of docs/bridge.md do what the page says."""

from __future__ import annotations

import os
import re
import socket
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.services import TIMEOUT, running

PAGE = (Path(__file__).parent.parent / "docs" / "bridge.md").read_text()
COMMANDS = [
    block.replace("\\\n", "").split()
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]


@attrs.frozen
class Ends:
    """Both ends of a service."""

    board: int
    user: socket.socket


@contextmanager
def serving(folder: Path, option: str, **replaced: str) -> Iterator[Ends]:
    """Run the page's command that has *option*, with values *replaced*; its line is a PTY's slave."""
    (command,) = (block for block in COMMANDS if any(f"{option}=" in word for word in block))
    board, line = os.openpty()
    tty.setraw(line)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    assert command[:2] == ["trio-chardev", "serve"]
    words = [word.replace("/dev/ttyUSB0", os.ttyname(line)) for word in command[2:]]
    for name, value in {"port": port, **replaced}.items():
        words = [re.sub(rf"\b{name}=\d+", f"{name}={value}", word) for word in words]
    folder.chmod(0o700)
    try:
        with running(*words, XDG_RUNTIME_DIR=str(folder)), connected(int(port)) as user:
            yield Ends(board, user)
    finally:
        os.close(line)
        os.close(board)


def connected(port: int) -> socket.socket:
    until = time.monotonic() + TIMEOUT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def test_both_commands_are_there() -> None:
    assert len(COMMANDS) == 2


def test_an_answer_on_the_bus_comes_in_one_read(tmp_path: Path) -> None:
    """With a silence that no busy machine makes by itself."""
    with serving(tmp_path, "frame-silence-us", **{"frame-silence-us": "500000"}) as ends:
        ends.user.send(b"\x01\x03\x00\x00\x00\x01\x84\x0a")
        assert os.read(ends.board, 100) == b"\x01\x03\x00\x00\x00\x01\x84\x0a"
        for part in (b"\x01\x03\x02", b"\x12\x34", b"\xb5\x33"):
            os.write(ends.board, part)
            time.sleep(0.02)
        assert ends.user.recv(100) == b"\x01\x03\x02\x12\x34\xb5\x33"


def test_what_is_pasted_comes_no_faster_than_the_boot_loader_can_take_it(tmp_path: Path) -> None:
    with serving(tmp_path, "pace-char-us") as ends:
        begin = time.monotonic()
        ends.user.send(b"setenv a 1\nboot\r\n")
        got = b""
        while len(got) < len(b"setenv a 1\rboot\r"):
            got += os.read(ends.board, 100)
        assert got == b"setenv a 1\rboot\r"
        assert time.monotonic() - begin >= (len(got) - 1) * 0.002 + 0.1
        os.write(ends.board, b"=> ")
        assert ends.user.recv(100) == b"=> "
