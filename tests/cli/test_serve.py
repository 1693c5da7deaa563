"""``trio-chardev serve`` as its users meet it."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.services import PROGRAM, TIMEOUT, Qmp, running, until
from trio_chardev.cli import main
from trio_chardev.cli.address import default_monitor_path
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.serve import serve
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import OptionsError
from trio_chardev.service import Service


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the program within this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["trio-chardev", "serve", *arguments])
    with pytest.raises(SystemExit) as raised:
        main()
    code = raised.value.code
    return code if isinstance(code, int) else 0


# ---------------------------------------------------------------- options


def test_chardevs_monitors_and_listeners(tmp_path: Path) -> None:
    arguments = [
        *("--chardev", "ringbuf,id=r,size=4k"),
        *("--chardev", f"socket,id=m,path={tmp_path}/m,server=on,wait=off"),
        *("--chardev", "pty,id=p"),
        *("--monitor", "m"),
        *("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
        *("--qmp", "chardev:c", "--chardev", f"socket,id=c,path={tmp_path}/c,server=on,wait=off"),
        *("--pidfile", f"{tmp_path}/pid"),
    ]
    with running(*arguments) as service:
        said = service.wait_line()
        assert said.startswith("char device redirected to /dev/pts/")
        assert said.endswith(" (label p)")
        for path in (tmp_path / "m", tmp_path / "q", tmp_path / "c"):
            with Qmp(path) as qmp:
                rows = {row["label"]: row for row in qmp("query-chardev")}
                assert set(rows) == {"r", "m", "p", "c"}
                assert rows["m"]["frontend-open"] is True
                assert rows["r"] == {"label": "r", "filename": "ringbuf", "frontend-open": False}
        assert (tmp_path / "pid").read_text() == f"{service.process.pid}\n"
        status, seconds, errors = service.stop()
    assert (status, errors) == (0, "")
    assert seconds < CLEANUP_TIMEOUT, "a deadline was run into"
    assert list(tmp_path.iterdir()) == []


def test_an_absent_serial_line_does_not_keep_the_service_from_its_start(tmp_path: Path) -> None:
    """It is closed, and looked for; a client that adds one is told of a mistake."""
    absent = f"{tmp_path}/ttyUSB0"
    options = ("--qmp", f"unix:{tmp_path}/q,server=on,wait=off")
    line = ("--chardev", f"serial,id=board,path={absent},reopen-ms=20")
    with running(*options, *line) as service, Qmp(tmp_path / "q") as qmp:
        rows = {row["label"]: row["filename"] for row in qmp("query-chardev")}
        assert rows == {"board": "disconnected:serial"}
        answer = qmp.add("other", "serial", device=absent)
        assert answer.endswith(f"Could not open '{absent}': No such file or directory")
        assert qmp.add("later", "serial", device=absent, wait=False) == {}
        master, slave = os.openpty()
        os.symlink(os.ttyname(slave), absent)
        qmp.wait_opened("board", "later")
        service.stop()
    os.close(slave)
    os.close(master)


def test_an_absent_serial_line_that_is_waited_for_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for more in ("wait=on", "reopen-ms=0"):
        option = f"serial,id=board,path={tmp_path}/none,{more}"
        assert call(monkeypatch, "--chardev", option) == 1
        assert "none': No such file or directory" in capsys.readouterr().err


def test_mux_on_puts_a_mux_on_the_backend(tmp_path: Path) -> None:
    """A monitor on it shares the terminal with others."""
    backend = f"socket,id=s,path={tmp_path}/s,server=on,wait=off,mux=on"
    qmp = f"unix:{tmp_path}/q,server=on,wait=off"
    with running("--chardev", backend, "--monitor", "s", "--qmp", qmp), Qmp(tmp_path / "q") as one:
        filenames = {row["label"]: row["filename"] for row in one("query-chardev")}
        assert filenames == {"s-base": f"disconnected:unix:{tmp_path}/s,server=on", "s": "mux"}
        with Qmp(tmp_path / "s") as other:
            assert len(other("query-chardev")) == 2


@pytest.mark.parametrize("number", ["20", "0x14", "024"])
def test_echr_is_the_character_before_a_command_to_a_mux(tmp_path: Path, number: str) -> None:
    backend = f"socket,id=s,path={tmp_path}/s,server=on,wait=off,mux=on"
    arguments = ["--chardev", backend, "--monitor", "s", "--echr", number]
    with running(*arguments), Qmp(tmp_path / "s") as qmp:
        qmp.write(b"\x14h")
        assert read_until(qmp._sock.fileno(), b"send C-t\r\n").startswith(b"\r\nC-t h ")


@pytest.mark.parametrize("number", ["", "x", "-1", "256", "0x", "1 "])
def test_echr_is_a_number(
    number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--echr", number) == 1
    assert capsys.readouterr().err == f"trio-chardev: --echr {number}: Bad argument to echr\n"


def test_pretty(tmp_path: Path) -> None:
    chardev = f"socket,id=m,path={tmp_path}/m,server=on,wait=off"
    with running("--chardev", chardev, "--monitor", "chardev=m,mode=control,pretty=on"):
        deadline = time.monotonic() + TIMEOUT
        with socket.socket(socket.AF_UNIX) as sock:
            while sock.connect_ex(f"{tmp_path}/m") != 0:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert sock.recv(20).startswith(b'{\r\n    "QMP": {\r\n')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_well(tmp_path: Path, number: int) -> None:
    listener = f"unix:{tmp_path}/q,server=on,wait=off"
    with running("--qmp", listener) as service, Qmp(tmp_path / "q") as qmp:
        status, seconds, errors = service.stop(number)
        event = qmp.read()
        assert (event["event"], event["data"]["reason"]) == ("SHUTDOWN", "host-signal")
        assert qmp.read() is None
    assert (status, errors) == (0, "")
    assert seconds < CLEANUP_TIMEOUT, "a deadline was run into"
    assert not (tmp_path / "q").exists()


def test_quit_ends_it(tmp_path: Path) -> None:
    with running("--qmp", f"unix:{tmp_path}/q,server=on,wait=off") as service:
        with Qmp(tmp_path / "q") as qmp:
            assert qmp("quit") == {}
            assert [event["data"]["reason"] for event in qmp.events] == ["host-qmp-quit"]
            assert qmp.read() is None
        assert service.process.wait(timeout=TIMEOUT) == 0


def test_a_signal_comes_through_while_a_chardev_waits_for_its_client(tmp_path: Path) -> None:
    chardev = f"socket,id=w,path={tmp_path}/w,server=on,wait=on"
    with running("--chardev", chardev, "--pidfile", f"{tmp_path}/pid") as service:
        deadline = time.monotonic() + TIMEOUT
        while not (tmp_path / "w").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        status, seconds, errors = service.stop()
    assert status == 0
    assert [line for line in errors.splitlines() if "waiting for connection on" not in line] == []
    assert seconds < CLEANUP_TIMEOUT, "a deadline was run into"
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_stands_still_says_whom_it_waits_for(tmp_path: Path) -> None:
    """As QEMU does; also without -v."""
    chardev = f"socket,id=w,path={tmp_path}/w,server=on,wait=on"
    with running("--chardev", chardev) as service:
        assert service.process.stderr is not None
        line = json.loads(service.process.stderr.readline())
        del line["time"]
        assert line == {
            "level": "notice",
            "area": "socket",
            "chardev": "w",
            "message": "chardev 'w': waiting for connection on: "
            f"disconnected:unix:{tmp_path}/w,server=on",
        }


# ---------------------------------------------------------------- mistakes


def test_a_mistake_is_one_line_and_status_1() -> None:
    done = subprocess.run(
        [*PROGRAM, "serve", "--chardev", "bogus,id=x"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    line = "trio-chardev: --chardev bogus,id=x: 'bogus' is not a valid char driver name\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_misuse_is_status_2() -> None:
    done = subprocess.run(
        [*PROGRAM, "serve", "--bogus"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--chardev", "null,id=x,foo=1"], "--chardev null,id=x,foo=1: Invalid parameter 'foo'"),
        (["--chardev", "null"], "--chardev null: chardev: no id specified"),
        (
            ["--chardev", "null,id=x", "--chardev", "pty,id=x"],
            "--chardev pty,id=x: Duplicate ID 'x' for chardev",
        ),
        (
            ["--chardev", "null,id=x-base", "--chardev", "pty,id=x,mux=on"],
            "--chardev pty,id=x,mux=on: Duplicate ID 'x-base' for chardev",
        ),
        (
            ["--chardev", "file,id=x,path=/missing/f"],
            "--chardev file,id=x,path=/missing/f: "
            "Could not open '/missing/f': No such file or directory",
        ),
        (
            ["--chardev", "ringbuf,id=x,size=3"],
            "--chardev ringbuf,id=x,size=3: size of ringbuf chardev must be power of two",
        ),
        (["--monitor", "m"], "--monitor m: Chardev 'm' not found"),
        (
            ["--chardev", "null,id=m", "--monitor", "m", "--monitor", "m"],
            "--monitor m: Device 'm' is in use",
        ),
        (
            ["--chardev", "null,id=m", "--monitor", "m,mode=readline"],
            "--monitor m,mode=readline: Parameter 'mode' does not accept value 'readline'\n"
            "trio-chardev: Only QMP is spoken here (mode=control): there is no monitor for people.",
        ),
        (
            ["--chardev", "vc,id=x"],
            "--chardev vc,id=x: 'vc' is not a valid char driver name\n"
            "trio-chardev: It belongs to an emulated machine or its display: only QEMU has it.",
        ),
        (
            ["--chardev", "socket,id=x,port=4"],
            "--chardev socket,id=x,port=4: One of 'path', 'fd' or 'host' option required.",
        ),
        (
            ["--qmp", "tcp:0.0.0.0:0,server=on,wait=off"],
            "--qmp tcp:0.0.0.0:0,server=on,wait=off: A monitor at '0.0.0.0' needs TLS with 'verify-peer', "
            "a loopback address, or insecure=on",
        ),
        (
            ["--chardev", "socket,id=m,host=0.0.0.0,port=0,server=on,wait=off", "--monitor", "m"],
            "--monitor m: A monitor at '0.0.0.0' needs TLS with 'verify-peer', "
            "a loopback address, or insecure=on",
        ),
        (
            ["--qmp", "unix:/missing/q,server=on,wait=off,insecure=maybe"],
            "--qmp unix:/missing/q,server=on,wait=off,insecure=maybe: "
            "Parameter 'insecure' expects 'on' or 'off'",
        ),
        (["--qmp", "nonsense"], "--qmp nonsense: 'nonsense' is not a valid char driver"),
        (
            ["--pidfile", "/missing/pid"],
            "cannot create PID file '/missing/pid': No such file or directory",
        ),
    ],
)
def test_mistakes(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *arguments) == 1
    assert capsys.readouterr() == ("", f"trio-chardev: {line}\n")


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = f"tcp:127.0.0.1:{port},server=on,wait=off"
        assert call(monkeypatch, "--qmp", address) == 1
    errors = capsys.readouterr().err
    assert errors == (
        f"trio-chardev: --qmp {address}: Failed to find an available port: Address already in use\n"
    )


def test_a_bad_id_comes_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--chardev", "null,id=1x") == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first == "trio-chardev: --chardev null,id=1x: Parameter 'id' expects an identifier"
    assert hint.startswith("trio-chardev: Identifiers consist of letters")


def test_after_a_mistake_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("--chardev", f"socket,id=s,path={tmp_path}/s,server=on,wait=off"),
        *("--pidfile", f"{tmp_path}/pid", "--monitor", "missing"),
    ]
    assert call(monkeypatch, *arguments) == 1
    assert list(tmp_path.iterdir()) == []


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--chardev", "help") == 0
    kinds = capsys.readouterr().out
    assert all(kind in kinds for kind in ("null", "pty", "socket", "serial"))
    assert call(monkeypatch, "--chardev", "socket,help") == 0
    options = capsys.readouterr().out
    assert all(option in options for option in ("path", "host", "port", "server", "reconnect"))


def test_short_form_booleans_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--chardev", "socket,id=s,path=/missing/s,server,nowait"]
    assert call(monkeypatch, *arguments) == 1
    errors = capsys.readouterr().err
    assert "trio-chardev: warning: short-form boolean option 'server' deprecated" in errors


# ---------------------------------------------------------------- the default monitor


def test_the_default_monitor_is_in_xdg_runtime_dir(tmp_path: Path) -> None:
    with running(XDG_RUNTIME_DIR=str(tmp_path)) as service:
        path = tmp_path / "trio-chardev" / "qmp.sock"
        assert service.wait_line() == f"QMP at {path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with Qmp(path) as qmp:
            assert qmp("query-chardev") == []
        assert service.stop()[0] == 0
        assert not path.exists()


def test_without_xdg_runtime_dir_it_is_in_a_private_folder(tmp_path: Path) -> None:
    with running(XDG_RUNTIME_DIR="", TMPDIR=str(tmp_path)) as service:
        path = tmp_path / f"trio-chardev-{os.getuid()}" / "qmp.sock"
        assert service.wait_line() == f"QMP at {path}"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_others_may_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "trio-chardev"
    folder.mkdir()
    for mode in (0o755, 0o701, 0o720):
        folder.chmod(mode)
        with pytest.raises(OptionsError, match=r"is not a folder of yours alone$"):
            default_monitor_path()
    folder.chmod(0o700)
    assert default_monitor_path() == folder / "qmp.sock"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OptionsError, match=r"is not a folder of yours alone$"):
        default_monitor_path()


def test_a_link_to_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "trio-chardev").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OptionsError, match=r"is not a folder of yours alone$"):
        default_monitor_path()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "trio-chardev").touch()
    with pytest.raises(OptionsError, match=r"^Could not create '.*': File exists$"):
        default_monitor_path()


# ---------------------------------------------------------------- the pid file


def test_the_pid_file_lets_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pidfile = tmp_path / "pid"
    qmp = ("--qmp", f"unix:{tmp_path}/q,server=on,wait=off")
    with running(*qmp, "--pidfile", str(pidfile)) as service:
        with Qmp(tmp_path / "q"):
            assert call(monkeypatch, "--pidfile", str(pidfile)) == 1
            text = f"trio-chardev: cannot create PID file '{pidfile}': "
            assert capsys.readouterr().err.startswith(text)
            assert pidfile.read_text() == f"{service.process.pid}\n"
        assert service.stop()[0] == 0
    assert not pidfile.exists()


def test_a_stale_pid_file_is_taken_over(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text("99999999999\n")
    qmp = ("--qmp", f"unix:{tmp_path}/q,server=on,wait=off")
    with running(*qmp, "--pidfile", str(pidfile)) as service, Qmp(tmp_path / "q"):
        assert pidfile.read_text() == f"{service.process.pid}\n"


# ---------------------------------------------------------------- on a terminal


def test_a_monitor_on_a_terminal_gives_it_back_as_it_was() -> None:
    master, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    arguments = ["--chardev", "stdio,id=m", "--monitor", "m"]
    process = subprocess.Popen(
        [*PROGRAM, "serve", *arguments], stdin=terminal, stdout=terminal, stderr=subprocess.PIPE
    )
    try:
        assert b'{"QMP": ' in read_until(master, b"\n")
        assert termios.tcgetattr(terminal) != before
        os.write(master, b'{"execute": "qmp_capabilities"}{"execute": "query-chardev"}')
        assert b'"filename": "stdio"' in read_until(master, b"]}")
        process.terminate()
        assert b"SHUTDOWN" in read_until(master, b"\n")
        assert process.communicate(timeout=TIMEOUT)[1] == b""
        assert process.returncode == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(terminal)


def test_a_monitor_and_keys_on_one_terminal() -> None:
    """``mon:stdio``; ctrl-C is a byte of the mux's, and C-a x stops the service."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--qmp", "mon:stdio"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
    )
    try:
        assert b'{"QMP": ' in read_until(master, b"\n")
        os.write(master, b"\x03\x01h")  # a monitor complains of ctrl-C
        assert b"\nC-a x       stop the service\r" in read_until(master, b"send C-a")
        os.write(master, b"\x01x")
        assert b"trio-chardev: Terminated" in read_until(master, b"Terminated")
        assert process.communicate(timeout=TIMEOUT)[1] == b""
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(terminal)


