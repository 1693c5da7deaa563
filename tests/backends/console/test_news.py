"""What becomes of the device is told to people, in order with its bytes, and marked."""

from __future__ import annotations

import signal
import socket
import struct
from pathlib import Path

from tests.crowds import Served, read_until, served
from tests.services import TIMEOUT
from tests.terminals import until
from trio_chardev.backends.ringbuf.file import HEAD_SIZE

END_AT = 24 + 8 + 8  # in the file: behind the magic, the size and the start


def plug(it: Served, name: str) -> socket.socket:
    """Come as the device, and wait until the service knows."""
    before = len(it.events("CHARDEV_OPENED"))
    board = socket.socket(socket.AF_UNIX)
    board.settimeout(TIMEOUT)
    board.connect(str(it.folder / name))
    it.wait_event("CHARDEV_OPENED", before + 1)
    return board


def line(text: str) -> bytes:
    return f"\r\n[trio-chardev: {text}]\r\n".encode()


def test_a_device_goes_comes_is_changed_lent_and_returned(tmp_path: Path) -> None:
    with (
        served(
            tmp_path,
            "people,in-band=on",
            "programs",
            "late,replay=changed,in-band=on",
            console="history=64k,notice=on",
        ) as it,
        it.come("people") as person,
    ):
        with it.board:
            it.board.sendall(b"one\n")
            got = read_until(person, b"one\n")
        got += read_until(person, line("device gone"))
        with plug(it, "board") as board:
            got += read_until(person, line("device back"))
            board.sendall(b"two\n")
            got += read_until(person, b"two\n")
            address = {"type": "unix", "data": {"path": str(tmp_path / "other")}}
            it.change("board", "socket", addr=address, server=True, wait=False)
            got += read_until(person, line("backend changed"))
        with plug(it, "other") as board:
            got += read_until(person, line("device back"))
            board.sendall(b"three\n")
            got += read_until(person, b"three\n")
            it.qmp("chardev-lend", id="board")
            got += read_until(person, line("device lent"))
        it.qmp("chardev-return", id="board")
        got += read_until(person, line("device returned"))
        with plug(it, "other") as board:
            got += read_until(person, line("device back"))
            board.sendall(b"four\n")
            got += read_until(person, b"four\n")
            news = ("gone", "back", "changed", "back", "lent", "returned", "back")
            before = ("one\n", "", "two\n", "", "three\n", "", "")
            assert (
                got
                == b"".join(
                    text.encode() + line(f"{'backend' if what == 'changed' else 'device'} {what}")
                    for text, what in zip(before, news, strict=True)
                )
                + b"four\n"
            )
            marks = {mark["name"]: mark["cursor"] for mark in it.qmp("query-marks", id="users")}
            assert marks == {
                "started": 0,
                "changed": 8,
                "gone": 4,
                "lent": 14,
                "returned": 14,
                "back": 14,
            }
            told = {event["name"] for event in it.events("CHARDEV_MARK")}
            assert told >= {"back", "gone", "changed", "lent"}
            with it.come("late") as late:
                assert read_until(late, b"four\n") == b"three\nfour\n"
            with it.come("programs") as program:
                assert read_until(program, b"four\n") == b"one\ntwo\nthree\nfour\n"


def is_kept(path: Path, end: int, mark: bytes) -> bool:
    """Has the thread brought everything to the file? What a crash leaves is what it has."""
    head = path.read_bytes()[:HEAD_SIZE]
    return struct.unpack_from("<Q", head, END_AT) == (end,) and mark in head


def test_a_history_in_a_file_goes_on_after_kill_9(tmp_path: Path) -> None:
    console = f"history=64k,history-file={tmp_path}/history"
    lines = [b"%07d\n" % number for number in range(2000)]
    with served(tmp_path, "l", console=console) as it, it.come("l") as client:
        it.board.sendall(b"".join(lines[:1000]))
        read_until(client, lines[999])
        assert it.qmp("chardev-mark", id="users", name="here") == {"cursor": 8000}
        it.board.sendall(b"".join(lines[1000:1500]))
        read_until(client, lines[1499])
        until(lambda: is_kept(tmp_path / "history", 12000, b"here"))
        it.service.process.send_signal(signal.SIGKILL)
        it.service.process.wait()
    with served(tmp_path, "l", "since,replay=here", console=console) as it:
        marks = {mark["name"]: mark["cursor"] for mark in it.qmp("query-marks", id="users")}
        assert (marks["here"], marks["started"]) == (8000, 12000)
        with it.come("l") as client, it.come("since") as other:
            it.board.sendall(b"".join(lines[1500:2000]))
            assert read_until(client, lines[1999]) == b"".join(lines[:2000])
            assert read_until(other, lines[1999]) == b"".join(lines[1000:2000])
        excerpt = it.qmp("chardev-history", id="users", start=12000)
        assert excerpt == {
            "data": b"".join(lines[1500:2000]).decode(),
            "start": 12000,
            "next": 16000,
            "lost": 0,
        }
