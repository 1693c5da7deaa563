"""The PID file: nobody else's file is written to, waited for or removed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from trio_chardev.cli.pidfile import keeping_pid
from trio_chardev.errors import OptionsError


def refusal(path: Path) -> str:
    with pytest.raises(OptionsError) as caught, keeping_pid(str(path)):
        pass
    text = str(caught.value)
    begin = f"cannot create PID file '{path}': "
    assert text.startswith(begin)
    return text.removeprefix(begin)


def test_it_is_there_meanwhile_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with keeping_pid(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == []


def test_a_stale_one_is_taken_and_shortened(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("99999999999\n")
    with keeping_pid(str(tmp_path / "pid")):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("leads_to", ["precious", "missing"])
def test_a_link_is_not_followed(tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "precious").write_text("7\n")
    (tmp_path / "pid").symlink_to(tmp_path / leads_to)
    assert refusal(tmp_path / "pid") == "It is a symbolic link"
    assert (tmp_path / "precious").read_text() == "7\n"
    assert sorted(os.listdir(tmp_path)) == ["pid", "precious"]


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    assert refusal(tmp_path / "pid") == "Not a regular file"
    assert os.listdir(tmp_path) == ["pid"]


def test_what_is_no_pid_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("precious\n")
    assert refusal(tmp_path / "pid") == "What is in it is not a process id"
    assert (tmp_path / "pid").read_text() == "precious\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_that_of_another_user_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("7\n")
    os.chown(tmp_path / "pid", 12345, 12345)
    assert refusal(tmp_path / "pid") == "It belongs to user 12345"
    assert (tmp_path / "pid").read_text() == "7\n"


@pytest.mark.parametrize("fails", [False, True])
def test_at_the_end_it_is_closed_and_no_failure_of_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A close that fails, as on a file system that is full, has closed all the same."""
    close = os.close

    def close_and_fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, keeping_pid(str(tmp_path / "pid")):
        if fails:
            patch.setattr(os, "close", close_and_fail)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_one_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with keeping_pid(str(path)):
        path.unlink()
        path.write_text("8\n")
    assert path.read_text() == "8\n"


def test_one_that_is_removed_as_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another service that ends."""
    path = tmp_path / "pid"
    path.write_text("8\n")
    lock = fcntl.lockf

    def lock_and_lose(fd: int, how: int) -> None:
        lock(fd, how)
        path.unlink()
        monkeypatch.setattr(fcntl, "lockf", lock)

    monkeypatch.setattr(fcntl, "lockf", lock_and_lose)
    with keeping_pid(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize(("owner", "name"), [(os, "pwrite"), (os, "ftruncate"), (fcntl, "lockf")])
@pytest.mark.parametrize("is_there", [False, True])
def test_one_that_can_not_be_written_is_not_left_behind_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, is_there: bool
) -> None:
    path = tmp_path / "pid"
    if is_there:
        path.write_text("8\n")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(owner, name, fail)
    assert refusal(path) == "No space left on device"
    assert not path.exists() or path.read_text() == "8\n"
    assert len(os.listdir("/proc/self/fd")) == before
