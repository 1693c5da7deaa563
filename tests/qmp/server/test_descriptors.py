"""Who owns a descriptor that was passed, and what opening one of a set gives.

The exchanges over QMP are in ``qmp/commands/test_descriptor.py``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.socket.rights import CLOSER
from trio_chardev.errors import BackendError
from trio_chardev.qmp.server.descriptors import FdSets, NamedFds
from trio_chardev.qmp.server.session import QmpError
from trio_chardev.registry import open_registry

NewFd = Callable[[], int]


@pytest.fixture
def new_fd() -> Iterator[NewFd]:
    """Makes descriptors, which the test may close, or not."""
    made: list[int] = []

    def make() -> int:
        made.append(os.open("/dev/null", os.O_RDONLY))
        return made[-1]

    yield make
    for fd in made:
        if is_open(fd):  # not by a thread: a number that is closed later may be another's by then
            os.close(fd)


@pytest.fixture
def sets() -> Iterator[FdSets]:
    sets = FdSets()
    yield sets
    sets.close_all()


def is_open(fd: int) -> bool:
    deadline = time.monotonic() + 20
    while not CLOSER.is_idle:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def flags_of(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


# ---------------------------------------------------------------- with a name


def test_the_same_name_replaces_and_closes(new_fd: NewFd) -> None:
    fds, first, second = NamedFds(), new_fd(), new_fd()
    fds.add("x", first)
    fds.add("x", second)
    assert not is_open(first)
    assert fds.take("x") == second


def test_a_name_that_is_refused_closes_too(new_fd: NewFd) -> None:
    fds, fd = NamedFds(), new_fd()
    with pytest.raises(QmpError, match="^Parameter 'fdname' expects a name not starting with a"):
        fds.add("1", fd)
    assert not is_open(fd)


def test_what_was_taken_is_the_takers(new_fd: NewFd) -> None:
    fds, fd = NamedFds(), new_fd()
    fds.add("x", fd)
    assert fds.take("x") == fd
    with pytest.raises(BackendError, match="^File descriptor named 'x' has not been found$"):
        fds.take("x")
    with pytest.raises(QmpError, match="^File descriptor named 'x' not found$"):
        fds.close("x")
    fds.close_all()
    assert is_open(fd)


def test_in_the_end_all_are_closed(new_fd: NewFd, sets: FdSets) -> None:
    fds, passed = NamedFds(), [new_fd() for _ in range(4)]
    fds.add("x", passed[0])
    fds.add("y", passed[1])
    fds.close_all()
    sets.add(passed[2], 3, None)
    sets.add(passed[3], 3, None)
    sets.close_all()
    assert not any(map(is_open, passed))
    assert sets.query() == []


# ---------------------------------------------------------------- in sets


def test_a_new_set_has_the_lowest_free_number(new_fd: NewFd, sets: FdSets) -> None:
    for given, expected in [(None, 0), (2, 2), (None, 1), (None, 3), (0, 0)]:
        assert sets.add(new_fd(), given, None).fdset_id == expected
    sets.remove(1, None)
    assert sets.add(new_fd(), None, None).fdset_id == 1


def test_a_set_that_is_refused_closes_too(new_fd: NewFd, sets: FdSets) -> None:
    fd = new_fd()
    with pytest.raises(QmpError, match="^Parameter 'fdset-id' expects a non-negative value$"):
        sets.add(fd, -1, None)
    assert not is_open(fd)


def test_a_set_is_gone_with_its_last_descriptor(new_fd: NewFd, sets: FdSets) -> None:
    one, other = new_fd(), new_fd()
    sets.add(one, 5, "a")
    sets.add(other, 5, None)
    sets.remove(5, one)
    assert (is_open(one), is_open(other)) == (False, True)
    assert [info.fd for info in sets.query()[0].fds] == [other]
    with pytest.raises(QmpError, match=f"^File descriptor named 'fdset-id:5, fd:{one}' not found$"):
        sets.remove(5, one)
    sets.remove(5, other)
    with pytest.raises(QmpError, match="^File descriptor named 'fdset-id:5' not found$"):
        sets.remove(5, None)


# ---------------------------------------------------------------- opening


def test_the_first_of_the_access_mode_is_duplicated(tmp_path: Path, sets: FdSets) -> None:
    path = tmp_path / "f"
    modes = [os.O_WRONLY | os.O_CREAT, os.O_RDONLY, os.O_RDWR, os.O_RDONLY]
    fds = [os.open(path, mode) for mode in modes]
    for fd in fds:
        sets.add(fd, 0, None)
    os.lseek(fds[1], 3, os.SEEK_SET)  # an offset is shared by duplicates
    duplicate = sets.open_path("/dev/fdset/0", os.O_RDONLY)
    assert duplicate not in fds
    assert os.lseek(duplicate, 0, os.SEEK_CUR) == 3
    assert not os.get_inheritable(duplicate)
    os.close(duplicate)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        *(("/dev/fdset/1", errno.ENOENT), ("/dev/fdset/", errno.EINVAL)),
        *(("/dev/fdset/0/", errno.EINVAL), ("/dev/fdset/" + "0" * 5000, errno.EINVAL)),
        ("/dev/fdset/0", errno.EACCES),
    ],
    ids=["unknown", "no number", "more", "endless", "wrong mode"],
)
def test_what_cannot_be_opened(new_fd: NewFd, sets: FdSets, path: str, number: int) -> None:
    sets.add(new_fd(), 0, None)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        sets.open_path(path, os.O_WRONLY)
    assert (caught.value.errno, caught.value.filename) == (number, path)


def test_other_paths_are_opened_as_ever(tmp_path: Path, sets: FdSets) -> None:
    fd = sets.open_path(str(tmp_path / "f"), os.O_WRONLY | os.O_CREAT)
    os.close(fd)
    assert (tmp_path / "f").exists()


def test_a_duplicate_appends_if_asked_to_and_is_as_blocking_as_it_was(sets: FdSets) -> None:
    """Who passed it may use it, too: how not to wait for it is its holder's to know."""
    reader, writer = os.pipe()
    sets.add(reader, 0, None)
    sets.add(writer, 0, None)
    os.close(sets.open_path("/dev/fdset/0", os.O_RDONLY | os.O_NONBLOCK))
    assert not flags_of(reader) & os.O_NONBLOCK
    os.close(sets.open_path("/dev/fdset/0", os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    assert flags_of(writer) & (os.O_APPEND | os.O_NONBLOCK) == os.O_APPEND


def test_flags_are_never_taken_away(sets: FdSets) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    sets.add(reader, 0, None)
    os.close(writer)
    os.close(sets.open_path("/dev/fdset/0", os.O_RDONLY))
    assert flags_of(reader) & os.O_NONBLOCK


@pytest.mark.parametrize(("append", "expected"), [(True, b"old new"), (False, b" new")])
async def test_a_file_is_appended_to_or_truncated(
    tmp_path: Path, sets: FdSets, append: bool, expected: bytes
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    sets.add(os.open(path, os.O_WRONLY), 0, None)
    async with open_registry() as registry:
        registry.environment = attrs.evolve(registry.environment, open_path=sets.open_path)
        await registry.add("c", FileOptions(out="/dev/fdset/0", append=append))
        async with registry["c"].attach() as frontend:
            await frontend.send_all(b" new")
    assert path.read_bytes() == expected


async def test_a_blocking_pipe_does_not_block(sets: FdSets) -> None:
    reader, writer = os.pipe()
    sets.add(reader, 0, None)
    async with open_registry() as registry:
        registry.environment = attrs.evolve(registry.environment, open_path=sets.open_path)
        options = FileOptions(in_="/dev/fdset/0", out="/dev/null")
        await registry.add("c", options)
        with trio.fail_after(5):
            async with registry["c"].attach() as frontend:
                await trio.testing.wait_all_tasks_blocked()
                os.write(writer, b"hello")
                assert await frontend.receive_some() == b"hello"
    os.close(writer)


async def test_a_chardev_works_on_when_its_set_is_gone(tmp_path: Path, sets: FdSets) -> None:
    sets.add(os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT), 0, None)
    async with open_registry() as registry:
        registry.environment = attrs.evolve(registry.environment, open_path=sets.open_path)
        await registry.add("c", FileOptions(out="/dev/fdset/0"))
        sets.remove(0, None)
        async with registry["c"].attach() as frontend:
            await frontend.send_all(b"x")
    assert (tmp_path / "f").read_bytes() == b"x"
