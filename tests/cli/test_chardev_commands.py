"""The commands about chardevs and what joins them, with a service in a process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.boards import board
from tests.cli.calls import Call, wait_for
from tests.peers import need
from tests.services import Qmp, running
from trio_chardev.cli import asking

NO_SUCH = "trio-chardev: there is no 'x'; there is: n\n"


@pytest.fixture
def device(call: Call, path: Path, tmp_path: Path) -> Iterator[socket.socket]:
    with board(call, path, tmp_path) as sock:
        yield sock


# ---------------------------------------------------------------- list


def test_list_has_a_row_for_each_console_and_chardev(
    call: Call, device: socket.socket, tmp_path: Path
) -> None:
    status, table, errors = call("list")
    assert (status, errors) == (0, "")
    header, null, board = (line.split("  ") for line in table.splitlines())
    assert [word.strip() for word in header if word] == [
        "CONSOLE",
        "DEVICE",
        "STATE",
        "CLIENTS",
        "LAST OUTPUT",
    ]
    assert null[0] == "n"
    words = [word.strip() for word in board if word]
    assert words == ["board", f"unix:{tmp_path}/board", "open", "0", "-"]


def test_list_as_json_has_the_rest(call: Call, device: socket.socket) -> None:
    device.sendall(b"hello")
    rows: list[Any] = []

    def has_come() -> bool:
        rows[:] = json.loads(call("list", "--json")[1])
        return bool(rows[1].get("received") == 5)

    wait_for(has_come)
    null, board = rows
    assert (null["name"], null["device"], null["state"]) == ("n", "n", "closed")
    assert (board["name"], board["console"]) == ("board", "board-console")
    assert (board["bridge"], board["clients"]) == ("board-bridge", 0)
    assert board["last-output"] >= board["since"]
    assert board["backend"]["type"] == "socket"


def test_list_says_that_nobody_is_there_and_when_something_was_printed(
    call: Call, device: socket.socket
) -> None:
    device.sendall(b"hello")
    wait_for(lambda: " ago" in call("list")[1])
    device.close()
    wait_for(lambda: "waiting" in call("list")[1])


def test_list_of_devices_and_of_clients(call: Call, device: socket.socket) -> None:
    _, table, _ = call("list", "--devices")
    header, row = table.splitlines()
    assert header.split() == ["ID", "DRIVER", "CHARDEVS", "STATE", "BYTES"]
    assert row.split("  ") == ["board-bridge", "bridge", "board <-> board-console", "open", " 0 0"]
    assert json.loads(call("list", "--devices", "--json")[1])[0]["driver"] == "bridge"
    assert call("list", "--clients")[1].split()[:3] == ["CONSOLE", "CLIENT", "WHO"]
    assert json.loads(call("list", "--clients", "--json")[1]) == []


def test_a_serial_line_has_its_speed(call: Call, tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        assert call("add", "tty", f"serial,path={os.ttyname(slave)},speed=19200") == (0, "", "")
        assert f"serial {os.ttyname(slave)} 19200 8N1" in call("list")[1]
        assert json.loads(call("list", "--json")[1])[1]["line"]["speed"] == 19200
    finally:
        os.close(master)
        os.close(slave)


def test_on_a_terminal_the_table_fits(
    call: Call, monkeypatch: pytest.MonkeyPatch, device: socket.socket
) -> None:
    monkeypatch.setattr("trio_chardev.cli.table.is_terminal", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    lines = call("list")[1].splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80


# ---------------------------------------------------------------- show


def test_show_says_what_is_known_of_both_sides(
    call: Call, device: socket.socket, tmp_path: Path
) -> None:
    shown = call("show", "board")
    assert call("show", "board-console") == shown
    pairs = dict(line.split(None, 1) for line in shown[1].splitlines())
    assert pairs["device"] == f"board: unix:{tmp_path}/board"
    assert pairs["console"] == "board-console"
    assert pairs["state"].startswith("open, since ")
    assert pairs["history"] == "from cursor 0 to 0"
    assert pairs["bridge"].startswith("board-bridge: when-closed=drop, state=open")
    details = json.loads(call("show", "board", "--json")[1])
    assert details["device"]["kind"] == "socket"
    assert (details["console"]["start"], details["console"]["end"]) == (0, 0)
    assert [device["id"] for device in details["devices"]] == ["board-bridge"]


def test_show_of_a_bridge_and_of_nothing(call: Call, device: socket.socket) -> None:
    assert "\nid           board-bridge\n" in call("show", "board-bridge")[1]
    assert json.loads(call("show", "board-bridge", "--json")[1])["peer"] == "board-console"


def test_show_of_what_there_is_not(call: Call) -> None:
    assert call("show", "x") == (1, "", NO_SUCH)


def test_show_says_why_nobody_is_there(call: Call, tmp_path: Path) -> None:
    call("add", "v", f"socket,path={tmp_path}/none,reconnect-ms=60000")
    text = call("show", "v")[1]
    assert f"last error  Failed to connect to '{tmp_path}/none': No such file" in text
    assert "next try    in " in text


# ---------------------------------------------------------------- add, remove, bridge


def test_a_relative_path_is_the_callers(
    call: Call, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("add", "log", "file,path=a.log") == (0, "", "")
    assert (tmp_path / "a.log").exists()
    assert call("change", "log", "file,path=b.log") == (0, "", "")
    assert (tmp_path / "b.log").exists()


def test_add_prints_the_path_of_a_pty(call: Call, tmp_path: Path) -> None:
    status, terminal, _ = call("add", "p", f"pty,path={tmp_path}/p")
    assert (status, terminal) == (0, f"{os.readlink(tmp_path / 'p')}\n")
    call("remove", "p")
    assert json.loads(call("add", "p", "pty", "--json")[1])["pty"].startswith("/dev/pts/")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["add", "n", "null"], "trio-chardev: Chardev with id 'n' already exists"),
        (["add", "x", "null,bogus=1"], "trio-chardev: Invalid parameter 'bogus'"),
        (["add", "x", "null,id=y"], "trio-chardev: Unexpected 'id' parameter"),
        (["remove", "x"], "trio-chardev: there is no chardev and no device 'x'"),
        (["bridge", "n", "x"], "trio-chardev: Property 'bridge.peer' can't find value 'x'"),
        (["bridge", "n", "x", "peer=y"], "trio-chardev: Unexpected 'peer' parameter"),
        (["bridge", "n", "x", "bogus=1"], "trio-chardev: Property 'bridge.bogus' not found"),
        (["return", "n"], "trio-chardev: Chardev 'n' is not lent"),
        (["break", "x"], NO_SUCH.rstrip()),
        (["retry", "x"], NO_SUCH.rstrip()),
        (["lend", "x"], NO_SUCH.rstrip()),
        (["reopen-logs", "x"], "trio-chardev: Chardev 'x' not found"),
    ],
)
def test_what_is_refused_is_one_line(call: Call, arguments: list[str], text: str) -> None:
    assert call(*arguments) == (1, "", f"{text}\n")


def test_remove_takes_bridges_and_chardevs(call: Call, device: socket.socket) -> None:
    status, _, errors = call("remove", "board")
    assert (status, errors) == (
        1,
        "trio-chardev: Chardev 'board' is busy: 'board-bridge' must be removed first\n",
    )
    for id in ("board-bridge", "board", "board-console"):
        assert call("remove", id) == (0, "", "")
    assert [row["name"] for row in json.loads(call("list", "--json")[1])] == ["n"]


def test_a_bridge_has_options_and_help(call: Call, path: Path) -> None:
    call("add", "c", "console")
    assert call("bridge", "n", "c", "id=b,when-closed=hold,notice=on") == (0, "", "")
    (row,) = json.loads(call("list", "--devices", "--json")[1])
    assert (row["id"], row["when-closed"]) == ("b", "hold")
    call("remove", "b")
    assert "when-closed=" in call("bridge", "n", "c", "help")[1]


# ---------------------------------------------------------------- the device side


def test_lend_and_return_take_either_name(call: Call, device: socket.socket) -> None:
    assert call("lend", "board-console") == (0, "", "")
    assert json.loads(call("list", "--json")[1])[1]["state"] == "lent"
    assert call("return", "board") == (0, "", "")
    status, terminal, errors = call("lend", "board", "--pty")
    assert (status, terminal[:9], errors) == (0, "/dev/pts/", "")
    assert json.loads(call("return", "board-bridge", "--json")[1]) == {}


def test_break_needs_a_device_that_can(call: Call, device: socket.socket) -> None:
    text = "trio-chardev: the backend of 'board' can't send a break\n"
    assert call("break", "board") == (1, "", text)
    assert call("break", "n") == (0, "", "")


def test_break_goes_to_the_device(call: Call, path: Path, device: socket.socket) -> None:
    """On it and off it, so that it can't be left out, as a bridge does where there is none."""
    master, slave = os.openpty()
    try:
        call("change", "board", f"serial,path={os.ttyname(slave)}")
        with Qmp(path) as qmp:
            assert qmp("chardev-get-line", id="board")["break"] is False
            assert call("break", "board-console") == (0, "", "")
            assert qmp("chardev-get-line", id="board")["break"] is False
    finally:
        os.close(master)
        os.close(slave)


