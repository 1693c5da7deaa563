from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.backends.stdio import StdioOptions, open_stdio
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing.pair import receive_some

LFLAG = 3  # its place in what tcgetattr gives
RAW_BITS = termios.ECHO | termios.ICANON | termios.IEXTEN
BUSY = "^cannot use stdio by multiple character devices$"


def open_it(
    fds: tuple[int, int],
    *,
    replaces: Backend | None = None,
    keys: bool = True,
    events: list[BackendEvent] | None = None,
) -> AbstractAsyncContextManager[Backend]:
    on_event = (lambda event: None) if events is None else events.append
    request = OpenRequest(id="x", on_event=on_event, replaces=replaces)
    return open_stdio(StdioOptions(signal=keys), request, fds)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A user's side, and the terminal that is our standard input and output."""
    user, tty = os.openpty()
    yield user, tty
    os.close(user)
    os.close(tty)


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Standard input, what feeds it; what shows the output, standard output."""
    fds = (*os.pipe(), *os.pipe())
    yield fds
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


async def test_pipes_are_read_and_written(pipes: tuple[int, int, int, int]) -> None:
    events: list[BackendEvent] = []
    async with open_it((pipes[0], pipes[3]), events=events) as backend:
        assert backend.filename == "stdio"
        assert events == [Event.OPENED]
        backend.activate()
        os.write(pipes[1], b"in")
        assert await receive_some(backend, 100) == b"in"
        await backend.send_some(memoryview(b"out"))
        assert os.read(pipes[2], 100) == b"out"


async def test_descriptors_stay_open_and_are_as_blocking_as_they_were(
    pipes: tuple[int, int, int, int],
) -> None:
    """Others have the same descriptions: of `2>&1 | tee`, and of a terminal."""
    os.set_blocking(pipes[3], False)
    async with open_it((pipes[0], pipes[3])):
        assert os.get_blocking(pipes[0])
        assert not os.get_blocking(pipes[3])
    assert os.get_blocking(pipes[0])
    assert not os.get_blocking(pipes[3])


async def test_end_of_input_is_closed_and_output_goes_on(pipes: tuple[int, int, int, int]) -> None:
    events: list[BackendEvent] = []
    async with open_it((pipes[0], pipes[3]), events=events) as backend:
        os.close(pipes[1])
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_some, backend, 100)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert events == [Event.OPENED, Event.CLOSED]
        assert await backend.send_some(memoryview(b"still")) == 5


async def test_output_that_nobody_reads_is_disconnected(pipes: tuple[int, int, int, int]) -> None:
    async with open_it((pipes[0], pipes[3])) as backend:
        os.close(pipes[2])
        with pytest.raises(BackendDisconnectedError, match=r"^Could not write to stdio: Broken"):
            await backend.send_some(memoryview(b"x"))


async def test_regular_files_and_dev_null(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"hello")
    for path, content in ((tmp_path / "in", b"hello"), (Path("/dev/null"), b"")):
        events: list[BackendEvent] = []
        fds = (os.open(path, os.O_RDONLY), os.open("/dev/null", os.O_WRONLY))
        async with open_it(fds, events=events) as backend:
            backend.activate()
            with trio.fail_after(5):
                await backend.wait_readable()
                assert backend.receive_nowait(100) == content
                assert backend.receive_nowait(100) == b""
                await backend.send_some(memoryview(b"x"))
        assert events == [Event.OPENED, Event.CLOSED]
        for fd in fds:
            os.close(fd)


async def test_descriptors_that_are_closed() -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)
    with pytest.raises(BackendError, match=r"^cannot use stdio: Bad file descriptor$"):
        async with open_it((fd, fd)):
            pass


async def test_cancelled_receive_has_consumed_nothing(pipes: tuple[int, int, int, int]) -> None:
    async with open_it((pipes[0], pipes[3])) as backend:
        os.write(pipes[1], b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(backend, 100)
        assert backend.receive_nowait(100) == b"kept"


# ---------------------------------------------------------------- terminal modes


async def test_modes_are_set_by_the_commit_and_restored(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    found = termios.tcgetattr(tty)
    async with open_it((tty, tty)) as backend:
        assert termios.tcgetattr(tty) == found
        backend.activate()
        iflag, oflag, _, lflag, *_, cc = termios.tcgetattr(tty)
        assert not lflag & RAW_BITS
        assert lflag & termios.ISIG
        assert oflag & termios.OPOST
        assert not iflag & (termios.ICRNL | termios.IXON)
        assert (cc[termios.VMIN], cc[termios.VTIME]) == (1, 0)
    assert termios.tcgetattr(tty) == found
    assert os.get_blocking(tty)


async def test_signal_off_makes_the_keys_input(terminal: tuple[int, int]) -> None:
    user, tty = terminal
    async with open_it((tty, tty), keys=False) as backend:
        backend.activate()
        assert not termios.tcgetattr(tty)[LFLAG] & termios.ISIG
        os.write(user, b"\x03\r")
        got = b""
        with trio.fail_after(5):
            while len(got) < 2:
                got += await receive_some(backend, 100)
        assert got == b"\x03\r"


async def test_echo_is_the_terminals_own_line_editing(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    async with open_it((tty, tty)) as backend:
        await backend.line.set_echo(True)
        backend.activate()
        assert termios.tcgetattr(tty)[LFLAG] & RAW_BITS == RAW_BITS
        await backend.line.set_echo(False)
        assert not termios.tcgetattr(tty)[LFLAG] & RAW_BITS


async def test_echo_waits_for_the_commit(terminal: tuple[int, int]) -> None:
    """be_change calls it before, and the change may still fail."""
    _, tty = terminal
    async with open_it((tty, tty)) as old:
        old.activate()
        async with open_it((tty, tty), replaces=old) as new:
            await new.line.set_echo(True)
            assert not termios.tcgetattr(tty)[LFLAG] & RAW_BITS


async def test_sigcont_sets_up_again_what_the_shell_has_changed(
    terminal: tuple[int, int],
) -> None:
    _, tty = terminal
    before = signal.getsignal(signal.SIGCONT)
    found = termios.tcgetattr(tty)
    async with open_it((tty, tty)) as backend:
        backend.activate()
        termios.tcsetattr(tty, termios.TCSANOW, found)
        os.kill(os.getpid(), signal.SIGCONT)
        assert not termios.tcgetattr(tty)[LFLAG] & RAW_BITS
        assert os.get_blocking(tty)
    assert signal.getsignal(signal.SIGCONT) == before


async def test_background_process_leaves_the_modes_alone(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting them would stop it, over and over (SIGTTOU)."""
    _, tty = terminal
    found = termios.tcgetattr(tty)
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
    async with open_it((tty, tty)) as backend:
        backend.activate()
        assert termios.tcgetattr(tty) == found


