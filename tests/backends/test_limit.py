"""The permissions of files that are created, and how large they may become."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from tests.disk import eventually
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.cli.options import GRAMMAR
from trio_chardev.errors import ChardevError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry


async def send(registry: Registry, data: bytes) -> None:
    async with registry["x"].attach() as frontend:
        await frontend.send_all(data)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


# ---------------------------------------------------------------- permissions


@pytest.mark.parametrize(
    ("given", "umask", "mode"),
    [(None, 0o000, 0o600), ("0640", 0o022, 0o640), ("664", 0o022, 0o644), ("0640", 0o077, 0o600)],
)
async def test_what_is_made_is_for_nobody_else_unless_it_is_said(
    tmp_path: Path, given: str | None, umask: int, mode: int
) -> None:
    options = RingbufOptions(
        path=str(tmp_path / "ring"),
        mode=given,
        logfile=str(tmp_path / "log"),
        log_mode=given,
        record=str(tmp_path / "cast"),
        record_mode=given,
    )
    before = os.umask(umask)
    try:
        async with open_registry() as registry:
            await registry.add("x", options)
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"ring": mode, "log": mode, "cast": mode}


async def test_what_is_there_already_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "log").chmod(0o644)
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(tmp_path / "log"), log_mode="0600"))
    assert modes(tmp_path) == {"log": 0o644}


BAD: list[tuple[BackendOptions, str]] = [
    (NullOptions(logfile="/l", log_mode="rw"), "'log-mode' must be permissions in octal, such as 0640"),
    (NullOptions(logfile="/l", log_mode="4755"), "'log-mode' must be permissions in octal, such as 0640"),
    (NullOptions(record="/l", record_mode="088"), "'record-mode' must be permissions in octal, such as 0640"),
    (RingbufOptions(path="/l", mode=""), "'mode' must be permissions in octal, such as 0640"),
    (NullOptions(log_mode="600"), "log-mode needs logfile=FILE"),
    (NullOptions(log_max=5), "log-max needs logfile=FILE"),
    (NullOptions(record_mode="600"), "record-mode needs record=FILE"),
    (NullOptions(record_max=5), "record-max needs record=FILE"),
    (RingbufOptions(mode="600"), "mode needs path=FILE"),
    (NullOptions(logfile="/l", log_max=0), "'log-max' must be at least 1"),
    (NullOptions(record="/l", record_max=-1), "'record-max' must be at least 1"),
    (FileOptions(out="/l", max_size=0), "'max-size' must be at least 1"),
    (FileOptions(out="/dev/null", max_size=9), "'/dev/null' is not a regular file: its size can't be limited"),
    (NullOptions(logfile="/dev/null", log_max=9), "'/dev/null' is not a regular file: its size can't be limited"),
    (NullOptions(record="/dev/null", record_max=9), "'/dev/null' is not a regular file: its size can't be limited"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text"), BAD, ids=range(len(BAD)))
async def test_what_makes_no_sense_is_refused(options: BackendOptions, text: str) -> None:
    async with open_registry() as registry:
        with pytest.raises(ChardevError) as raised:
            await registry.add("x", options)
    assert str(raised.value) == f"Failed to add chardev 'x': {text}"


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kind", ["file", "log"])
async def test_a_file_grows_to_its_size_and_what_is_left_out_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, append: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    if kind == "log":
        options: Any = NullOptions(logfile=str(path), logappend=append, log_max=10)
        what = f"log file '{path}'"
    else:
        options = FileOptions(out=str(path), append=append, max_size=10)
        what = f"file '{path}'"
    async with open_registry() as registry:
        await registry.add("x", options)
        await send(registry, b"0123")
        await send(registry, b"4567890123")
        await eventually(lambda: "reached" in caplog.text)
        await send(registry, b"x" * 100_000)
    had = b"old" if append else b""
    assert path.read_bytes() == (had + b"01234567890123")[:10]
    left = len(had) + 14 + 100_000 - 10
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{what} has reached its size of 10 bytes: what comes is left out",
        f"{what} lacks {left} bytes",
    ]


async def test_a_log_that_is_emptied_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As logrotate's copytruncate does it."""
    path = tmp_path / "f"
    async with open_registry() as registry:
        await registry.add("x", NullOptions(logfile=str(path), logappend=True, log_max=10))
        await send(registry, b"0123456789ABC")
        await eventually(lambda: "reached" in caplog.text)
        os.truncate(path, 0)
        await send(registry, b"new")
    assert path.read_bytes() == b"new"
    assert f"log file '{path}' has room again; it lacks 3 bytes by now" in caplog.text


@pytest.mark.parametrize("form", ["asciicast-v2", "asciicast-v3"])
async def test_a_recording_ends_with_a_whole_line_and_counts_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: Any
) -> None:
    path = tmp_path / "cast"
    options = NullOptions(record=str(path), record_format=form, record_max=300)
    async with open_registry() as registry:
        await registry.add("x", options)
        for _ in range(20):
            await send(registry, b"0123456789")
            await trio.testing.wait_all_tasks_blocked()
        await eventually(lambda: "reached" in caplog.text)
    text = path.read_text()
    assert 200 < len(text) <= 300
    assert text.endswith("\n")
    assert all(json.loads(line) for line in text.splitlines())
    there = text.count("0123456789")
    assert 0 < there < 20
    (told,) = (r.message for r in caplog.records if "lacks" in r.message)
    begin = f"recording '{path}' lacks "
    assert told.startswith(begin)
    assert int(told.removeprefix(begin).split()[0]) >= 20 - there


async def test_a_change_to_the_same_log_keeps_to_the_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    options = NullOptions(logfile=str(path), logappend=True, log_max=10)
    async with open_registry() as registry:
        await registry.add("x", options)
        for _ in range(5):
            await send(registry, b"0123")
            await registry.change("x", options)
    assert path.read_bytes() == b"0123012301"


def test_sizes_are_spelt_as_a_rings() -> None:
    text = "file,id=x,path=/f,max-size=2k,logfile=/l,log-max=1M,record=/r,record-max=1G"
    data = GRAMMAR.parse(text).backend["data"]
    assert data["max-size"] == 2048
    assert data["log-max"] == 1 << 20
    assert data["record-max"] == 1 << 30
