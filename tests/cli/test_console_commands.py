"""The commands about consoles and their clients, with a service in a process."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.boards import board, read, say, watching
from tests.cli.calls import Call, wait_for
from tests.services import PROGRAM, TIMEOUT, running


@pytest.fixture
def device(call: Call, path: Path, tmp_path: Path) -> Iterator[socket.socket]:
    with board(call, path, tmp_path) as sock:
        yield sock


@contextmanager
def started(*arguments: str, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program beside the test."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*PROGRAM, *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- send


@pytest.mark.parametrize("name", ["board", "board-console", "board-bridge"])
def test_send_types_at_the_console(call: Call, device: socket.socket, name: str) -> None:
    assert call("send", name, r"ls\x20-l\r\n\t\\é") == (0, "", "")
    assert read(device, 11) == "ls -l\r\n\t\\é".encode()
    assert json.loads(call("clients", "--json")[1]) == []


def test_send_takes_standard_input_as_it_is(device: socket.socket) -> None:
    data = b"\\r\xff\0" * 30_000
    with started("send", "board", stdin=subprocess.PIPE) as process:
        thread = threading.Thread(target=process.communicate, args=[data])
        thread.start()
        assert read(device, len(data)) == data
        thread.join()
        assert process.wait(TIMEOUT) == 0


def test_send_loses_nothing_while_the_board_prints(call: Call, device: socket.socket) -> None:
    """A socket that is closed with something unread would take what it has sent along."""
    done = threading.Event()

    def chat() -> None:
        device.settimeout(None)
        while not done.is_set():
            device.sendall(b"noise\r\n" * 100)

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        for number in range(5):
            text = f"command {number}\r"
            assert call("send", "board", text) == (0, "", "")
            assert read(device, len(text)) == text.encode()
    finally:
        done.set()
        thread.join()


def test_send_says_where_the_answer_begins(call: Call, device: socket.socket) -> None:
    say(call, device, b"boot\r\n")
    status, cursor, _ = call("send", "board", r"id\r", "--cursor")
    assert (status, cursor) == (0, "6\n")
    assert json.loads(call("send", "board", r"id\r", "--json")[1]) == {"cursor": 6, "bytes": 3}
    say(call, device, b"uid=0\r\n# ")
    assert call("expect", "board", "# ", "--since", "6") == (0, "uid=0\r\n# ", "")


def test_send_has_no_more_rights_than_others(call: Call, path: Path, tmp_path: Path) -> None:
    with board(call, path, tmp_path, ",write=first") as device, watching(call, tmp_path):
        status, out, errors = call("send", "board", "x")
        assert (status, out) == (1, "")
        assert errors == (
            f"trio-chardev: client 1 (uid {os.getuid()}) has the right to write "
            "at 'board-console'\n"
        )
        device.setblocking(False)
        with pytest.raises(BlockingIOError):
            device.recv(1)


def test_send_may_take_the_right_that_nobody_has(call: Call, path: Path, tmp_path: Path) -> None:
    with board(call, path, tmp_path, ",write=one") as device, watching(call, tmp_path) as client:
        assert call("send", "board", "x") == (0, "", "")
        assert read(device, 1) == b"x"
        client.sendall(b"y")
        assert read(device, 1) == b"y"
        text = "trio-chardev: client 1 (uid {}) has the right to write at 'board-console'\n"
        assert call("send", "board", "x") == (1, "", text.format(os.getuid()))


def test_send_says_that_nobody_would_get_it(call: Call, device: socket.socket) -> None:
    device.close()
    wait_for(lambda: "waiting" in call("list")[1])
    text = "trio-chardev: nobody is there at 'board': the text would be lost\n"
    assert call("send", "board", "x") == (1, "", text)


def test_send_does_not_wait_for_ever(
    call: Call, device: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_chardev.cli.send.PATIENCE", 0.1)
    status, out, errors = call("send", "board", "x" * 2_000_000)
    assert (status, out) == (1, "")
    assert errors.startswith("trio-chardev: the device takes no more: ")
    assert errors.endswith(" bytes were sent\n")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (
            ["send", "n", "x"],
            1,
            "trio-chardev: 'n' has no console: add one with 'trio-chardev add ",
        ),
        (["send", "x", "x"], 1, "trio-chardev: there is no 'x'; there is: n\n"),
        (["send", "n", r"\q"], 2, "Usage: "),
        (["expect", "n", "x"], 1, "trio-chardev: 'n' has no console: "),
        (["expect", "n", "("], 2, "Usage: "),
        (["expect", "n", "x", "--timeout", "0"], 2, "Usage: "),
        (["expect", "-F", "n", r"\q"], 2, "Usage: "),
        (["history", "x"], 1, "trio-chardev: there is no 'x'; there is: n\n"),
        (["mark", "n", "x"], 1, "trio-chardev: 'n' has no console: "),
        (["clients", "n"], 1, "trio-chardev: 'n' has no console: "),
        (["kick", "n", "1"], 1, "trio-chardev: 'n' has no console: "),
        (["kick", "n", "one"], 2, "Usage: "),
        (["give", "n", "1"], 1, "trio-chardev: 'n' has no console: "),
    ],
)
def test_mistakes(call: Call, arguments: list[str], status: int, text: str) -> None:
    got, out, errors = call(*arguments)
    assert (got, out) == (status, "")
    assert errors.startswith(text)
    assert errors.count("\n") == 1 or status == 2


def test_send_to_another_machine_needs_a_listener(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(
        *("--qmp", f"tcp:127.0.0.1:{port},server=on,wait=off", "--chardev", "console,id=c")
    ):
        at = ("-s", f"127.0.0.1:{port}")
        wait_for(lambda: call("list", *at)[0] == 0)
        status, said, errors = call("send", *at, "c", "x")
        assert (status, said) == (1, "")
        assert errors.startswith(
            "trio-chardev: descriptors can't be passed over TCP, and console 'c' "
        )
        listen = ["device_add", "driver=listener", "console=c", "host=127.0.0.1", "port=0"]
        assert call("qmp", *at, *listen)[0] == 0
        assert call("send", *at, "c", "x") == (0, "", "")
        assert call("send", *at, "c", "x", "--cursor") == (0, "0\n", "")
        assert call("history", *at, "c") == (0, "", "")


# ---------------------------------------------------------------- expect


def test_expect_looks_at_what_came_since(call: Call, device: socket.socket) -> None:
    say(call, device, b"Linux 6.1\r\nlogin: ")
    assert call("expect", "board", "login: ", "--since", "0") == (0, "Linux 6.1\r\nlogin: ", "")
    answer = call("expect", "board", r"(\d)[.](\d)(x)?", "--since", "0", "--json")[1]
    assert json.loads(answer) == {
        "found": True,
        "data": "Linux 6.1",
        "match": "6.1",
        "groups": ["6", "1", None],
        "next": 9,
    }
    assert call("expect", "board", "-F", r".1\r\n", "--since", "0")[0] == 0
    assert call("expect", "board", "login", "--since", "9")[1] == "\r\nlogin"


def test_expect_waits_for_it(device: socket.socket, call: Call) -> None:
    """And does not look at what came before it was called."""
    say(call, device, b"login: ")
    with started("expect", "board", "login: ", "--timeout", "60") as process:
        while process.poll() is None:
            device.sendall(b"x\nlog")
            device.sendall(b"in: ")
            time.sleep(0.01)  # it has no way to tell that it looks
        out, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert out.endswith(b"login: ")


def test_expect_that_is_too_late_prints_what_came(call: Call, device: socket.socket) -> None:
    say(call, device, b"panic")
    text = "trio-chardev: no 'login:' within 0.01 seconds\n"
    arguments = ("expect", "board", "login:", "--timeout", "0.01", "--since", "started")
    status, out, errors = call(*arguments)
    assert (status, errors) == (1, text)
    assert out in ("", "panic")  # it may be too late for that, too
    status, out, errors = call(*arguments[:3], "--timeout", "2", "--since", "0", "--json")
    assert (status, errors) == (1, "trio-chardev: no 'login:' within 2 seconds\n")
    assert json.loads(out) == {"found": False, "data": "panic", "next": 5}


# ---------------------------------------------------------------- history and marks


def test_history_prints_the_bytes(call: Call, device: socket.socket) -> None:
    say(call, device, b"one\r\n")
    assert call("mark", "board", "here") == (0, "5\n", "")
    say(call, device, b"two\r\n")
    cases: list[tuple[list[str], str]] = [
        ([], "one\ntwo\n"),
        (["--since", "here"], "two\n"),
        (["--since", "5"], "two\n"),
        (["--since", "-5"], "two\n"),
        (["--max", "4"], "wo\n"),
        (["--since", "here", "--max", "100"], "two\n"),
        (["--max", "0"], ""),
    ]
    for arguments, shown in cases:
        status, out, errors = call("history", "board", *arguments)
        assert (status, out.replace("\r\n", "\n"), errors) == (0, shown, "")
    found = json.loads(call("history", "board", "--since", "here", "--json")[1])
    assert found == {"data": "two\r\n", "start": 5, "next": 10, "lost": 0}
    assert json.loads(call("mark", "board", "x", "--json")[1]) == {"cursor": 10}
    status, _, errors = call("history", "board", "--since", "nope")
    assert status == 1
    assert errors.startswith("trio-chardev: there is no mark 'nope'; there are: ")
    status, _, errors = call("history", "board", "--since", "11")
    assert status == 1
    assert "nothing was printed behind 10" in errors


def test_history_says_what_is_gone(call: Call, path: Path, tmp_path: Path) -> None:
    with board(call, path, tmp_path) as device:
        for _ in range(3):
            say(call, device, b"x" * 40_000)
        status, out, errors = call("history", "board", "--since", "0")
    assert (status, len(out)) == (0, 65536)
    assert errors == "trio-chardev: 54464 bytes of 'board-console' are gone\n"


def test_history_goes_on_with_each_byte_once_whatever_is_changed(
    call: Call, device: socket.socket, tmp_path: Path
) -> None:
    say(call, device, b"one ")
    with started("history", "board", "-f") as process:
        assert process.stdout is not None
        out = process.stdout.fileno()
        assert os.read(out, 100) == b"one "
        say(call, device, b"two ")
        assert os.read(out, 100) == b"two "
        assert call("change", "board", f"socket,path={tmp_path}/b2,server=on,wait=off")[0] == 0
        assert call("change", "board-console", "console,history=128k")[0] == 0
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(f"{tmp_path}/b2")
            say(call, other, b"three ")
            assert os.read(out, 100) == b"three "
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=TIMEOUT) == (b"", b"")
    assert process.returncode == 130


def test_history_on_a_terminal_asks_it_nothing(call: Call, device: socket.socket) -> None:
    say(call, device, b"\x1b[31mred\x1b[0m \x1b[6n\x1b[c.\r\n")
    master, terminal = pty.openpty()
    try:
        with started("history", "board", stdout=terminal) as process:
            assert process.wait(TIMEOUT) == 0
        shown = os.read(master, 1000)
    finally:
        os.close(master)
        os.close(terminal)
    assert shown.replace(b"\r\r\n", b"\r\n") == b"\x1b[31mred\x1b[0m .\r\n"


# ---------------------------------------------------------------- clients


def test_clients_can_be_seen_kicked_and_given_the_right(
    call: Call, path: Path, tmp_path: Path
) -> None:
    with board(call, path, tmp_path, ",write=one"), watching(call, tmp_path) as client:
        for arguments in (["clients"], ["clients", "board"], ["list", "--clients"]):
            header, row = call(*arguments)[1].splitlines()
            assert header.split()[:5] == ["CONSOLE", "CLIENT", "WHO", "ROLE", "TYPES"]
            expected = ["board-console", "1", "uid", str(os.getuid()), "write", "no"]
            assert row.split()[:6] == expected
        assert call("give", "board", "1") == (0, "", "")
        assert json.loads(call("clients", "board", "--json")[1])[0]["types"] is True
        assert "client: 1" not in call("list")[1]
        assert call("kick", "board", "1", "--reason", "lunch") == (0, "", "")
        assert client.recv(100) == b""
        text = "trio-chardev: console 'board-console' has no client 1\n"
        assert call("kick", "board", "1") == (1, "", text)


def test_list_counts_them(call: Call, device: socket.socket, tmp_path: Path) -> None:
    with watching(call, tmp_path):
        assert json.loads(call("list", "--json")[1])[1]["clients"] == 1
        assert "client    1: uid" in " ".join(call("show", "board")[1].splitlines())


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        (
            [["change", "board-console", "null"]],
            "trio-chardev: Chardev 'board-console' is no console\n",
        ),
        (
            [["remove", "board-bridge"], ["remove", "board-console"]],
            "trio-chardev: Chardev 'board-console' not found\n",
        ),
    ],
)
def test_following_a_console_ends_when_it_is_gone(
    call: Call, device: socket.socket, commands: list[list[str]], text: str
) -> None:
    with started("history", "board", "-f") as process:
        say(call, device, b"x")
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 9) == b"x"
        time.sleep(0.1)  # so that it most likely waits for more
        for command in commands:
            assert call(*command) == (0, "", "")
        assert process.communicate(timeout=20)[1] == text.encode()  # sooner than it asks again
        assert process.returncode == 1
