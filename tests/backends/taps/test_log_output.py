"""The files of a log: old ones are kept, and names are looked up again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from trio_chardev.access.sandbox import Sandbox
from trio_chardev.backends.taps import log_output
from trio_chardev.backends.taps.log_output import LogOutput, open_log_output
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.environment import Files
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions


async def open_it(path: Path | str, sandbox: Sandbox | None = None, **given: Any) -> LogOutput:
    request = OpenRequest(id="x", on_event=lambda event: None)
    if sandbox is not None:
        request.files = Files(sandbox=sandbox)
    return await open_log_output(str(path), BackendOptions(logfile=str(path), **given), request)


def texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(output: LogOutput, data: bytes) -> None:
    output.write(bytearray(data))


LINE = b"%099d\n"  # 40 of them fit into 4096 bytes


# ---------------------------------------------------------------- a start


async def test_a_start_keeps_the_last_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"evidence")
    output = await open_it(tmp_path / "log")
    assert texts(tmp_path) == {"log": b"evidence"}
    output.empty()
    write(output, b"new")
    assert texts(tmp_path) == {"log": b"new", "log.1": b"evidence"}


async def test_with_keep_0_it_is_truncated_as_in_qemu(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"evidence")
    (await open_it(tmp_path / "log", log_keep=0)).empty()
    assert texts(tmp_path) == {"log": b""}


async def test_each_start_makes_a_generation_and_the_oldest_goes(tmp_path: Path) -> None:
    for number in range(5):
        output = await open_it(tmp_path / "log", log_keep=2)
        output.empty()
        write(output, b"%d" % number)
    assert texts(tmp_path) == {"log": b"4", "log.1": b"3", "log.2": b"2"}


async def test_an_empty_log_pushes_no_other_out(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "log.1").write_bytes(b"evidence")
    (await open_it(tmp_path / "log")).empty()
    assert texts(tmp_path) == {"log": b"", "log.1": b"evidence"}


async def test_the_new_file_has_the_permissions_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x")
    (tmp_path / "log").chmod(0o644)
    (await open_it(tmp_path / "log")).empty()
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o644


async def test_what_cannot_be_renamed_is_appended_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the only copy."""
    (tmp_path / "log").write_bytes(b"evidence")
    (tmp_path / "log.1").mkdir()
    output = await open_it(tmp_path / "log")
    output.empty()
    write(output, b" and more")
    assert (tmp_path / "log").read_bytes() == b"evidence and more"
    assert f"Could not rotate log file '{tmp_path}/log': Is a directory" in caplog.text
    assert "is appended to, as its last content can't be kept" in caplog.text


