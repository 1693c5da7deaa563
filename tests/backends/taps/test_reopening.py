"""Log files are opened anew on demand, so that logrotate(8) loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.disk import Disk, eventually, hang_in
from tests.qmp.commands.test_chardev import open_commands
from tests.services import PROGRAM, TIMEOUT, Qmp
from trio_chardev import files
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.serve import serve
from trio_chardev.errors import BackendError, ChardevNotFoundError
from trio_chardev.registry import Registry, open_registry


async def send(registry: Registry, data: bytes) -> None:
    async with registry["x"].attach() as frontend:
        await frontend.send_all(data)


@pytest.mark.parametrize("given", [{}, {"log_format": "json"}, {"log_rotate": 1 << 20}])
async def test_what_comes_after_it_is_in_the_file_of_that_name(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=path, logappend=True, **given))
        await send(registry, b"old\n")
        await eventually(lambda: b"old" in path.read_bytes())
        path.rename(tmp_path / "moved")
        await registry.reopen_logs("x")
        await send(registry, b"new\n")
    log, moved = path.read_bytes(), (tmp_path / "moved").read_bytes()
    assert (log.count(b"old"), log.count(b"new")) == (0, 1)
    assert (moved.count(b"old"), moved.count(b"new")) == (1, 0)


async def test_a_chardev_without_a_log_cannot_reopen_it(tmp_path: Path) -> None:
    async with open_registry() as registry:
        await registry.add("x", NullOptions(record=tmp_path / "cast"))
        with pytest.raises(BackendError, match="^Chardev 'x' has no log file$"):
            await registry.reopen_logs("x")
        with pytest.raises(ChardevNotFoundError):
            await registry.reopen_logs("y")
        await registry.reopen_logs()


async def test_one_that_fails_keeps_no_other_back(tmp_path: Path) -> None:
    """It goes on in the file that it has open."""
    async with open_registry() as registry:
        for id in ("x", "y", "z"):
            await registry.add(id, NullOptions(logfile=tmp_path / id, logappend=True))
            (tmp_path / id).rename(tmp_path / f"{id}.moved")
        (tmp_path / "x").mkdir()
        error = f"^Could not create '{tmp_path}/x': Is a directory$"
        with pytest.raises(BackendError, match=error):
            await registry.reopen_logs()
        await send(registry, b"goes on")
        await eventually(lambda: (tmp_path / "x.moved").stat().st_size > 0)
    assert (tmp_path / "x.moved").read_bytes() == b"goes on"
    assert (tmp_path / "y").is_file()
    assert (tmp_path / "z").is_file()


async def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FILE_TIMEOUT", 0.05)
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=tmp_path / "log"))
        go, begun = hang_in(monkeypatch, "open")
        with pytest.raises(BackendError, match="its file takes longer than"):
            await registry.reopen_logs("x")
        assert begun.is_set()
        go.set()


async def test_it_is_opened_anew_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator has moved the file away to make room, or made a link to another disk."""
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.01)
    disk = Disk(monkeypatch)
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=tmp_path / "log"))
        disk.error = OSError(28, "full")
        await send(registry, b"kept")
        await disk.wait_calls(1)
        (tmp_path / "log").rename(tmp_path / "moved")
        await registry.reopen_logs("x")
        disk.error = None
    assert (tmp_path / "log").read_bytes() == b"kept"


async def test_a_log_that_has_ended_is_not_reopened(tmp_path: Path) -> None:
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=tmp_path / "log"))
        (tap,) = registry["x"].backend.taps
    (tmp_path / "log").unlink()
    with trio.fail_after(5):
        assert await tap.reopen()
    assert not (tmp_path / "log").exists()


async def test_a_change_to_the_same_file_notices_that_it_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "log"
    options = NullOptions(logfile=path, logappend=True)
    async with open_registry() as registry:
        await registry.add("x", options)
        path.rename(tmp_path / "moved")
        await registry.change("x", options)
        await send(registry, b"new")
    assert path.read_bytes() == b"new"