def test_retry_and_logs(call: Call, tmp_path: Path) -> None:
    call("add", "v", f"socket,path={tmp_path}/none,reconnect-ms=60000")
    assert call("retry", "v") == (0, "", "")
    call("add", "l", f"null,logfile={tmp_path}/l")
    (tmp_path / "l").rename(tmp_path / "old")
    assert call("reopen-logs", "l") == (0, "", "")
    assert (tmp_path / "l").exists()
    assert call("reopen-logs") == (0, "", "")


# ---------------------------------------------------------------- the service


def test_a_service_that_was_just_started_is_waited_for(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "START_TIMEOUT", 60.0)
    with running("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"):
        assert call("list", "-s", f"{tmp_path}/q", "--json") == (0, "[]\n", "")


def test_how_to_start_one(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "START_TIMEOUT", 0.0)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        status, out, errors = call("list")
    assert (status, out, errors.count("\n")) == (1, "", 1)
    assert errors.endswith("start a service with 'trio-chardev serve'\n")


def test_qemus_storage_daemon_has_some_of_it(call: Call, tmp_path: Path) -> None:
    daemon = need("qemu-storage-daemon")
    process = subprocess.Popen(
        [
            *(daemon, "--chardev", f"socket,id=m,path={tmp_path}/q,server=on,wait=off"),
            *("--chardev", "null,id=n", "--monitor", "m"),
        ]
    )
    at = ("-s", f"{tmp_path}/q")
    try:
        wait_for((tmp_path / "q").exists)
        header, *rows = call("list", *at)[1].splitlines()
        assert header.split() == ["ID", "FILENAME", "FRONTEND"]
        assert ["n", "null", "closed"] in [row.split() for row in rows]
        assert {row["label"] for row in json.loads(call("list", *at, "--json")[1])} == {"m", "n"}
        assert json.loads(call("show", *at, "n", "--json")[1])["filename"] == "null"
        assert call("add", *at, "r", "ringbuf,size=64") == (0, "", "")
        assert call("break", *at, "r") == (0, "", "")
        assert call("remove", *at, "r") == (0, "", "")
        status, _, errors = call("history", *at, "n")
        assert (status, errors.startswith("trio-chardev: ")) == (1, True)
    finally:
        process.kill()
        process.wait()