async def test_one_that_was_renamed_when_no_new_one_could_be_made_does_not_go_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without free descriptors, for one: what comes meanwhile is in FILE.1."""
    (tmp_path / "log").write_bytes(b"evidence")
    output = await open_it(tmp_path / "log")
    open_again = output._open_again

    def fail() -> int:
        raise OSError(errno.EMFILE, "none left")

    monkeypatch.setattr(output, "_open_again", fail)
    output.empty()
    write(output, b" and more")
    assert texts(tmp_path) == {"log.1": b"evidence and more"}
    assert "Could not rotate log file" in caplog.text
    monkeypatch.setattr(output, "_open_again", open_again)
    write(output, b"new")
    assert texts(tmp_path) == {"log": b"new", "log.1": b"evidence and more"}


async def test_a_link_stays_and_the_file_behind_it_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "log").write_bytes(b"evidence")
    (tmp_path / "link").symlink_to(folder / "log")
    output = await open_it(tmp_path / "link")
    output.empty()
    write(output, b"new")
    assert (tmp_path / "link").is_symlink()
    assert texts(folder) == {"log": b"new", "log.1": b"evidence"}


async def test_a_file_that_was_moved_meanwhile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"evidence")
    output = await open_it(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "moved")
    output.empty()
    write(output, b"new")
    assert texts(tmp_path) == {"log": b"new", "moved": b"evidence"}


@pytest.mark.parametrize(
    ("given", "log"),
    [
        ({"logtimestamp": True}, b"cut\nnext"),
        ({"log_format": "json"}, b"cut\nnext"),
        ({}, b"cutnext"),
    ],
)
async def test_a_line_that_a_crash_has_cut_is_not_glued_to_the_next(
    tmp_path: Path, given: dict[str, Any], log: bytes
) -> None:
    (tmp_path / "log").write_bytes(b"cut")
    output = await open_it(tmp_path / "log", logappend=True, **given)
    write(output, b"next")
    assert (tmp_path / "log").read_bytes() == log
    output = await open_it(tmp_path / "new", logappend=True, **given)
    write(output, b"next")
    assert (tmp_path / "new").read_bytes() == b"next"


async def test_what_may_not_be_read_is_appended_to_all_the_same(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    output = await open_it(tmp_path / "fifo", logappend=True, logtimestamp=True)
    write(output, b"next")
    assert os.read(reader, 100) == b"next"
    os.close(reader)


# ---------------------------------------------------------------- size


async def test_files_have_at_most_their_size_and_whole_lines(tmp_path: Path) -> None:
    output = await open_it(tmp_path / "log", log_rotate=4096, log_keep=3)
    for number in range(200):
        write(output, LINE % number)
    files = texts(tmp_path)
    assert sorted(files) == ["log", "log.1", "log.2", "log.3"]
    assert [len(files[name]) for name in ("log.1", "log.2", "log.3")] == [4000] * 3
    lines = b"".join(files[name] for name in ("log.3", "log.2", "log.1", "log"))
    assert lines == b"".join(LINE % number for number in range(40, 200))


async def test_a_piece_that_is_larger_than_a_file_is_cut_at_lines(tmp_path: Path) -> None:
    output = await open_it(tmp_path / "log", log_rotate=4096, log_keep=9)
    data = b"".join(LINE % number for number in range(200))
    write(output, data)
    files = texts(tmp_path)
    assert [len(files[f"log.{number}"]) for number in (4, 3, 2, 1)] == [4000] * 4
    assert b"".join(files[name] for name in sorted(files, reverse=True)) == data


async def test_bytes_without_a_newline_are_rotated_as_well(tmp_path: Path) -> None:
    output = await open_it(tmp_path / "log", log_rotate=4096, log_keep=9)
    for _ in range(100):
        write(output, bytes(100))
    assert sorted(map(len, texts(tmp_path).values())) == [10_000 - 2 * 4096, 4096, 4096]


async def test_what_cannot_be_rotated_goes_on_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = await open_it(tmp_path / "log", log_rotate=4096, log_keep=1)
    (tmp_path / "log.1").mkdir()
    for number in range(200):
        write(output, LINE % number)
    assert (tmp_path / "log").stat().st_size == 20_000
    assert caplog.text.count("Could not rotate") == 1
    (tmp_path / "log.1").rmdir()
    monkeypatch.setattr(output, "_retry_at", 0.0)
    write(output, b"next\n")
    assert (tmp_path / "log").read_bytes() == b"next\n"
    assert (tmp_path / "log.1").stat().st_size == 20_000


async def test_an_error_loses_nothing_that_it_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written stays in the buffer, for another try."""
    output = await open_it(tmp_path / "log", log_rotate=4096, log_keep=9)
    data = bytearray(b"".join(LINE % number for number in range(100)))
    whole = bytes(data)
    real, calls = os.write, 0

    def fail_at_second(fd: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:50])

    monkeypatch.setattr(os, "write", fail_at_second)
    with pytest.raises(OSError, match="full"):
        output.write(data)
    assert len(data) == len(whole) - 50
    output.write(data)
    files = texts(tmp_path)
    assert b"".join(files[name] for name in sorted(files, reverse=True)) == whole


# ---------------------------------------------------------------- age


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(log_output, "time", Time)
    return now


