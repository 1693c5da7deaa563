"""A process that comes by fork is what one is that was started anew."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import forking
from tests.forking import AT_TERMINAL, Forking
from tests.services import PROGRAM, TIMEOUT, Qmp

Start = Callable[..., subprocess.Popen[bytes]]
SAME = ("Umask", "PPid", "SigBlk", "SigIgn", "SigCgt")


@pytest.fixture(scope="module")
def ways() -> Iterator[Sequence[Any]]:
    """Both ways to start a process."""
    fork = Forking()
    yield fork.fork_exec, forking._exec
    fork.end()


@pytest.fixture
def starts(ways: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> Sequence[Start]:
    """What starts the program, with options of ``Popen``: both ways."""

    def by(way: Any) -> Start:
        def start(*command: str, **options: Any) -> subprocess.Popen[bytes]:
            monkeypatch.setattr(subprocess, "_fork_exec", way)
            return subprocess.Popen(command, **options)

        return start

    return [by(way) for way in ways]


def facts(pid: int, *fds: int) -> dict[str, Any]:
    """What the kernel says of a process and these descriptors of it."""
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    return {
        **{name: status[name] for name in SAME},
        "fds": [os.readlink(folder / "fd" / str(fd)) for fd in fds],
        "cwd": os.readlink(folder / "cwd"),
        "terminal": (folder / "stat").read_text().rpartition(") ")[2].split()[4],
        "leads": (os.getpgid(pid) == pid, os.getsid(pid) == pid),
    }


@pytest.mark.parametrize("how", ["plain", "new session", "at a terminal"])
def test_a_service_has_the_same_parent_descriptors_signals_and_folder(
    starts: Sequence[Start], how: str, tmp_path: Path
) -> None:
    found = []
    user, tty = os.openpty()
    for number, start in enumerate(starts):
        process = start(
            *(AT_TERMINAL if how == "at a terminal" else ()),
            *(*PROGRAM, "serve", "--qmp", f"unix:{tmp_path}/{number},server=on,wait=off"),
            stdin=tty,
            stdout=tty,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            pass_fds=[tty],
            start_new_session=how == "new session",
        )
        with Qmp(tmp_path / str(number)):
            found.append(facts(process.pid, 0, 1, 2, tty))
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert found[0] == found[1]
    os.close(user)
    os.close(tty)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--version"], 0),
        (["serve", "--bogus"], 2),
        (["list", "-s", "missing"], 1),
        (["serve", "--chardev", "file,id=f,path=$NAME/\udcff"], 1),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_it_says_the_same_and_ends_so(
    starts: Sequence[Start], arguments: Sequence[str], status: int, unbuffered: str, tmp_path: Path
) -> None:
    done = []
    for start in starts:
        process = start(
            *(*PROGRAM, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "COLUMNS": "60"},
        )
        done.append((*process.communicate(timeout=TIMEOUT), process.returncode))
    assert done[0] == done[1]
    assert done[0][2] == status


def test_a_signal_ends_it(starts: Sequence[Start], tmp_path: Path) -> None:
    for start in starts:
        process = start(*PROGRAM, "qmp", "-", stdin=subprocess.PIPE, cwd=tmp_path)
        process.kill()
        assert process.wait(TIMEOUT) == -signal.SIGKILL
        process.stdin.close()  # type: ignore[union-attr]


def test_output_that_fails_at_the_end_is_told(starts: Sequence[Start]) -> None:
    done = []
    for start in starts:
        with open("/dev/full", "wb") as full:
            process = start(*PROGRAM, "--help", stdout=full, stderr=subprocess.PIPE)
        done.append((process.communicate(timeout=TIMEOUT)[1], process.returncode))
    assert done[0] == done[1]
    assert done[0][1] != 0


def test_what_is_of_another_python_is_started_anew(starts: Sequence[Start]) -> None:
    """Its flags are read at the start."""
    environ = {**os.environ, "PYTHONVERBOSE": "1"}
    process = starts[0](*PROGRAM, "--version", stderr=subprocess.PIPE, env=environ)
    assert b"import 'trio_chardev'" in process.communicate(timeout=TIMEOUT)[1]
