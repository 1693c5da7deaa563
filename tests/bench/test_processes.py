"""Processes of a run: they exist for their block, and their errors are reported."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest
import trio

from bench.layers import drain
from bench.model import BenchmarkError
from bench.processes import connect, listening, running, trio_child


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_process_ends_with_its_block() -> None:
    with running(script("import time; time.sleep(60)")) as process:
        assert is_alive(process.pid)
    assert not is_alive(process.pid)


def test_the_last_line_of_a_process_is_in_the_error() -> None:
    with (
        pytest.raises(BenchmarkError, match="nobody listens at /none; .* said: exit: two"),
        running(script("print('one'); print('exit: two')")) as process,
    ):
        connect("/none", process)


async def double(number: int) -> list[float]:
    await trio.lowlevel.checkpoint()
    return [2.0 * number]


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise ExceptionGroup("two", [OSError("no such thing"), ValueError("wrong")])


async def give_pid_and_stay(path: str) -> None:
    await trio.Path(path).write_text(str(os.getpid()))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.sock")
        listener.listen()
        await trio.sleep_forever()


def test_a_child_gives_what_its_function_returns() -> None:
    with trio_child(double, 21) as result:
        assert result() == [42.0]


def test_what_a_child_raises_is_an_error_here_without_its_groups() -> None:
    with (
        trio_child(fail) as result,
        pytest.raises(BenchmarkError, match=r"^OSError: no such thing; ValueError: wrong$"),
    ):
        result()


def test_what_a_child_died_of_comes_before_what_follows_from_it() -> None:
    def wait_for_it() -> None:
        with trio_child(fail):
            for child in multiprocessing.active_children():
                child.join()
            raise ConnectionResetError

    with pytest.raises(BenchmarkError, match="no such thing"):
        wait_for_it()


def test_a_child_that_stays_ends_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with trio_child(give_pid_and_stay, str(path)):
        connect(f"{path}.sock").close()
        pid = int(path.read_text())
        assert is_alive(pid)
    assert not is_alive(pid)


def test_what_comes_is_counted_for_each_connection() -> None:
    with listening() as (path, listener):
        for data in (b"abc", b"", b"de"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(data)
        assert drain(listener, 3) == [3, 0, 2]
