"""The descriptors that the program was started with."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp
from trio_chardev.cli.inherited import Inherited, fill_standard
from trio_chardev.errors import BackendError


@contextmanager
def started(
    *arguments: str, fds: Sequence[socket.socket] = (), names: str | None = None, prelude: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Start ``serve``, with *fds* from 3 on by a shell, as systemd does if there are *names*."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environ.pop("LISTEN_FDS", None)
    if names is not None:
        environ |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
        prelude += " LISTEN_PID=$$; export LISTEN_PID;"
    moves = " ".join(f"{3 + i}<&{sock.fileno()}" for i, sock in enumerate(fds))
    command = [*PROGRAM, "serve", *arguments]
    if prelude or moves:
        command = ["bash", "-c", f"{prelude} exec {shlex.join(command)} {moves}"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        pass_fds=[sock.fileno() for sock in fds],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str]) -> str:
    """End it as systemd does; what it said on standard error."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    return said


def said_at_its_end(process: subprocess.Popen[str]) -> str:
    """What a start that fails says."""
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, said
    return said


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens at ``tmp_path / "q"``, as systemd makes them."""
    with socket.socket(socket.AF_UNIX) as sock:
        # Above what the tests name, so that a shell can move it there.
        sock.bind(str(tmp_path / "q"))
        sock.listen()
        with high(sock) as moved:
            yield moved


@contextmanager
def high(sock: socket.socket) -> Iterator[socket.socket]:
    """*sock* once more, with a number that is none of those that the tests use."""

    with socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)) as moved:
        yield moved


Connected = tuple[socket.socket, socket.socket]


@pytest.fixture
def connected() -> Iterator[Connected]:
    """The test's end of a connection, and the other, which is to be passed."""
    ours, theirs = socket.socketpair()
    with ours, theirs, high(theirs) as passed:
        yield ours, passed


def greeting(sock: socket.socket) -> bool:
    """Does a monitor greet at *sock*?"""
    sock.settimeout(TIMEOUT)
    with sock.makefile() as lines:
        return "QMP" in json.loads(lines.readline())


# ---------------------------------------------------------------- by number


@pytest.mark.parametrize("kind", ["socket,id=x,fd={}", "socket,id=x,fd={},server=on,wait=off"])
@pytest.mark.parametrize("number", ["3", "5", "9", "11", "12345678901234567890"])
def test_a_number_that_was_not_open_at_the_start_is_refused(kind: str, number: str) -> None:
    """By then it may be the service's own epoll, or a pair of sockets that wakes it."""
    with started("--chardev", kind.format(number)) as process:
        said = said_at_its_end(process)
    assert said.count("\n") == 1
    named = "named " if len(number) > 9 else ""
    assert f"File descriptor {named}'{number}' " in said
    assert said.endswith(
        "has not been found\n" if named else "was not open when the program began\n"
    )


def test_a_listening_socket_by_its_number(tmp_path: Path, listening: socket.socket) -> None:
    chardev = "socket,id=m,fd=3,server=on,wait=off"
    with started("--chardev", chardev, "--monitor", "m", fds=[listening]) as process:
        for _ in range(2):
            with Qmp(tmp_path / "q") as qmp:
                [row] = qmp("query-chardev")
                assert row["filename"].startswith("unix:")
        # The second may come before the first is known to be gone.
        assert all(" waits for " in line for line in stop(process).splitlines())


def test_a_connected_socket_by_its_number(connected: Connected) -> None:
    ours, passed = connected
    with started(
        *("--chardev", "socket,id=m,fd=3", "--monitor", "m,insecure=on"), fds=[passed]
    ) as process:
        assert greeting(ours)
        assert stop(process) == ""


@pytest.mark.parametrize("second", ["3", "qmp"])
def test_a_descriptor_is_given_once(listening: socket.socket, second: str) -> None:
    one, two = (f"socket,id={id},server=on,wait=off,fd=" for id in "ab")
    with started(
        *("--chardev", f"{one}3", "--chardev", f"{two}{second}"), fds=[listening], names="qmp"
    ) as process:
        assert said_at_its_end(process).endswith(
            f"File descriptor '{second}' has been given already\n"
        )


def test_standard_input_that_is_a_socket_stays_open(connected: Connected) -> None:
    """As inetd does it: a number below 3 is duplicated, or the next file would get that."""
    ours, passed = connected
    with started(
        *("--chardev", "socket,id=m,fd=0", "--monitor", "m,insecure=on"),
        fds=[passed],
        prelude=f"exec 0<&{passed.fileno()};",
    ) as process:
        assert greeting(ours)
        link = Path(f"/proc/{process.pid}/fd/0").readlink()
        assert str(link).startswith("socket:")
        assert stop(process) == ""


# ---------------------------------------------------------------- by name


def test_names_are_those_of_systemd(
    tmp_path: Path, listening: socket.socket, connected: Connected
) -> None:
    ours, passed = connected
    with started(
        *("--chardev", "socket,id=m,fd=console", "--monitor", "m,insecure=on"),
        *("--qmp", "fd:control"),
        fds=[listening, passed],
        names="control:console",
    ) as process:
        assert greeting(ours)
        with Qmp(tmp_path / "q") as one, Qmp(tmp_path / "q") as other:  # many at a time
            assert len(one("query-chardev")) == len(other("query-chardev")) == 1
        assert stop(process) == ""
    assert (tmp_path / "q").exists()  # it is systemd's