async def test_by_command(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_commands() as run:
        await run.registry.add("x", NullOptions(logfile=path, logappend=True))
        for arguments in ({"id": "x"}, {}):
            path.unlink()
            assert await run("chardev-reopen-log", **arguments) == {}
            assert path.exists()
        await run.add("y")
        assert await run.error("chardev-reopen-log", id="y") == "Chardev 'y' has no log file"


async def test_sigusr2_before_and_after_the_service_is_ready_does_no_harm(tmp_path: Path) -> None:
    """It would end the process."""
    options = ServeOptions.parse(
        [f"null,id=x,logfile={tmp_path}/log"], [], [f"unix:{tmp_path}/q,server=on"], None, print
    )
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, options)
            await trio.testing.wait_all_tasks_blocked()
            while not (tmp_path / "q").exists():  # noqa: ASYNC110
                signal.raise_signal(signal.SIGUSR2)
                await trio.sleep(0.001)
            (tmp_path / "log").unlink()
            signal.raise_signal(signal.SIGUSR2)
            while not (tmp_path / "log").exists():  # noqa: ASYNC110
                await trio.sleep(0.001)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR2)


@pytest.mark.parametrize("form", ["raw", "timestamp"])
def test_logrotates_move_then_signal_loses_nothing(tmp_path: Path, form: str) -> None:
    """Numbered lines at full rate, the file renamed again and again: each is there, once, in order."""
    path = tmp_path / "log"
    moved: list[Path] = []
    text = b"".join(b"%07d\n" % number for number in range(200_000))
    chardev = f"pipe,id=x,path={tmp_path}/fifo,logfile={path},log=in,log-format={form}"
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    serving = subprocess.Popen(
        [
            *(*PROGRAM, "serve", "--chardev", chardev, "--chardev", "null,id=n"),
            *("--device", "bridge,id=b,chardev=x,peer=n", "--qmp", f"unix:{tmp_path}/q,server=on"),
        ]
    )
    try:
        with Qmp(tmp_path / "q") as qmp:
            for start in range(0, len(text), 80_000):
                os.write(fifo, text[start : start + 40_000])
                moved.append(path.rename(tmp_path / f"log.{len(moved) + 1:03}"))
                serving.send_signal(signal.SIGUSR2)
                os.write(fifo, text[start + 40_000 : start + 80_000])
                while not path.exists():
                    assert serving.poll() is None
                    time.sleep(0.01)
            assert qmp("chardev-reopen-log") == {}
            os.write(fifo, b"end\n")
            while b"end\n" not in path.read_bytes():
                assert serving.poll() is None
                time.sleep(0.01)
    finally:
        serving.terminate()
        serving.wait(TIMEOUT)
        os.close(fifo)
    lines = b"".join(p.read_bytes() for p in (*moved, path)).splitlines()
    assert len(moved) == 20
    assert [line.split()[-1] for line in lines] == [*text.split(), b"end"]


def test_after_a_crash_a_start_keeps_the_last_log(tmp_path: Path) -> None:
    """SIGKILL, then the same command again: the evidence is in LOG.1."""
    path = tmp_path / "log"
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    command = [
        *(*PROGRAM, "serve", "--chardev", f"pipe,id=x,path={tmp_path}/fifo,logfile={path},log=in"),
        *("--chardev", "null,id=n", "--device", "bridge,id=b,chardev=x,peer=n"),
        *("--qmp", f"unix:{tmp_path}/q,server=on"),
    ]
    for text in (b"panic: x", b"up again"):
        serving = subprocess.Popen(command)
        try:
            os.write(fifo, text)
            while not path.exists() or text not in path.read_bytes():
                assert serving.poll() is None
                time.sleep(0.01)
        finally:
            serving.kill()
            serving.wait(TIMEOUT)
    os.close(fifo)
    assert path.read_bytes() == b"up again"
    assert (tmp_path / "log.1").read_bytes() == b"panic: x"
