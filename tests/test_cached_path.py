"""Paths are opened in the event loop if that asks no disk and no server, and else not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_chardev import cached_path
from trio_chardev.cached_path import LocalMounts, open_cached


class Everything(set[bytes]):
    """The tests' folder may be on an overlay."""

    def __contains__(self, kind: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def mounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMounts]:
    mounts = LocalMounts()
    monkeypatch.setattr(cached_path, "LOCAL", Everything())
    monkeypatch.setattr(cached_path, "_mounts", mounts)
    yield mounts
    mounts.forget()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def target(fd: int | None) -> str:
    """Where *fd* leads; it is closed."""
    assert fd is not None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_what_is_in_memory_is_opened_through_links_too(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    link = tmp_path / "link"
    link.symlink_to("f")
    # Following a link notes when, which may wait, unless it was noted since the link was made.
    os.utime(link, (time.time() + 60, time.time()), follow_symlinks=False)
    assert target(open_cached(str(path))) == str(path)
    assert target(open_cached(str(link))) == str(path)


@pytest.mark.parametrize("path", ["f/g", "none", "", "a\0b", "x" * 5000, "\ud800"])
def test_what_fails_is_not_told_here(tmp_path: Path, path: str) -> None:
    (tmp_path / "f").touch()
    open_cached(str(tmp_path))  # so that the mounts are known
    before = descriptors()
    assert open_cached(path and f"{tmp_path}/{path}") is None
    assert descriptors() == before


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_where_a_look_up_may_wait_or_the_kernel_can_not_tell_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(function: str, *args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cached_path, "call", fail)
    assert open_cached(str(tmp_path)) is None


def test_what_may_be_behind_a_server_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_path, "LOCAL", {b"nonesuch"})
    assert open_cached(str(tmp_path)) is None
    before = descriptors()
    assert open_cached(str(tmp_path)) is None
    assert descriptors() == before


def test_without_proc_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> bytes:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    open_cached(str(tmp_path))
    monkeypatch.setattr(cached_path, "_read", fail)
    before = descriptors()
    assert open_cached(str(tmp_path)) is None
    assert descriptors() == before


def test_a_child_does_not_share_the_descriptor(mounts: LocalMounts, tmp_path: Path) -> None:
    os.close(open_cached(str(tmp_path)) or -1)
    before = descriptors()
    mounts.forget()
    assert len(before) == len(descriptors()) + 1
    assert target(open_cached(str(tmp_path))) == str(tmp_path)


MOUNT = """
import os, subprocess, sys
from trio_chardev import cached_path
cached_path.LOCAL = {b"tmpfs"}
def kind():
    if (fd := cached_path.open_cached(sys.argv[1])) is None:
        return "none"
    os.close(fd)
    return "tmpfs"
subprocess.run(["mount", "-t", "ramfs", "none", sys.argv[1]], check=True)
first = kind()
subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
second = kind()
subprocess.run(["umount", sys.argv[1]], check=True)
print(first, second, kind())
"""


def test_a_mount_that_comes_or_goes_is_noticed(tmp_path: Path) -> None:
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("no namespaces here")
    command = [*namespace, sys.executable, "-c", MOUNT, str(tmp_path)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.split() == ["none", "tmpfs", "none"]
