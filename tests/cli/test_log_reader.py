"""A log file that is read while it is written and rotated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trio_chardev.cli import log_reader
from trio_chardev.cli.log_reader import LOOKS, LogReader
from trio_chardev.errors import OptionsError


@contextmanager
def reading(path: Path) -> Iterator[LogReader]:
    reader = LogReader(str(path))
    try:
        yield reader
    finally:
        reader.close()


def rest_of(reader: LogReader) -> bytes:
    """All that comes until nothing does."""
    came = b""
    for _ in range(LOOKS + 1):
        while (data := reader.read()) or reader.go_on():
            came += data
    return came


def rotate(path: Path, keep: int = 9) -> None:
    """Rename the files as the service does."""
    for number in range(keep, 0, -1):
        old = path if number == 1 else Path(f"{path}.{number - 1}")
        if old.exists():
            old.rename(f"{path}.{number}")


@pytest.mark.parametrize(
    ("content", "count", "last"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 2, b"a\nb\n"),
        (b"a\nb\n", 9, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
        (b"x" * 30, 1, b"x" * 30),
        (b"aaaaaaa\nbbbbbb\nccccccc\n", 2, b"bbbbbb\nccccccc\n"),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 16])
def test_the_last_lines(
    tmp_path: Path,
    content: bytes,
    count: int,
    last: bytes,
    piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_reader, "PIECE", piece)
    path = tmp_path / "log"
    path.write_bytes(content)
    with reading(path) as reader:
        reader.go_to_last(count)
        assert rest_of(reader) == last


def test_each_byte_comes_once_however_often_it_is_rotated_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with reading(path) as reader:
        assert rest_of(reader) == b"one\n"
        for line in (b"two\n", b"three\n", b"four\n"):
            rotate(path)
            path.write_bytes(line)
        assert rest_of(reader) == b"two\nthree\nfour\n"
        assert not reader.may_be_missing


def test_what_comes_to_a_file_that_was_renamed_is_read_before_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    with reading(path) as reader, path.open("ab", buffering=0) as writer:
        rotate(path)
        path.write_bytes(b"new")
        for _ in range(LOOKS - 1):
            assert not reader.go_on()
        writer.write(b"old")
        assert reader.read() == b"old"
        for _ in range(LOOKS - 1):
            assert not reader.go_on()
        assert rest_of(reader) == b"new"


@pytest.mark.parametrize("again", [b"b", b""])
def test_a_file_that_is_truncated_begins_again(tmp_path: Path, again: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"aaa")
    with reading(path) as reader:
        assert reader.read() == b"aaa"
        os.truncate(path, 0)
        with path.open("ab") as writer:
            writer.write(again)
        assert rest_of(reader) == again


def test_one_that_was_rotated_away_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a")
    with reading(path) as reader:
        assert rest_of(reader) == b"a"
        for line in (b"b", b"c", b"d"):
            rotate(path, keep=1)
            path.write_bytes(line)
        assert rest_of(reader) == b"d"
        assert reader.may_be_missing


def test_while_there_is_no_new_file_the_old_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a")
    with reading(path) as reader:
        path.rename(tmp_path / "log-20261130")
        assert rest_of(reader) == b"a"
        path.write_bytes(b"b")
        assert rest_of(reader) == b"b"
        assert not reader.may_be_missing  # it has no numbers, so nothing is known of that


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (make_fifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_file_is_one_error(
    tmp_path: Path, make: Callable[[Path], object], error: str
) -> None:
    make(tmp_path / "log")
    with pytest.raises(OptionsError, match=error):
        LogReader(str(tmp_path / "log"))
