"""Log files in formats, of either direction, with notes; by real chardevs."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.disk import Disk, eventually
from tests.steps import steps
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.backends.taps.formatted_log import FormattedLog
from trio_chardev.backends.taps.log import open_log
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.tap import Tap
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry
from trio_chardev.testing import CancelAtStep

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
FORMATS = ["raw", "timestamp", "json", "hexdump"]


def plain(log: bytes) -> bytes:
    """The log with T for each time."""
    return re.sub(STAMP, b"T", log)


def records(log: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def tap_of(registry: Registry) -> FormattedLog:
    (tap,) = registry["x"].backend.taps
    assert isinstance(tap, FormattedLog)
    return tap


async def written(tap: FormattedLog) -> None:
    """Wait until all that it has put is in the file, while the clock jumps."""
    while not tap.background.is_idle:  # noqa: ASYNC110
        await trio.sleep(0.01)


# ---------------------------------------------------------------- directions


@pytest.mark.parametrize(
    ("direction", "log"),
    [("out", b"T typed\n"), ("in", b"T said\n"), ("both", b"T > typed\nT < said\n")],
)
async def test_which_direction_is_logged(tmp_path: Path, direction: Any, log: bytes) -> None:
    """``in`` is what comes from the device, ``out`` what is written to it, as QEMU logs."""
    options = PtyOptions(logfile=str(tmp_path / "log"), logtimestamp=True, log=direction)
    async with open_registry() as registry:
        await registry.add("x", options)
        path = registry["x"].pty
        assert path is not None
        async with registry["x"].attach() as frontend:
            device = os.open(path, os.O_RDWR | os.O_NOCTTY)
            tty.setraw(device)
            with trio.fail_after(5):
                await eventually(lambda: registry["x"].is_open)
                await frontend.send_all(b"typed\n")
                os.write(device, b"said\n")
                assert await frontend.receive_some() == b"said\n"
            os.close(device)
    assert plain((tmp_path / "log").read_bytes()) == log


async def test_raw_of_both_is_the_bytes_in_order(tmp_path: Path) -> None:
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(tmp_path / "log"), log="both"))
        tap_of(registry).sent(memoryview(b"login: "))
        tap_of(registry).received(b"root")
    assert (tmp_path / "log").read_bytes() == b"login: root"


async def test_a_log_of_a_board_has_no_password(tmp_path: Path) -> None:
    """With log=in, what is typed is not looked at."""
    options = NullOptions(logfile=str(tmp_path / "log"), log="in", log_format="json")
    async with open_registry() as registry:
        await registry.add("x", options)
        tap_of(registry).sent(memoryview(b"secret\n"))
        tap_of(registry).refused(memoryview(b"secret\n"))
        tap_of(registry).received(b"Password: \n")
    assert [record["text"] for record in records((tmp_path / "log").read_bytes())] == [
        "Password: \n"
    ]


# ---------------------------------------------------------------- last words


@pytest.mark.parametrize(
    ("form", "strip"),
    [*((form, False) for form in FORMATS), *((form, True) for form in FORMATS[:3])],
)
async def test_the_last_words_are_in_the_file_within_a_second(
    tmp_path: Path, form: Any, strip: bool
) -> None:
    """Without a newline, while the board hangs."""
    path = tmp_path / "log"
    options = NullOptions(logfile=str(path), log_format=form, log_strip=strip)
    async with open_registry() as registry:
        await registry.add("x", options)
        async with registry["x"].attach() as frontend:
            await frontend.send_all(b"panic: x")
            with trio.fail_after(1):
                while b"panic: x" not in path.read_bytes():  # noqa: ASYNC110, ASYNC230, ASYNC251
                    await trio.sleep(0.01)


async def test_a_sequence_that_does_not_end_keeps_nothing_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log_strip=True))
        tap = tap_of(registry)
        tap.sent(memoryview(b"\x1b[1mbold\x1b[0m \x1b]panic"))
        await trio.sleep(0.6)
        tap.sent(memoryview(b" again\n"))
        await written(tap)
    assert path.read_bytes() == b"bold ]panic again\n"


async def test_a_json_line_that_goes_on_is_another_object(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """All texts joined are what was said."""
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log_format="json"))
        tap = tap_of(registry)
        for piece in (b"log", b"in: ", b"", b"root\n", b"#"):
            tap.sent(memoryview(piece))
            await trio.sleep(0.3)
        await trio.sleep(1)
        await written(tap)
    assert [r["text"] for r in records(path.read_bytes())] == ["login: ", "root\n", "#"]


async def test_a_task_waits_only_where_something_is_held_back(tmp_path: Path) -> None:
    """A plain log, and one with times, cost no task more than before."""

    def count() -> int:
        return sum(len(n.child_tasks) for n in trio.lowlevel.current_task().child_nurseries)

    async def tasks(**given: Any) -> int:
        options = BackendOptions(logfile=str(tmp_path / "log"), **given)
        request = OpenRequest(id="x", on_event=lambda event: None)
        before = count()
        async with open_log(options, request):
            return count() - before

    assert await tasks() == await tasks(logtimestamp=True) == await tasks(log="in") == 1
    assert await tasks(log_format="json") == await tasks(log_strip=True) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_all_that_was_said_is_in_the_log(tmp_path: Path, when: str) -> None:
    """And no descriptor is left, wherever its lines, its notes and its reopening are cut."""
    for k in steps(10_000):
        path = tmp_path / f"log{k}"
        said: list[str] = []
        descriptors = len(os.listdir("/proc/self/fd"))

        async def use(path: Path = path, said: list[str] = said, k: int = k) -> bool:
            options = NullOptions(
                logfile=str(path), log_format="json", log_events=True, log_rotate=1 << 20
            )
            with trio.fail_after(20), trio.CancelScope() as scope:
                injector = CancelAtStep(k, when, scope)
                trio.lowlevel.add_instrument(injector)
                async with open_registry() as registry:
                    await registry.add("x", options)
                    tap = tap_of(registry)
                    injector.armed = True
                    for word in ("begun", " on\n", "last words"):
                        if not tap._is_finished:
                            said.append(word)
                        tap.sent(memoryview(word.encode()))
                        await trio.sleep(0.001)
                        await registry.reopen_logs()
                    injector.armed = False
            trio.lowlevel.remove_instrument(injector)
            return injector.fired

        fired = trio.run(use)
        assert "".join(r.get("text", "") for r in records(path.read_bytes())) == "".join(said)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        if not fired:
            return
    raise AssertionError("it never ends")


# ---------------------------------------------------------------- notes


async def test_notes_tell_who_comes_and_goes_breaks_and_changes(tmp_path: Path) -> None:
    path, sock = tmp_path / "log", str(tmp_path / "sock")
    options = SocketOptions(
        addr=UnixAddress(sock), server=True, wait=False, logfile=str(path), log_events=True
    )
    async with open_registry() as registry:
        await registry.add("x", options)
        chardev = registry["x"]
        client = await trio.open_unix_socket(sock)
        with trio.fail_after(5):
            await eventually(lambda: chardev.is_open)
            async with chardev.attach(be_change=_fine) as frontend:
                await frontend.send_all(b"panic")
                registry.send_break("x")
                await client.aclose()
                await eventually(lambda: not chardev.is_open)
                await registry.change("x", NullOptions())
    notes = plain(path.read_bytes()).decode().splitlines()
    assert notes == [
        "T [trio-chardev: CLOSED]",
        f"T [trio-chardev: OPENED unix:{sock},server=on]",
        "panic",
        "T [trio-chardev: BREAK]",
        "T [trio-chardev: CLOSED]",
        f"T [trio-chardev: CHANGED disconnected:unix:{sock},server=on -> null]",
    ]


@pytest.mark.parametrize("is_changed", [False, True])
async def test_who_is_there_at_the_end_is_noted_to_be_gone(
    tmp_path: Path, is_changed: bool
) -> None:
    """After a change the note about that is the end."""
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", RingbufOptions(logfile=str(path), log_events=True))
        tap_of(registry).sent(memoryview(b"last words"))
        if is_changed:
            await registry.change("x", NullOptions())
    *others, words, note = plain(path.read_bytes()).splitlines()
    assert (others, words) == ([b"T [trio-chardev: OPENED ringbuf]"], b"last words")
    end = b"CHANGED ringbuf -> null" if is_changed else b"CLOSED"
    assert note == b"T [trio-chardev: %s]" % end


async def _fine(backend: object) -> None:
    """Agree to a change."""


async def test_others_have_a_note_written_and_cannot_forge_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log_events=True))
        tap: Tap = tap_of(registry)
        tap.note("uid 1000 attached")
        tap.note("a\nb\x1b[31m")
    tap.note("nobody hears this")
    assert plain(path.read_bytes()).splitlines()[1:] == [
        rb"T [trio-chardev: uid 1000 attached]",
        rb"T [trio-chardev: a\nb\x1b[31m]",
    ]


async def test_without_log_events_nothing_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), logtimestamp=True))
        tap_of(registry).note("uid 1000 attached")
        registry.send_break("x")
        await registry.add("y", NullOptions(logfile=str(tmp_path / "plain")))
        registry["y"].backend.taps[0].note("uid 1000 attached")
    assert path.read_bytes() == (tmp_path / "plain").read_bytes() == b""


async def test_a_change_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    options = NullOptions(logfile=str(path), log_format="json", log_events=True, logappend=True)
    async with open_registry() as registry:
        await registry.add("x", options)
        for text in (b"old", b"new"):
            async with registry["x"].attach(be_change=_fine) as frontend:
                await frontend.send_all(text)
                await registry.change("x", options)
    assert [r.get("text", r.get("note")) for r in records(path.read_bytes())] == [
        "CLOSED",
        *("old", "CHANGED null -> null", "CLOSED"),
        *("new", "CHANGED null -> null", "CLOSED"),
    ]


# ---------------------------------------------------------------- trouble with the disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_disk_that_hangs_costs_lost_at_that_place(
    tmp_path: Path, disk: Disk, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, what was begun before is whole, and all bytes are accounted for."""
    monkeypatch.setattr(background, "MAX_PENDING", 1 << 17)
    path = tmp_path / "log"
    options = NullOptions(logfile=str(path), log="in", log_format=form)
    pieces = [b"%07d\n" % number * 512 for number in range(600)]  # 4 KiB each
    async with open_registry() as registry:
        await registry.add("x", options)
        tap = tap_of(registry)
        disk.go.clear()
        tap.received(b"first\n" + bytes(10))
        await disk.wait_calls(1)
        for piece in pieces:
            tap.received(piece)
            assert len(tap.background.pending) <= tap.times * background.MAX_PENDING
        disk.go.set()
        with trio.fail_after(10):
            await tap.background.wait_idle()
        tap.received(b"again\n")
    log = path.read_bytes()
    (lost,) = map(int, re.findall(rb"\[?LOST (\d+) bytes", log))
    before, after = re.split(rb"[^\n]*LOST \d+ bytes[^\n]*\n", log)
    kept = {
        "raw": lambda: len(before.rstrip(b"\n")) + (not before.endswith(b"\n\n")),
        "timestamp": lambda: len(plain(before)) - 2 * before.count(b"Z "),
        "json": lambda: sum(len(r["text"]) for r in records(before)),
        "hexdump": lambda: 16 * before.count(b"\n"),
    }[form]()
    assert kept + lost == pytest.approx(16 + sum(map(len, pieces)), abs=16)
    assert b"again" in after
    assert after.count(b"\n") == 1


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size*: write(2) writes less, then fails (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_file_that_may_not_grow_goes_on_where_it_stopped(
    tmp_path: Path, form: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a line: nothing is missing, and nothing is there twice."""
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.01)
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log="in", log_format=form))
        tap = tap_of(registry)
        with no_larger_than(1000):
            for number in range(100):
                tap.received(b"%07d\n" % number * 2)
            await eventually(lambda: "File too large" in caplog.text)
            assert path.stat().st_size == 1000
    log = path.read_bytes()
    if form == "json":
        assert [r["text"] for r in records(log)] == [f"{n // 2:07}\n" for n in range(200)]
    if form == "raw":
        assert log == b"".join(b"%07d\n" % number * 2 for number in range(100))
    assert caplog.text.count("Could not write") == 1
    assert b"LOST" not in log


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_full_disk_costs_lost_and_it_goes_on_by_itself(
    small_disk: Path, form: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(background, "MAX_PENDING", 1 << 15)
    path = small_disk / "log"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(32 << 10))
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log="in", log_format=form))
        tap = tap_of(registry)
        for _ in range(300):
            tap.received(b"0123456\n" * 512)
            await trio.lowlevel.checkpoint()
        await eventually(lambda: os.strerror(errno.ENOSPC) in caplog.text)
        ballast.unlink()
        subprocess.run(  # noqa: ASYNC221
            ["mount", "-o", "remount,size=8m", str(small_disk)], check=True
        )
        with trio.fail_after(10):
            await tap.background.wait_idle()
        tap.received(b"again\n")
    log = path.read_bytes()
    lost = sum(map(int, re.findall(rb"LOST (\d+) bytes", log)))
    assert 0 < lost == 300 * 4096 - log.count(LINE[form]) * LINE_SIZE[form]
    assert b"again" in log.splitlines()[-1]


LINE = {
    "raw": b"0123456\n",
    "timestamp": b"0123456\n",
    "json": b"0123456\\n",
    "hexdump": b"  0123456.",
}
LINE_SIZE = {"raw": 8, "timestamp": 8, "json": 8, "hexdump": 16}


async def test_what_was_left_out_is_told_where_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With log-max, after somebody has truncated the file."""
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), log_max=1000))
        async with registry["x"].attach() as frontend:
            await frontend.send_all(bytes(1234))
            await eventually(lambda: "has reached its size" in caplog.text)
            os.truncate(path, 0)
            await frontend.send_all(b"again")
    assert plain(path.read_bytes()) == b"T [trio-chardev: LOST 234 bytes]\nagain"


# ---------------------------------------------------------------- time


async def test_times_are_local_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv("TZ", "EAST-5:30")
    time.tzset()
    try:
        async with open_registry() as registry:
            options = NullOptions(logfile=str(path), log_format="timestamp", log_time="local")
            await registry.add("x", options)
            tap_of(registry).sent(memoryview(b"x"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.fullmatch(rb"\S{26}\+05:30 x", path.read_bytes())