async def test_a_file_that_is_old_ends_with_its_line(tmp_path: Path, clock: list[float]) -> None:
    output = await open_it(tmp_path / "log", log_rotate_age=60)
    write(output, b"one\ntwo")
    clock[0] += 59.9
    write(output, b" words\nthr")
    clock[0] += 0.1
    write(output, b"ee\nfour\n")
    assert texts(tmp_path) == {"log": b"four\n", "log.1": b"one\ntwo words\nthree\n"}
    clock[0] += 61
    write(output, b"five\n")
    assert (tmp_path / "log").read_bytes() == b"five\n"


async def test_an_empty_file_does_not_grow_old(tmp_path: Path, clock: list[float]) -> None:
    output = await open_it(tmp_path / "log", log_rotate_age=60)
    clock[0] += 1000
    write(output, b"one\n")
    assert texts(tmp_path) == {"log": b"one\n"}


# ---------------------------------------------------------------- opened anew


async def test_it_is_opened_anew_on_demand(tmp_path: Path) -> None:
    output = await open_it(tmp_path / "log")
    write(output, b"old")
    (tmp_path / "log").rename(tmp_path / "moved")
    write(output, b" words")
    output.reopen()
    write(output, b"new")
    assert texts(tmp_path) == {"log": b"new", "moved": b"old words"}


async def test_what_cannot_be_opened_anew_stays_open(tmp_path: Path) -> None:
    output = await open_it(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "moved")
    (tmp_path / "log").mkdir()
    with pytest.raises(BackendError, match="Is a directory"):
        output.reopen()
    write(output, b"x")
    assert (tmp_path / "moved").read_bytes() == b"x"


async def test_a_rotated_log_notices_that_its_file_was_moved(tmp_path: Path) -> None:
    """Else it would write to a file that another program packs."""
    output = await open_it(tmp_path / "log", log_rotate=4096)
    write(output, b"old\n")
    (tmp_path / "log").rename(tmp_path / "moved")
    write(output, b"new\n")
    assert texts(tmp_path) == {"log": b"new\n", "moved": b"old\n"}


# ---------------------------------------------------------------- what can be kept


async def test_in_a_sandbox_no_other_file_is_touched(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "log").write_bytes(b"evidence")
    (await open_it(inside / "log", Sandbox([str(inside)]))).empty()
    assert texts(inside) == {"log": b"", "log.1": b"evidence"}


async def test_a_sandbox_that_is_the_file_has_no_room_for_an_old_one(tmp_path: Path) -> None:
    """Asked for, that is an error; else the file is appended to."""
    (tmp_path / "log").write_bytes(b"evidence")
    sandbox = Sandbox([str(tmp_path / "log")])
    with pytest.raises(BackendError, match=r"log\.1' is outside of the sandbox"):
        await open_it(tmp_path / "log", sandbox, log_rotate=4096)
    output = await open_it(tmp_path / "log", sandbox)
    output.empty()
    write(output, b" more")
    assert texts(tmp_path) == {"log": b"evidence more"}


async def test_a_link_cannot_lead_the_rename_out_of_the_sandbox(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "log").write_bytes(b"evidence")
    (outside / "log.1").write_bytes(b"precious")
    output = await open_it(inside / "log", Sandbox([str(inside)]))
    inside.rename(tmp_path / "gone")
    (outside / "log").hardlink_to(tmp_path / "gone" / "log")
    inside.symlink_to(outside)
    output.empty()
    assert (outside / "log.1").read_bytes() == b"precious"
    assert (outside / "log").read_bytes() == b"evidence"


@pytest.mark.parametrize("given", [{"log_rotate": 4096}, {"log_rotate_age": 1}, {"log_keep": 1}])
async def test_what_is_no_file_cannot_be_kept(given: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="'/dev/null' is not "):
        await open_it("/dev/null", **given)


async def test_a_passed_descriptor_is_truncated_as_in_qemu(tmp_path: Path) -> None:
    """Its name is not known, so whoever passed it has to keep it."""
    (tmp_path / "log").write_bytes(b"evidence")
    request = OpenRequest(id="x", on_event=lambda event: None)
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    request.files = Files(open_path=lambda *_, mode=0: fd)
    options = BackendOptions(logfile="/dev/fdset/1")
    (await open_log_output("/dev/fdset/1", options, request)).empty()
    assert texts(tmp_path) == {"log": b""}
