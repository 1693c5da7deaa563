"""Whether a PTY is the line that is meant: its number may be another's by now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_chardev.backends.serial import device as serial_device, same_line
from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.serial.same_line import SLACK_NS, Link, OtherPtyError, check_meant
from trio_chardev.backends.serial.serial import open_serial
from trio_chardev.core.backend import OpenRequest
from trio_chardev.errors import BackendError

MADE = 10**18  # when the PTY was made, in nanoseconds
PTY = os.makedev(136, 7)


@attrs.frozen
class Status:
    """What matters of os.stat()."""

    st_rdev: int = PTY
    st_atime_ns: int = MADE
    st_mtime_ns: int = MADE
    st_ctime_ns: int = MADE


def link(changed_ns: int, inode: int = 1) -> Link:
    return Link("/tmp/x", 1, inode, changed_ns, "/dev/pts/7")


OLD, NEW = link(MADE - 2 * SLACK_NS), link(MADE + 1)


@pytest.mark.parametrize(
    ("status", "links", "before", "is_meant"),
    [
        (Status(), (NEW,), None, True),
        (Status(), (OLD,), None, False),
        (Status(), (link(MADE - SLACK_NS // 2),), None, True),  # it was chmod(2)ed in between
        (Status(), (OLD, NEW), None, True),  # the last link has the number
        (Status(), (NEW, OLD), None, False),
        (Status(), (), None, True),  # its number is all that is known
        (Status(st_ctime_ns=MADE + 10**12), (NEW,), None, True),
        (Status(st_atime_ns=MADE + 10**12, st_mtime_ns=MADE + 10**12), (NEW,), None, True),
        (Status(os.makedev(188, 0)), (OLD,), None, True),  # a line of hardware
        (Status(), (), (), False),
        (Status(), (NEW,), (NEW,), False),
        (Status(), (attrs.evolve(NEW, inode=2),), (NEW,), True),
        (Status(os.makedev(188, 0)), (NEW,), (NEW,), True),
    ],
)
def test_a_pty_is_meant_by_a_link_that_is_not_older_and_not_the_same_again(
    status: Any, links: tuple[Link, ...], before: tuple[Link, ...] | None, is_meant: bool
) -> None:
    if is_meant:
        check_meant(status, links, before)
    else:
        with pytest.raises(OtherPtyError):
            check_meant(status, links, before)


@contextmanager
def pty_with_number(number: str) -> Iterator[None]:
    """Have another program's PTY have that number."""
    masters = []
    for _ in range(100):
        master, slave = os.openpty()
        name = os.ttyname(slave)
        os.close(slave)
        masters.append(master)
        if name == number:
            break
    try:
        assert name == number
        yield
    finally:
        for master in masters:
            os.close(master)


def now(path: Path) -> int:
    return path.lstat().st_ctime_ns


async def test_a_stale_link_is_refused_and_the_others_terminal_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_line, "SLACK_NS", 0)
    master, slave = os.openpty()
    number = os.ttyname(slave)
    path = tmp_path / "board"
    path.symlink_to(number)
    os.close(slave)
    os.close(master)
    clock = tmp_path / "clock"  # it counts some milliseconds
    clock.touch()
    while now(clock) <= now(path):
        clock.touch()
    with pty_with_number(number):
        before = os.stat(number)
        request = OpenRequest(id="x", on_event=lambda event: None)
        with pytest.raises(BackendError) as caught:
            async with open_serial(SerialOptions(path=str(path)), request):
                pass
        text = f"the link to '{number}' is older than the PTY that has this number now"
        assert str(caught.value) == f"Could not open '{path}': {text}"
        assert os.stat(number).st_atime_ns == before.st_atime_ns
        async with open_serial(SerialOptions(path=str(path), wait=False), request) as backend:
            assert not backend.is_open
        path.unlink()
        path.symlink_to(number)
        async with open_serial(SerialOptions(path=str(path)), request) as backend:
            assert backend.is_open


async def test_a_link_that_is_replaced_while_it_is_opened_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    path = tmp_path / "board"
    path.symlink_to(os.ttyname(slave))
    looks = 0

    def check(*seen: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise OtherPtyError("it is another")

    monkeypatch.setattr(serial_device, "check_meant", check)
    before = len(os.listdir("/proc/self/fd"))
    request = OpenRequest(id="x", on_event=lambda event: None)
    with pytest.raises(BackendError, match="board': it is another$"):
        async with open_serial(SerialOptions(path=str(path)), request):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(slave)
    os.close(master)
