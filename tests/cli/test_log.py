"""What the service prints never blocks it, and a flood of log lines is limited."""

from __future__ import annotations

import _thread
import errno
import logging
import os
import pty
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp
from trio_chardev.cli import log as module, rate_limit
from trio_chardev.cli.log import MAX_PENDING, LineStream, LineWriter
from trio_chardev.cli.rate_limit import BURST, BURST_OF_ONE, RateLimit

LINE = "x" * 99 + "\n"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fill(fd: int) -> int:
    """Write to *fd* until nothing more fits in; gives the number of bytes."""
    os.set_blocking(fd, False)
    size = 0
    for piece in (65536, 1):
        while True:
            try:
                size += os.write(fd, b"f" * piece)
            except BlockingIOError:
                break
    os.set_blocking(fd, True)
    return size


def read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            assert fd in (reader, writer)


def no_thread(*arguments: Any) -> None:
    raise RuntimeError("can't start new thread")


# ---------------------------------------------------------------- lines


def test_lines_are_written_in_order_and_before_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer)
    for number in range(100):
        lines.put(f"{number}\n")
    lines.close()
    assert os.read(reader, 65536).decode().split() == [str(number) for number in range(100)]


def test_a_stuck_reader_holds_up_nobody_and_what_is_dropped_is_counted(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    size = fill(writer)
    lines = LineWriter(writer)
    count = MAX_PENDING // len(LINE) + 7
    for _ in range(count):
        lines.put(LINE)
    lines.put("small\n")  # there is room for that
    read_exactly(reader, size)
    kept = MAX_PENDING // len(LINE)
    said = read_exactly(reader, kept * len(LINE)).decode()
    assert said == LINE * kept
    note = "trio-chardev: 7 lines could not be written\nsmall\n"
    assert read_exactly(reader, len(note)).decode() == note
    lines.put("next\n")
    lines.close()
    assert os.read(reader, 100) == b"next\n"


def test_that_lines_were_dropped_is_told_though_no_more_come(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    size = fill(writer)
    lines = LineWriter(writer)
    count = MAX_PENDING // len(LINE)
    for _ in range(count + 1):
        lines.put(LINE)
    read_exactly(reader, size + count * len(LINE))
    assert os.read(reader, 100) == b"trio-chardev: 1 line could not be written\n"


def test_the_end_waits_for_a_stuck_reader_no_longer_than_it_may(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT", 0.01)
    reader, writer = pipe
    size = fill(writer)
    lines = LineWriter(writer)
    lines.put(LINE)
    lines.close()
    read_exactly(reader, size + len(LINE))  # the thread ends


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_lines_that_fail_are_counted_and_told_when_it_goes_again(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    reader, writer = pipe
    write, failures = os.write, [0]
    fails = threading.Event()
    fails.set()

    def failing(fd: int, data: bytes) -> int:
        if fd == writer and fails.is_set():
            failures[0] += 1
            raise OSError(number, os.strerror(number))
        return write(fd, data)

    monkeypatch.setattr(os, "write", failing)
    lines = LineWriter(writer)
    lines.put("lost\n")
    wait_for(lambda: lines._failed == 1)
    lines.put("lost, too\n")
    wait_for(lambda: lines._failed == 2)
    fails.clear()
    lines.put("there\n")
    lines.close()
    assert os.read(reader, 100) == b"trio-chardev: 2 lines could not be written\nthere\n"


def test_a_line_that_broke_off_is_ended_first(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    write, calls = os.write, [0]

    def failing(fd: int, data: bytes) -> int:
        if fd == writer:
            calls[0] += 1
            if calls[0] == 1:
                return write(fd, data[:4])
            if calls[0] == 2:
                raise OSError(errno.ENOSPC, "full")
        return write(fd, data)

    monkeypatch.setattr(os, "write", failing)
    lines = LineWriter(writer)
    lines.put("torn off\n")
    lines.put("whole\n")
    lines.close()
    expected = b"torn\ntrio-chardev: 1 line could not be written\nwhole\n"
    assert os.read(reader, 100) == expected


def test_a_closed_descriptor_costs_the_lines_only() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.put("x\n")
    os.close(writer)
    lines.put("x\n")
    lines.close()


def test_a_descriptor_that_others_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    """As `stdio` does with a terminal that standard error shares."""
    reader, writer = pipe
    size = fill(writer)
    os.set_blocking(writer, False)
    lines = LineWriter(writer)
    lines.put("there\n")
    read_exactly(reader, size)
    lines.close()
    assert os.read(reader, 100) == b"there\n"


def test_a_terminal_that_is_stopped_holds_up_nobody() -> None:
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    lines = LineWriter(slave)
    lines.put("later\n")
    termios.tcflow(slave, termios.TCOON)
    assert os.read(master, 100) == b"later\r\n"
    lines.close()
    os.close(master)
    os.close(slave)


def test_without_a_thread_what_has_room_is_written_and_the_rest_is_dropped(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_INTERVAL", 0.0)
    reader, writer = pipe
    starts: list[Callable[..., Any]] = [no_thread] * 5
    lines = LineWriter(
        writer, start=lambda *a: (starts.pop() if starts else _thread.start_new_thread)(*a)
    )
    lines.put("first\n")
    assert os.read(reader, 100) == b"first\n"
    size = fill(writer)
    lines.put("dropped\n")
    read_exactly(reader, size)
    lines.put("second\n")
    assert os.read(reader, 100) == b"trio-chardev: 1 line could not be written\nsecond\n"
    lines.put("third\n")
    assert not starts
    lines.put("by the thread\n")
    lines.close()
    assert os.read(reader, 100) == b"third\nby the thread\n"
    assert lines._has_thread


def test_a_thread_that_dies_as_it_begins_costs_the_lines_only(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT", 0.01)
    lines = LineWriter(pipe[1], start=lambda *arguments: None)
    for _ in range(MAX_PENDING // len(LINE) + 1):
        lines.put(LINE)
    assert lines._dropped == 1
    lines.close()


def test_whatever_prints_prints_whole_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer)
    stream: Any = LineStream(lines.put)
    print("two", "words", file=stream)
    print("begun", end="", file=stream, flush=True)
    print(", ended\u00e4", file=stream)
    click.echo("by click\udcff", file=stream)
    lines.close()
    assert os.read(reader, 100) == "two words\nbegun, endedä\nby click\\udcff\n".encode()


# ---------------------------------------------------------------- limits


def record(template: str, *arguments: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("l", level, "file", 1, template, arguments, None)


class Limited:
    """What comes through."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limit = RateLimit(lambda: self.now)

    def __call__(
        self, template: str, *arguments: object, level: int = logging.WARNING
    ) -> list[str]:
        records = self.limit.filter(record(template, *arguments, level=level))
        return [some.getMessage() for some in records]


def test_of_one_cause_only_so_many_lines_come_through_and_then_their_number() -> None:
    limited = Limited()
    for number in range(BURST):
        assert limited("client '%s' is let go", number) == [f"client '{number}' is let go"]
    for number in range(1000):
        assert limited("client '%s' is let go", f"n{number}") == []
    assert limited("another cause") == ["another cause"]
    limited.now = 1.0
    assert limited("client '%s' is let go", "last") == [
        "1000 more like this: client 'n999' is let go",
        "client 'last' is let go",
    ]
    assert limited("client '%s' is let go", "last") == []


def test_one_that_floods_does_not_hide_the_others() -> None:
    limited = Limited()
    said = [limited("chardev '%s' died", "noisy") for _ in range(1000)]
    assert sum(map(bool, said)) == BURST_OF_ONE
    assert limited("chardev '%s' died", "quiet")[-1] == "chardev 'quiet' died"


def test_what_was_left_out_is_told_after_a_while_though_no_more_come() -> None:
    limited = Limited()
    for _ in range(BURST_OF_ONE + 3):
        limited("chardev '%s' died", "x")
    assert limited.limit.take_due() == []
    limited.now = rate_limit.TELL_INTERVAL
    assert [some.getMessage() for some in limited.limit.take_due()] == [
        "3 more like this: chardev 'x' died"
    ]
    assert not limited.limit.has_left_out


def test_who_wants_to_see_all_sees_all() -> None:
    limited = Limited()
    for _ in range(1000):
        assert limited("a command", level=logging.DEBUG)


def test_the_limit_itself_is_bounded() -> None:
    limited = Limited()
    for number in range(10 * rate_limit.MAX_BUCKETS):
        limited("chardev '%s' died", number)
    assert len(limited.limit._buckets) == rate_limit.MAX_BUCKETS


def test_the_limit_forgets_who_has_been_quiet_for_long_and_nobody_else() -> None:
    limited = Limited()
    for number in range(100):
        limited("Could not write to %s", number)
    limited.now = rate_limit.FULL_AFTER / 2
    for _ in range(BURST_OF_ONE):
        limited("chardev '%s' died", "noisy")
    limited.now = rate_limit.FULL_AFTER + 1
    assert limited("another cause") == ["another cause"]
    names = {key[-1] for key in limited.limit._buckets}
    assert names == {"noisy", "chardev '%s' died", "another cause"}
    said = [limited("chardev '%s' died", "noisy") for _ in range(BURST_OF_ONE)]
    assert sum(map(bool, said)) < BURST_OF_ONE  # those before count


# ---------------------------------------------------------------- the service


def start(tmp_path: Path, *arguments: str, **where: Any) -> subprocess.Popen[str]:
    listener = f"unix:{tmp_path}/q,server=on,wait=off"
    return subprocess.Popen([*PROGRAM, "serve", "--qmp", listener, *arguments], text=True, **where)


@pytest.mark.parametrize("stuck", ["stdout", "stderr"])
def test_a_service_whose_output_is_stuck_serves_and_ends(
    tmp_path: Path, pipe: tuple[int, int], stuck: str
) -> None:
    _, writer = pipe
    fill(writer)
    bridge = ["--chardev", "pty,id=p", "--device", "bridge,chardev=a,peer=b,when-closed=hold"]
    for id in "ab":
        bridge += ["--chardev", f"socket,id={id},path={tmp_path}/{id},server=on,wait=off"]
    other = {"stdout": "stderr", "stderr": "stdout"}[stuck]
    where: dict[str, Any] = {stuck: writer, other: subprocess.DEVNULL}
    process = start(tmp_path, "-v", *bridge, **where)
    try:
        with (
            Qmp(tmp_path / "q") as qmp,
            socket.socket(socket.AF_UNIX) as one,
            socket.socket(socket.AF_UNIX) as two,
        ):
            for number in range(20):  # each a line of the log
                nowhere = {"type": "unix", "data": {"path": f"{tmp_path}/missing"}}
                qmp.add(f"s{number}", "socket", addr=nowhere, server=False, reconnect=1)
            for sock, id in ((one, "a"), (two, "b")):
                sock.settimeout(TIMEOUT)
                sock.connect(f"{tmp_path}/{id}")
            one.sendall(b"over the bridge")
            assert two.recv(100) == b"over the bridge"
            assert len(qmp("query-chardev")) == 23
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_a_full_disk_costs_the_lines_only(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start(tmp_path, "-v", "--chardev", "pty,id=p", stderr=full, stdout=full)
    try:
        with Qmp(tmp_path / "q") as qmp:
            assert len(qmp("query-chardev")) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    process = start(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    try:
        with Qmp(tmp_path / "q") as qmp:
            process.send_signal(signal.SIGHUP)
            assert qmp("query-chardev") == []
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