async def test_terminal_that_refuses_its_modes(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, when: int, attributes: object) -> None:
        raise termios.error(5, "Input/output error")

    async with open_it((terminal[1], terminal[1])) as backend:
        monkeypatch.setattr(termios, "tcsetattr", fail)
        with pytest.raises(BackendError, match=r"^cannot set up the terminal: Input/output error$"):
            backend.activate()


# ---------------------------------------------------------------- the singleton


async def test_only_one_chardev_at_a_time(pipes: tuple[int, int, int, int]) -> None:
    fds = (pipes[0], pipes[3])
    async with open_it(fds):
        with pytest.raises(BackendError, match=BUSY):
            async with open_it(fds):
                pass
    async with open_it(fds):
        pass


async def test_refused_second_one_does_not_disturb_the_first(terminal: tuple[int, int]) -> None:
    """QEMU's resets the terminal, and lets a third one in."""
    _, tty = terminal
    async with open_it((tty, tty)) as first:
        first.activate()
        modes = termios.tcgetattr(tty)
        for _ in range(2):
            with pytest.raises(BackendError, match=BUSY):
                async with open_it((tty, tty)):
                    pass
        assert termios.tcgetattr(tty) == modes
        assert os.get_blocking(tty)


async def test_change_to_stdio_takes_over(terminal: tuple[int, int]) -> None:
    user, tty = terminal
    found = termios.tcgetattr(tty)
    async with AsyncExitStack() as outer:
        leave = AsyncExitStack()
        old = await leave.enter_async_context(open_it((tty, tty)))
        old.activate()
        new = await outer.enter_async_context(open_it((tty, tty), replaces=old, keys=False))
        assert termios.tcgetattr(tty)[LFLAG] & termios.ISIG
        new.activate()
        await leave.aclose()
        assert not termios.tcgetattr(tty)[LFLAG] & (termios.ISIG | RAW_BITS)
        assert os.get_blocking(tty)
        os.write(user, b"typed")
        with trio.fail_after(5):
            assert (await receive_some(new, 100)).startswith(b"t")
    assert termios.tcgetattr(tty) == found
    assert os.get_blocking(tty)


async def test_both_can_wait_during_a_change(pipes: tuple[int, int, int, int]) -> None:
    """They have duplicates: trio allows one waiter a descriptor."""
    fds = (pipes[0], pipes[3])
    async with open_it(fds) as old, open_it(fds, replaces=old) as new:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_some, old, 100)
                nursery.start_soon(new.wait_readable)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


async def test_failed_change_to_stdio_leaves_the_original(terminal: tuple[int, int]) -> None:
    user, tty = terminal
    async with open_it((tty, tty)) as old:
        old.activate()
        modes = termios.tcgetattr(tty)
        async with open_it((tty, tty), replaces=old, keys=False):
            pass
        assert termios.tcgetattr(tty) == modes
        assert os.get_blocking(tty)
        os.write(user, b"typed")
        with trio.fail_after(5):
            assert (await receive_some(old, 100)).startswith(b"t")


SCRIPT = """
import os, trio
from trio_chardev.backends.stdio import StdioOptions, open_stdio
from trio_chardev.core.backend import OpenRequest
from trio_chardev.testing.pair import receive_some

async def main():
    for greeting in b"one\\n", b"two\\n":
        request = OpenRequest(id="x", on_event=lambda event: None)
        async with open_stdio(StdioOptions(), request) as backend:
            backend.activate()
            await backend.send_some(memoryview(greeting))
            await backend.send_some(memoryview(await receive_some(backend, 100)))
    os.write(1, b"still there" if os.fstat(0) else b"")

trio.run(main)
"""


def test_serves_0_and_1_which_survive_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for greeting in (b"one\n", b"two\n"):
            assert process.stdout.readline() == greeting
            process.stdin.write(b"echo\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"echo\n"
        assert process.stdout.read() == b"still there"
