"""The window of the terminal at standard input: its size at first, by SIGWINCH, and after a stop."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.backends.test_stdio_terminal import shell
from tests.services import PROGRAM, Qmp
from tests.terminals import until
from trio_chardev.backends.stdio import StdioBackend, StdioOptions, open_stdio
from trio_chardev.backends.terminal_window import (
    WindowWatch,
    get_window_size,
    set_window_size,
)
from trio_chardev.core.backend import OpenRequest
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, Event, WindowSize

SMALL, WIDE = WindowSize(80, 24), WindowSize(132, 43)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A user's side, and the terminal that is our standard input and output."""
    user, tty = os.openpty()
    yield user, tty
    os.close(user)
    os.close(tty)


async def resize(user: int, size: WindowSize) -> None:
    """As the user does; the terminal is not our controlling one, so the signal is sent by hand."""
    set_window_size(user, size)
    os.kill(os.getpid(), signal.SIGWINCH)
    await wait_all_tasks_blocked(0.01)


async def test_the_size_is_known_before_it_is_open_and_changes_by_a_signal(
    terminal: tuple[int, int],
) -> None:
    events: list[BackendEvent] = []
    user, tty = terminal
    set_window_size(user, SMALL)
    before = signal.getsignal(signal.SIGWINCH)
    request = OpenRequest(id="x", on_event=events.append)
    async with open_stdio(StdioOptions(), request, (tty, tty)) as backend:
        backend.activate()
        for size in (WIDE, WIDE, UNKNOWN_SIZE):
            await resize(user, size)
    assert events == [SMALL, Event.OPENED, WIDE, UNKNOWN_SIZE]
    assert signal.getsignal(signal.SIGWINCH) == before


async def test_a_change_to_stdio_itself_leaves_the_signal_to_the_new_one(
    terminal: tuple[int, int],
) -> None:
    old_events: list[BackendEvent] = []
    events: list[BackendEvent] = []
    user, tty = terminal
    old = open_stdio(StdioOptions(), OpenRequest(id="x", on_event=old_events.append), (tty, tty))
    before = await old.__aenter__()
    before.activate()
    request = OpenRequest(id="x", on_event=events.append, replaces=before)
    async with open_stdio(StdioOptions(), request, (tty, tty)) as backend:
        await resize(user, SMALL)
        backend.activate()
        await old.__aexit__(None, None, None)
        await resize(user, WIDE)
    assert old_events == [Event.OPENED, SMALL]
    assert events == [Event.OPENED, SMALL, WIDE]


async def test_pipes_have_no_window() -> None:
    events: list[BackendEvent] = []
    ours, theirs = os.pipe()
    before = signal.getsignal(signal.SIGWINCH)
    request = OpenRequest(id="x", on_event=events.append)
    async with open_stdio(StdioOptions(), request, (ours, theirs)) as backend:
        assert isinstance(backend, StdioBackend)
        backend.activate()
        assert signal.getsignal(signal.SIGWINCH) == before
        os.kill(os.getpid(), signal.SIGWINCH)
        await wait_all_tasks_blocked(0.01)
    assert events == [Event.OPENED]
    os.close(ours)
    os.close(theirs)


async def test_a_handler_that_was_there_is_called_and_stays() -> None:
    seen: list[str] = []

    def theirs(number: int, frame: object) -> None:
        seen.append("theirs")

    before = signal.signal(signal.SIGWINCH, theirs)
    try:
        watch = WindowWatch(lambda: seen.append("ours"))
        os.kill(os.getpid(), signal.SIGWINCH)
        await wait_all_tasks_blocked(0.01)
        watch.close()
        assert (seen, signal.getsignal(signal.SIGWINCH)) == (["theirs", "ours"], theirs)
        watch = WindowWatch(lambda: seen.append("ours"))
        signal.signal(signal.SIGWINCH, theirs)
        watch.close()
        os.kill(os.getpid(), signal.SIGWINCH)
        assert seen == ["theirs", "ours", "theirs"], "who has set his own since keeps it"
    finally:
        signal.signal(signal.SIGWINCH, before)


def test_in_another_thread_it_looks_when_it_is_asked_to() -> None:
    before, seen = signal.getsignal(signal.SIGWINCH), list[str]()

    async def main() -> None:
        watch = WindowWatch(lambda: seen.append("looked"))
        watch.look_soon()
        await wait_all_tasks_blocked(0.01)
        watch.close()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()
    assert (seen, signal.getsignal(signal.SIGWINCH)) == (["looked"], before)


def test_what_is_resized_reaches_a_pty_behind_a_bridge(tmp_path: Path) -> None:
    """By the kernel's own SIGWINCH, and by a look if the service was stopped meanwhile."""
    options = ["--chardev", "stdio,id=s", "--chardev", f"pty,id=p,path={tmp_path}/board"]
    bridge = ["--device", "bridge,chardev=p,peer=s"]
    listener = ["--qmp", f"unix:{tmp_path}/q,server=on,wait=off"]
    command = shlex.join([*PROGRAM, "serve", *options, *bridge, *listener])
    user, tty = os.openpty()
    set_window_size(user, SMALL)
    with shell(f"{command}; echo stopped; read line; fg; echo over", (user, tty)) as session:
        with Qmp(tmp_path / "q") as qmp:
            board = os.open(tmp_path / "board", os.O_RDWR | os.O_NOCTTY)
            until(lambda: get_window_size(board) == SMALL)
            until(lambda: session.is_raw)
            set_window_size(user, WIDE)
            until(lambda: get_window_size(board) == WIDE)
            session.type(b"\x1a")  # ctrl-Z
            session.expect(b"stopped\r\n")
            set_window_size(user, SMALL)
            session.type(b"\n")
            until(lambda: get_window_size(board) == SMALL)
            os.close(board)
            assert qmp("quit") == {}
        session.expect(b"over\r\n")
