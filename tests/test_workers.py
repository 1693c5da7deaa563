"""Worker threads: a failure of one costs no more than its job, and nobody waits for it in vain."""

from __future__ import annotations

import _thread
import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio._core._wakeup_socketpair import WakeupSocketpair

from tests.disk import eventually, wait_written
from tests.services import until
from tests.threads import Threads
from trio_chardev import workers
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.resolving import resolve
from trio_chardev.backends.taps import background_file as background
from trio_chardev.backends.taps.log import open_log
from trio_chardev.backends.taps.record import open_recording
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.handlers import stateless
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.server import state as state_module
from trio_chardev.qmp.server.state import open_state_file
from trio_chardev.registry import open_registry
from trio_chardev.workers import NoThreadError, run_in_worker


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


def limit() -> trio.CapacityLimiter:
    return trio.to_thread.current_default_thread_limiter()


async def test_a_function_runs_elsewhere_and_its_result_comes_back(threads: Threads) -> None:
    here = threading.get_ident()
    assert await run_in_worker(threading.get_ident) != here
    assert await run_in_worker(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run_in_worker(divmod, 7, 0)
    assert threads.asked == 1  # the idle one is taken again
    assert limit().borrowed_tokens == 0


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
async def test_without_a_thread_it_is_an_error_of_the_system(
    threads: Threads, error: Exception
) -> None:
    threads.error = error
    with pytest.raises(OSError, match="^no thread can be started$"):
        await run_in_worker(int)
    assert limit().borrowed_tokens == 0
    threads.error = None
    assert await run_in_worker(int) == 0


async def test_a_wake_up_that_fails_is_repeated(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send finds no buffer: what was to be run is with Trio, which sleeps."""
    wake = WakeupSocketpair.wakeup_thread_and_signal_safe
    failures = 2

    def fail(sockets: WakeupSocketpair) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.ENOBUFS, "no buffers")
        wake(sockets)

    monkeypatch.setattr(WakeupSocketpair, "wakeup_thread_and_signal_safe", fail)
    with trio.fail_after(5):
        assert await run_in_worker(divmod, 7, 2) == (3, 1)
    assert not failures


async def test_errors_of_the_function_are_its_own(threads: Threads) -> None:
    def fail() -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        await run_in_worker(fail)


async def test_a_thread_that_dies_as_it_begins_freezes_nobody(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trio and `threading` would wait for it in the event loop, without end."""
    monkeypatch.setattr(workers, "START_TIMEOUT", 0.01)
    threads.are_dying = True
    with trio.fail_after(5), pytest.raises(NoThreadError):
        await run_in_worker(int)
    assert limit().borrowed_tokens == 0


async def test_a_thread_that_begins_late_does_not_do_what_was_given_up(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "START_TIMEOUT", 0.01)
    threads.are_dying = True
    done: list[str] = []
    with pytest.raises(NoThreadError):
        await run_in_worker(done.append, "late")
    threads.are_dying = False
    threads.begin_again()
    await eventually(lambda: len(workers.POOL._idle) == 1)
    await run_in_worker(done.append, "in time")
    assert done == ["in time"]


async def test_a_clock_that_jumps_makes_no_thread_late(
    threads: Threads, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(20):
        await run_in_worker(time.sleep, 0.001)
        await work_on_files(time.sleep, 0.001)
    assert trio.current_time() == 0


async def test_cancelled_nobody_waits_but_its_place_is_taken_until_it_is_done(
    threads: Threads,
) -> None:
    go, thrown_away = threading.Event(), list[str]()
    begun = threading.Event()

    def work() -> str:
        begun.set()
        go.wait(10)
        return "late"

    limiter = trio.CapacityLimiter(1)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_in_worker(work, limiter=limiter, discard=thrown_away.append)
            )
            await until(begun.is_set)
            nursery.cancel_scope.cancel()
        assert limiter.borrowed_tokens == 1
        go.set()
        await until(lambda: limiter.borrowed_tokens == 0)
        await until(lambda: thrown_away == ["late"])


async def test_what_is_taken_is_not_thrown_away(threads: Threads) -> None:
    thrown_away: list[int] = []
    assert await run_in_worker(int, "5", discard=thrown_away.append) == 5
    await trio.testing.wait_all_tasks_blocked()
    assert thrown_away == []


def test_the_end_of_the_run_throws_away_what_comes_later(threads: Threads) -> None:
    go, begun, thrown_away = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_in_worker(work, discard=lambda result: thrown_away.set())
            )
            await until(begun.is_set)
            nursery.cancel_scope.cancel()

    trio.run(main)
    go.set()
    assert thrown_away.wait(5)


async def test_the_last_idle_thread_stays(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE_TIMEOUT", 0.01)
    barrier = threading.Barrier(3)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_in_worker, barrier.wait)
    await eventually(lambda: len(workers.POOL._idle) == 1)
    threads.error = RuntimeError("can't start new thread")
    assert await run_in_worker(int) == 0


# ---------------------------------------------------------------- who uses them


def request() -> OpenRequest:
    return OpenRequest(id="x", on_event=lambda event: None)


@pytest.mark.parametrize("kind", ["log", "recording"])
async def test_a_log_or_recording_is_written_when_there_are_threads_again(
    kind: str,
    threads: Threads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.001)
    path = tmp_path / "f"
    opened: AbstractAsyncContextManager[Tap | None]
    if kind == "log":
        opened = open_log(BackendOptions(logfile=str(path)), request())
    else:
        opened = open_recording(BackendOptions(record=str(path)), request())
    async with opened as tap:
        assert tap is not None
        threads.run_out()
        asked = threads.asked
        tap.activate()
        tap.sent(memoryview(b"first "))
        await until(lambda: threads.asked > asked + 3)
        tap.sent(memoryview(b"second"))
        assert path.read_bytes() == b""
        threads.error = None
        await wait_written(path, 12)
    assert path.read_bytes().index(b"first ") < path.read_bytes().index(b"second")
    assert [r.message for r in caplog.records] == [
        f"Could not write to {'log file' if kind == 'log' else kind} '{path}': "
        "no thread can be started"
    ]


async def test_the_end_of_a_log_waits_for_a_thread_that_is_busy_for_a_moment(
    threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the last one there is; each of those who want it may be unlucky several times."""
    path = tmp_path / "f"
    async with open_log(BackendOptions(logfile=str(path)), request()) as log:
        assert log is not None
        threads.run_out()
        first = threads.asked + 1

        def start(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
            threads.asked += 1
            if threads.asked < first + 5:
                raise RuntimeError("can't start new thread")
            _thread.start_new_thread(function, arguments)

        monkeypatch.setattr(workers.POOL, "_start", start)
        log.activate()
        log.sent(memoryview(b"the end"))
    assert path.read_bytes() == b"the end"


async def test_the_end_of_a_file_is_written_without_a_thread_if_there_is_none_to_the_last(
    threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nowhere else, unlike that of a log. What it had held before is gone, too."""
    monkeypatch.setattr(background, "LAST_TIME", background.FLUSH_TIMEOUT)
    path = tmp_path / "f"
    path.write_bytes(b"of before")
    async with open_registry() as registry:
        await registry.add("c", FileOptions(out=path))
        threads.run_out()
        async with registry["c"].attach(be_change=stateless) as frontend:
            await frontend.send_all(b"the end")
            await registry.change("c", NullOptions())
        assert path.read_bytes() == b"the end"


async def test_a_log_holds_no_more_than_it_may_while_there_are_no_threads(
    threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.001)
    monkeypatch.setattr(background, "FLUSH_TIMEOUT", 0.1)
    monkeypatch.setattr(background, "MAX_PENDING", 10)
    async with open_log(BackendOptions(logfile=str(tmp_path / "f")), request()) as log:
        assert log is not None
        threads.run_out()
        for _ in range(10):
            log.sent(memoryview(b"12345"))
            await trio.sleep(0.001)
        assert len(log.background.pending) == 10
        assert log.background.dropped >= 30
    assert (tmp_path / "f").read_bytes() == b""


async def test_a_file_is_not_opened_without_a_thread(threads: Threads, tmp_path: Path) -> None:
    threads.run_out()
    expected = f"^Could not create '{tmp_path}/f': no thread can be started$"
    with pytest.raises(BackendError, match=expected):
        async with open_log(BackendOptions(logfile=str(tmp_path / "f")), request()):
            pass


async def test_a_look_up_says_what_is_lacking(threads: Threads) -> None:
    threads.run_out()
    expected = "address resolution failed for localhost:1: no thread can be started"
    with pytest.raises(BackendError) as caught:
        await resolve(InetAddress("localhost", "1"), passive=False)
    assert str(caught.value) == expected
    assert await resolve(InetAddress("127.0.0.1", "1"), passive=False)


async def test_a_state_file_is_written_when_there_are_threads_again(
    threads: Threads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(state_module, "RETRY_INTERVAL", 0.001)
    path = tmp_path / "s"
    threads.run_out()
    with open_state_file(str(path)) as state_file, trio.fail_after(5):
        async with open_background_nursery() as background:
            background.start_soon(state_file.run)
            await state_file.keep("chardevs", "a", {"type": "null", "data": {}})
            await until(lambda: threads.asked > 3)
            threads.error = None
            await until(path.exists)
            await state_file.keep("chardevs", "a", None)
    assert [r.message for r in caplog.records] == [
        f"Could not write '{path}': no thread can be started",
        f"'{path}' is written again",
    ]