@pytest.mark.parametrize("option", ["fd:3", "fd:3,server=on,wait=off", "fd:q,,1"])
def test_qmp_at_a_descriptor(tmp_path: Path, listening: socket.socket, option: str) -> None:
    with started("--qmp", option, fds=[listening], names="q,1") as process:
        with Qmp(tmp_path / "q") as qmp:
            assert qmp("query-chardev") == []
        assert stop(process) == ""


def test_qmp_at_a_connected_descriptor(connected: Connected) -> None:
    ours, passed = connected
    with started("--qmp", "fd:qmp,insecure=on", fds=[passed], names="qmp") as process:
        assert greeting(ours)
        assert stop(process) == ""


def test_several_of_one_name_are_given_in_turn(tmp_path: Path) -> None:
    """A unit with several ListenStream= has the same name for all of them."""
    with socket.socket(socket.AF_UNIX) as a, socket.socket(socket.AF_UNIX) as b:
        for name, sock in (("a", a), ("b", b)):
            sock.bind(str(tmp_path / name))
            sock.listen()
        with high(a) as first, high(b) as second:
            chardev = "socket,id=x,fd=s,server=on,wait=off"
            with started(
                "--qmp", "fd:s", "--chardev", chardev, fds=[first, second], names="s:s"
            ) as process:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(tmp_path / "a"))  # chardevs are first
                with Qmp(tmp_path / "b") as qmp:
                    assert len(qmp("query-chardev")) == 1
                assert stop(process) == ""


def test_another_process_s_descriptors_have_no_names() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "qmp"}
    with pytest.raises(BackendError, match=r"^File descriptor named 'qmp' has not been found$"):
        Inherited.found(environ).take("qmp")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "x", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "qmp"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "", "LISTEN_FDNAMES": "qmp"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1", "LISTEN_FDNAMES": "qmp"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "qmp"},
    ],
)
def test_an_environment_without_names(environ: dict[str, str]) -> None:
    with pytest.raises(BackendError, match=r"^File descriptor named 'qmp' has not been found$"):
        Inherited.found(environ).take("qmp")


def test_without_names_all_are_unknown() -> None:
    """As sd_listen_fds_with_names(3) has it; the number is as good."""
    fd = os.dup(0)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(fd - 2)}
    found = Inherited.found(environ)
    names = [name for name, number in found._named]
    assert names == ["unknown"] * (fd - 2)
    assert found.take(str(fd)) == fd
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_descriptor_that_was_closed_since_is_an_error() -> None:
    fd = os.dup(0)
    found = Inherited.found({})
    os.close(fd)
    with pytest.raises(BackendError, match="Bad file descriptor"):
        found.take(str(fd))
    assert not found.is_listening(str(fd))


@pytest.mark.parametrize("name", ["-1", "+3", " 3", "", "x", "²"])
def test_what_is_no_number_is_a_name(name: str) -> None:
    with pytest.raises(BackendError, match="has not been found$"):
        Inherited.found({}).take(name)


# ---------------------------------------------------------------- 0, 1 and 2


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_standard_descriptors_that_are_closed_are_filled(tmp_path: Path, closed: str) -> None:
    """Else the first three that the service opens would be standard input and output."""
    qmp_path = tmp_path / "q"
    with started(
        *("--chardev", "stdio,id=s", "--qmp", f"unix:{qmp_path},server=on,wait=off"),
        prelude=f"exec {closed};",
    ) as process:
        with Qmp(qmp_path) as qmp:
            [row] = qmp("query-chardev")
            assert row["filename"] == "stdio"
            for redirection in closed.split():
                link = Path(f"/proc/{process.pid}/fd/{redirection[0]}").readlink()
                assert str(link) == "/dev/null"
        stop(process)


def test_filling_leaves_what_is_open() -> None:
    before = [os.fstat(fd) for fd in range(3)], os.listdir("/proc/self/fd")
    fill_standard()
    assert ([os.fstat(fd) for fd in range(3)], os.listdir("/proc/self/fd")) == before


def test_a_closed_standard_descriptor_is_not_one_that_was_open() -> None:
    with started("--chardev", "socket,id=x,fd=0", prelude="exec 0<&-;") as process:
        assert "'0' was not open when the program began" in said_at_its_end(process)


def test_nothing_is_open_by_the_time_of_the_snapshot() -> None:
    """What the imports open would count as inherited."""
    script = (
        "import os, trio_chardev.cli; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[0, 1, 2]\n"


def test_to_ask_whether_a_pipe_listens_opens_nothing() -> None:
    source, sink = os.pipe()
    found = Inherited.found({})
    before = os.listdir("/proc/self/fd")
    assert not found.is_listening(str(source))
    assert os.listdir("/proc/self/fd") == before
    os.close(source)
    os.close(sink)
