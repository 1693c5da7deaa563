"""stdio at a terminal with job control: stopped, in the background, ended."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp
from tests.terminals import AtTerminal, until


@attrs.define
class Session(AtTerminal):
    """A shell with job control at a terminal."""

    shell: subprocess.Popen[bytes]


def serve(folder: Path) -> str:
    """The command of a service that echoes at stdio."""
    options = ["--chardev", "stdio,id=s", "--device", "echo,chardev=s"]
    listener = ["--qmp", f"unix:{folder}/q,server=on,wait=off"]
    return shlex.join([*PROGRAM, "serve", *options, *listener])


@contextmanager
def shell(script: str, terminal: tuple[int, int] | None = None) -> Iterator[Session]:
    """Run *script* in a bash that controls a *terminal*, with job control and without prompts."""
    user, tty = terminal or os.openpty()
    command = ["setsid", "--ctty", "bash", "-c", f"ulimit -c 0; set -m; {script}"]
    process = subprocess.Popen(command, stdin=tty, stdout=tty, stderr=tty)
    try:
        yield Session(user, tty, process)
    finally:
        os.close(tty)
        os.close(user)  # hangs up: the shell and its jobs get SIGHUP
        process.kill()
        process.wait()


def state_of(pid: int) -> str:
    """One letter, of proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stop_gives_the_terminal_back_and_going_on_takes_it(tmp_path: Path) -> None:
    with shell(f"{serve(tmp_path)}; echo stopped; read line; fg; echo over") as session:
        until(lambda: session.is_raw)
        session.type(b"one")
        session.expect(b"one")
        session.type(b"\x1a")  # ctrl-Z
        session.expect(b"stopped\r\n")
        assert not session.is_raw
        session.type(b"\n")
        until(lambda: session.is_raw)
        session.type(b"two")
        session.expect(b"two")
        with Qmp(tmp_path / "q") as qmp:
            assert qmp("quit") == {}
        session.expect(b"over\r\n")
        assert not session.is_raw


@pytest.mark.parametrize("keys", [b"\x1c", b""], ids=["the key", "kill"])
def test_sigquit_leaves_the_terminal_as_it_was(tmp_path: Path, keys: bytes) -> None:
    with shell(f"{serve(tmp_path)}; echo status $?") as session:
        until(lambda: session.is_raw)
        if keys:
            session.type(keys)
        else:
            pid = int(subprocess.check_output(["pgrep", "-P", str(session.shell.pid)]))
            os.kill(pid, signal.SIGQUIT)
        session.expect(b"status %d" % (128 + signal.SIGQUIT))
        assert not session.is_raw


def test_in_the_background_it_serves_and_reads_when_it_is_in_the_foreground(
    tmp_path: Path,
) -> None:
    """A read would stop it (SIGTTIN), and what is typed is the shell's."""
    script = f"{serve(tmp_path)} & echo pid $!; read line; echo read $line; fg; echo over"
    with shell(script) as session:
        session.expect(b"pid ")
        session.expect(b"\r\n")
        with Qmp(tmp_path / "q") as qmp:
            pid = int(subprocess.check_output(["pgrep", "-P", str(session.shell.pid)]))
            assert len(qmp("query-chardev")) == 1
            assert not session.is_raw
            session.type(b"for the shell\n")
            session.expect(b"read for the shell\r\n")
            until(lambda: session.is_raw)
            session.type(b"for us")
            session.expect(b"for us")
            assert state_of(pid) in "SR"
            assert qmp("quit") == {}
        session.expect(b"over\r\n")
        assert not session.is_raw


def test_a_service_that_stays_in_the_background_never_touches_the_modes(tmp_path: Path) -> None:
    with shell(f"{serve(tmp_path)} & read line; wait; echo over") as session:
        with Qmp(tmp_path / "q") as qmp:
            session.type(b"mine\n")
            for _ in range(3):
                assert len(qmp("query-chardev")) == 1
                assert not session.is_raw
            assert qmp("quit") == {}
        session.expect(b"over\r\n")
        assert not session.is_raw


def test_output_in_the_background_goes_on_with_tostop(tmp_path: Path) -> None:
    """SIGTTOU, too, would stop the whole service."""
    options = ["--chardev", "stdio,id=s", "--device", "chargen,chardev=s"]
    listener = ["--qmp", f"unix:{tmp_path}/q,server=on,wait=off"]
    command = shlex.join([*PROGRAM, "serve", *options, *listener])
    with shell(f"stty tostop; {command} & wait; echo over") as session:
        session.expect(b"#$%&'()*")
        session.expect(b"#$%&'()*")
        with Qmp(tmp_path / "q") as qmp:
            assert qmp("quit") == {}
        session.expect(b"over\r\n")


def test_two_programs_at_one_pipe_do_not_notice_each_other(tmp_path: Path) -> None:
    """`2>&1 | tee`: with O_NONBLOCK on the pipe log lines of others vanished when it was full."""
    reader, writer = os.pipe()
    options = ["--chardev", "stdio,id=s", "--qmp", f"unix:{tmp_path}/q,server=on,wait=off"]
    process = subprocess.Popen(
        [*PROGRAM, "serve", *options], stdin=subprocess.DEVNULL, stdout=writer, stderr=writer
    )
    try:
        with Qmp(tmp_path / "q") as qmp:
            assert len(qmp("query-chardev")) == 1
            assert os.get_blocking(writer)
            other = "import sys; sys.stdout.write('x' * 200_000)"
            with subprocess.Popen([sys.executable, "-c", other], stdout=writer) as writing:
                os.close(writer)
                got = 0
                while got < 200_000:
                    got += len(os.read(reader, 1000))
                assert writing.wait(TIMEOUT) == 0
            assert qmp("quit") == {}
        assert process.wait(TIMEOUT) == 0
        assert os.read(reader, 100) == b""
    finally:
        process.kill()
        process.wait()
        os.close(reader)