def read_until(fd: int, end: bytes) -> bytes:
    data = b""
    while end not in data:
        assert select.select([fd], [], [], TIMEOUT)[0], data
        data += os.read(fd, 4096)
    return data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_second_signal_lets_all_be_put_back(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the service is closed: what would be left is a raw terminal, for one."""
    closed = []
    close = Service.close

    async def settle(service: Service) -> None:
        signal.raise_signal(number)
        await trio.testing.wait_all_tasks_blocked()

    def note_close(service: Service) -> None:
        close(service)
        closed.append(service)

    monkeypatch.setattr(Service, "settle", settle)
    monkeypatch.setattr(Service, "close", note_close)
    options = ServeOptions.parse([], [], [f"unix:{tmp_path}/q,server=on"], None, print)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, options)
            await until((tmp_path / "q").exists)
            signal.raise_signal(number)
    assert closed


def test_without_room_in_epoll_for_trio_itself_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FullEpoll:
        """Has room for the one that wakes Trio up when it polls, and no more."""

        def __init__(self) -> None:
            self._epoll = epoll()
            self._room = 1

        def register(self, fd: int, mask: int) -> None:
            self._room -= 1
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._epoll.register(fd, mask)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._epoll, name)

    epoll = select.epoll
    monkeypatch.setattr(sys, "argv", ["trio-chardev", "serve"])
    monkeypatch.setattr(select, "epoll", FullEpoll)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "trio-chardev: Could not begin: No space left on device\n"


@pytest.mark.parametrize("call", ["epoll", "socketpair"])
def test_without_descriptors_for_trio_itself_it_says_so(
    call: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(sys, "argv", ["trio-chardev", "serve"])
    monkeypatch.setattr(select if call == "epoll" else socket, call, fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "trio-chardev: Could not begin: Too many open files\n"
