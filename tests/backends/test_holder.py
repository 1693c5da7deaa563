"""Descriptors whose description others share: nothing waits, and the others do not notice."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.places import closing_fds
from trio_chardev.backends import borrowed, holder as module
from trio_chardev.backends.borrowed import NonBlocking
from trio_chardev.backends.holder import FdHolder, hold_shared

Ends = tuple[int, int]
"""What we are given, and the other side."""


@contextmanager
def pipe_to_write() -> Iterator[Ends]:
    with closing_fds(*(fds := os.pipe())):
        yield fds[1], fds[0]


@contextmanager
def pipe_to_read() -> Iterator[Ends]:
    with closing_fds(*(fds := os.pipe())):
        yield fds


@contextmanager
def terminal() -> Iterator[Ends]:
    with closing_fds(*(fds := os.openpty())):
        yield fds[1], fds[0]


@contextmanager
def sockets() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.fileno(), theirs.fileno()


def never(fd: int, status: os.stat_result) -> None:
    """In place of `reopen`: another user's, or no /proc."""


WRITTEN = [pipe_to_write, terminal, sockets]
READ = [pipe_to_read, terminal, sockets]


@pytest.mark.parametrize("reopen", [module.reopen, never])
@pytest.mark.parametrize("make", WRITTEN)
def test_writing_does_not_wait_and_leaves_the_description_as_it_was(
    make: Any, reopen: Callable[..., int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "reopen", reopen)
    is_last_resort = reopen is never and make is terminal
    with make() as (ours, theirs):
        held = hold_shared(os.dup(ours))
        with suppress(BlockingIOError):
            while held.write(memoryview(bytes(1 << 16))):
                pass
        assert os.get_blocking(ours) is not is_last_resort
        assert os.read(theirs, 10)
        held.close()
        assert os.get_blocking(ours)


@pytest.mark.parametrize("reopen", [module.reopen, never])
@pytest.mark.parametrize("make", READ)
async def test_reading_does_not_wait_and_leaves_the_description_as_it_was(
    make: Any, reopen: Callable[..., int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "reopen", reopen)
    is_last_resort = reopen is never and make is terminal
    with make() as (ours, theirs):
        held = hold_shared(os.dup(ours))
        with pytest.raises(BlockingIOError):
            held.read(10)
        assert os.get_blocking(ours) is not is_last_resort
        os.write(theirs, b"x\n")
        with trio.fail_after(5):
            await held.wait_readable()
        assert held.read(10) == b"x\n"
        held.close()
        assert os.get_blocking(ours)


def test_a_pipe_without_readers_is_broken_and_not_opened_again() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with closing_fds(writer):
        held = hold_shared(os.dup(writer))
        with pytest.raises(BrokenPipeError):
            held.write(memoryview(b"x"))
        held.close()


def test_a_file_s_offset_is_shared(tmp_path: Path) -> None:
    """As of `> log` for several programs: each goes on where the others are."""
    with (tmp_path / "log").open("wb", buffering=0) as file:
        file.write(b"one ")
        held = hold_shared(os.dup(file.fileno()))
        assert held.write(memoryview(b"two ")) == 4
        file.write(b"three")
        assert os.get_blocking(file.fileno())
        held.close()
    assert (tmp_path / "log").read_bytes() == b"one two three"


def test_dev_null_is_left_alone() -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with closing_fds(fd):
        held = hold_shared(os.dup(fd))
        assert os.get_blocking(fd)
        assert (held.read(1), held.write(memoryview(b"x"))) == (b"", 1)
        held.close()


def test_the_master_of_a_pty_is_not_opened_again() -> None:
    """/dev/ptmx gives another PTY each time."""
    with terminal() as (slave, master):
        held = hold_shared(os.dup(master))
        assert not os.get_blocking(master)
        os.write(slave, b"hello")
        assert held.read(10) == b"hello"
        held.close()
        assert os.get_blocking(master)


def test_a_terminal_is_found_by_dev_tty() -> None:
    """As after su(1): the terminal is another user's, but it still controls the process."""
    script = """
import errno, os, trio_chardev.backends.holder as holder
real = os.open
def refuse(path, *more):
    if path.startswith("/proc/"):
        raise OSError(errno.EACCES, "no")
    return real(path, *more)
os.open = refuse
own = holder.reopen(0, os.fstat(0))
assert own is not None
os.write(own, b"mine\\n")
assert os.get_blocking(0) and not os.get_blocking(own)
other = os.openpty()[1]
assert holder.reopen(other, os.fstat(other)) is None
os.write(1, b"well\\n")
"""
    theirs, ours = os.openpty()
    with closing_fds(theirs):
        command = ["setsid", "--ctty", sys.executable, "-c", script]
        with closing_fds(ours):
            result = subprocess.run(
                command, stdin=ours, stdout=ours, stderr=subprocess.PIPE, check=False, timeout=20
            )
        assert result.stderr == b""
        assert os.read(theirs, 100) == b"mine\r\nwell\r\n"


# ---------------------------------------------------------------- the last resort


def test_two_of_one_description_put_it_back_with_the_last() -> None:
    with terminal() as (tty, _):
        one, two = FdHolder(os.dup(tty)), FdHolder(os.dup(tty))
        one.close()
        assert not os.get_blocking(tty)
        two.close()
        assert os.get_blocking(tty)


def test_two_descriptions_of_one_file_are_both_put_back() -> None:
    with terminal() as (tty, _):
        again = os.open(os.ttyname(tty), os.O_RDWR | os.O_NOCTTY)
        with closing_fds(again):
            one, two = FdHolder(os.dup(tty)), FdHolder(os.dup(again))
            assert not os.get_blocking(tty)
            assert not os.get_blocking(again)
            two.close()
            one.close()
            assert os.get_blocking(tty)
            assert os.get_blocking(again)


@pytest.mark.parametrize("failing", ["get_blocking", "set_blocking", "dup"])
def test_what_fails_to_become_non_blocking_is_as_it_was(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with terminal() as (tty, _):
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fail)
            with pytest.raises(OSError, match="Input/output error"):
                NonBlocking(tty)
        assert os.get_blocking(tty)
        with ExitStack() as stack:
            lent = NonBlocking(tty)
            stack.callback(lent.release)
            assert not os.get_blocking(tty)
        assert os.get_blocking(tty)


class Recorded:
    """A change that keeps what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def undo(self) -> None:
        self.done.append("undo")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def redo(self) -> None:
        self.done.append("redo")


def test_handlers_are_ours_only_while_something_is_changed() -> None:
    numbers = [*borrowed.FATAL_SIGNALS, signal.SIGTSTP, signal.SIGCONT]
    before = [signal.getsignal(number) for number in numbers]
    one, two = Recorded(), Recorded()
    borrowed.add(one)
    borrowed.add(two)
    assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGCONT)
    assert one.done == two.done == ["redo"]
    borrowed.remove(one)
    assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
    borrowed.remove(two)
    borrowed.remove(two)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_of_the_program_s_own_is_left() -> None:
    def own(number: int, frame: object) -> None:
        """Do nothing."""

    before = signal.signal(signal.SIGUSR1, own)
    try:
        change = Recorded()
        borrowed.add(change)
        assert signal.getsignal(signal.SIGUSR1) is own
        later = signal.signal(signal.SIGUSR2, own)
        borrowed.remove(change)
        assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGUSR2) is own
        signal.signal(signal.SIGUSR2, later)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


ENDS = {
    "exit": "pass",
    "an exception": "raise RuntimeError",
    "SIGQUIT": "os.kill(os.getpid(), signal.SIGQUIT)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGUSR1": "os.kill(os.getpid(), signal.SIGUSR1)",
}


@pytest.mark.parametrize("end", ENDS)
def test_however_the_process_ends_it_is_put_back(end: str) -> None:
    script = (
        "import os, resource, signal\n"
        "from trio_chardev.backends.holder import FdHolder\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "held = FdHolder(os.dup(0))\n"
        "assert not os.get_blocking(0)\n"
        "if os.fork() == 0:\n"  # a child of its own is no reason
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.wait()\n"
        "assert not os.get_blocking(0)\n"
        "print('changed', flush=True)\n" + ENDS[end]
    )
    with terminal() as (tty, _):
        result = subprocess.run(
            [sys.executable, "-c", script], stdin=tty, capture_output=True, check=False, timeout=20
        )
        assert result.stdout == b"changed\n"
        expected = {"exit": 0, "an exception": 1}
        wanted = expected[end] if end in expected else -signal.Signals[end]
        assert result.returncode == wanted
        assert os.get_blocking(tty)


def test_an_access_mode_is_kept() -> None:
    with terminal() as (tty, _):
        fd = os.open(os.ttyname(tty), os.O_WRONLY | os.O_NOCTTY)
        with closing_fds(fd):
            held = hold_shared(os.dup(fd))
            assert fcntl.fcntl(held.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            poll = select.poll()
            poll.register(held.fd, select.POLLOUT)
            assert poll.poll(0)
            held.close()
