"""A log is what was said, with gaps only where it says so: random disks, with faults by chance."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.steps import SEEDS
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.taps import background_file as background, log_file, log_output
from trio_chardev.backends.taps.formatted_log import FormattedLog
from trio_chardev.errors import BackendError
from trio_chardev.registry import open_registry

STEPS = 100
SAYS = {
    "raw": re.compile(rb"\n\S+ \[trio-chardev: LOST (\d+) bytes\]\n|([^\n]+)"),
    "timestamp": re.compile(rb"\n?\S+Z \[trio-chardev: LOST (\d+) bytes\]\n|\S+Z ([^\n]+)"),
}


class Disk:
    """write(2), open(2) and rename(2) that fail, or take a part, by chance; some are slow."""

    def __init__(
        self, chance: random.Random, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.chance = chance
        self.badness = 0.0
        self._folder = os.fsencode(folder)
        self._open, self._rename, self._write = os.open, os.rename, os.write
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "rename", self.rename)

    def fail(self, *errors: int) -> None:
        if self.chance.random() < self.badness:
            raise OSError(self.chance.choice(errors), "by chance")

    def write(self, fd: int, data: Any) -> int:
        if not os.readlink(os.fsencode(f"/proc/self/fd/{fd}")).startswith(self._folder):
            return self._write(fd, data)
        time.sleep(self.chance.random() * 0.002)
        self.fail(errno.ENOSPC, errno.EIO, errno.EDQUOT)
        return self._write(fd, data[: self.chance.randrange(1, 50_000)])

    def open(self, path: Any, *arguments: Any, **more: Any) -> int:
        if "log" in str(path):
            self.fail(errno.EMFILE, errno.ENOSPC, errno.EACCES)
        return self._open(path, *arguments, **more)

    def rename(self, *arguments: Any, **more: Any) -> None:
        self.fail(errno.EACCES, errno.ENOSPC)
        self._rename(*arguments, **more)


def said(form: str, log: bytes) -> Iterator[bytes | int]:
    """What was said, in order; a number is so many bytes that are missing."""
    if form != "json":
        for lost, text in SAYS[form].findall(log):
            yield int(lost) if lost else text
        return
    for line in log.splitlines():
        record = json.loads(line)
        lost = re.fullmatch(r"LOST (\d+) bytes", record.get("note", ""))
        yield int(lost[1]) if lost else record["text"].encode()


def in_order(folder: Path) -> bytes:
    """The log, from the oldest of its files to the newest."""
    files = sorted(folder.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    return b"".join(path.read_bytes() for path in files)


def check(form: str, log: bytes, source: bytes) -> int:
    """Is *log* the *source* with gaps where it says so? Returns how much is missing."""
    at = missing = 0
    for one in said(form, log):
        if isinstance(one, int):
            at += one
            missing += one
        else:
            assert source[at : at + len(one)] == one
            at += len(one)
    assert at == len(source)
    return missing


@pytest.mark.parametrize("form", ["raw", "timestamp", "json"])
@pytest.mark.parametrize("seed", range(int(SEEDS or 5)))
async def test_all_that_was_said_is_there_or_is_told_to_be_missing(
    form: Any, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.001)
    monkeypatch.setattr(log_output, "RETRY_INTERVAL", 0.002)
    monkeypatch.setattr(background, "MAX_PENDING", 8192)
    monkeypatch.setattr(log_file, "ROOM_FOR_NOTE", 32768)
    path = tmp_path / "log"
    words = iter(range(1_000_000))
    source = bytearray()
    options = NullOptions(
        logfile=path,
        log="in",
        log_format=form,
        log_rotate=65536,
        log_keep=999,
        log_strip=seed % 2 == 1,
    )
    async with open_registry() as registry:
        await registry.add("x", options)
        (tap,) = registry["x"].backend.taps
        assert isinstance(tap, FormattedLog)
        disk = Disk(chance, monkeypatch, tmp_path)
        for _ in range(STEPS):
            disk.badness = chance.choice((0.0, 0.0, 0.3, 0.95))
            for _ in range(chance.randrange(1, 20)):
                piece = b"".join(b"%06d " % next(words) for _ in range(chance.randrange(1, 300)))
                tap.received(piece)
                source += piece
            if chance.random() < 0.1:
                with suppress(BackendError):
                    await registry.reopen_logs()
            await trio.sleep(chance.random() * 0.004)
        disk.badness = 0.0
        tap._flush(float("inf"))
        with trio.fail_after(30):
            await tap.background.wait_idle()
    missing = check(form, in_order(tmp_path), bytes(source))
    assert missing == tap.background.dropped
