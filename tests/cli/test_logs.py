"""``trio-chardev logs``."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.cli.boards import board, say
from tests.cli.calls import Call, wait_for
from tests.peers import free_port
from tests.services import PROGRAM, TIMEOUT, running


def test_it_prints_the_file_where_it_is(call: Call, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "board.log"
    with board(call, path, tmp_path, f",logfile={log}") as device:
        say(call, device, b"one\r\ntwo\r\nthree")
        wait_for(lambda: log.read_bytes().endswith(b"three"))
        for name in ("board", "board-console", "board-bridge"):
            assert call("logs", name) == (0, "one\r\ntwo\r\nthree", ""), name
        assert call("logs", "board", "--lines", "2") == (0, "two\r\nthree", "")


def test_a_relative_path_of_the_service_is_found(call: Call, path: Path) -> None:
    relative = os.path.relpath(path.parent / "n.log")
    assert (
        call("qmp", "chardev-add", "id=l", "backend.type=null", f"backend.data.logfile={relative}")[
            0
        ]
        == 0
    )
    assert call("logs", "l") == (0, "", "")


def test_a_file_that_is_rotated_is_followed(call: Call, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "board.log"
    with board(call, path, tmp_path, f",logfile={log}") as device:
        say(call, device, b"before\n")
        wait_for(lambda: log.read_bytes() == b"before\n")
        with subprocess.Popen(
            [*PROGRAM, "logs", "board", "-f", "-s", str(path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"before\n"
            log.rename(tmp_path / "board.log.1")
            assert call("reopen-logs")[0] == 0
            say(call, device, b"after\n")
            assert process.stdout.readline() == b"after\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 130


def test_where_there_is_no_log_it_says_what_there_is(
    call: Call, path: Path, tmp_path: Path
) -> None:
    assert call("logs", "n") == (
        *(1, "", "trio-chardev: 'n' has no log file: it is made with logfile=FILE\n"),
    )
    with board(call, path, tmp_path):
        status, _, errors = call("logs", "board")
        assert status == 1
        assert errors.endswith("; 'history board' shows what its console keeps\n")
    assert call("logs", "x")[2] == "trio-chardev: there is no 'x'; there is: n, board\n"


def test_a_file_that_is_gone_is_one_line(call: Call, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "board.log"
    with board(call, path, tmp_path, f",logfile={log}"):
        log.unlink()
        assert call("logs", "board") == (
            *(1, "", f"trio-chardev: can't open '{log}': No such file or directory\n"),
        )


def test_one_of_another_machine_is_not_guessed_at(call: Call) -> None:
    port = free_port()
    listen = f"tcp:127.0.0.1:{port},server=on,wait=off,insecure=on"
    with running("--chardev", "null,id=n", "--qmp", listen):
        address = f"127.0.0.1:{port}"
        wait_for(lambda: call("list", "-s", address)[0] == 0)
        assert call("logs", "n", "-s", address) == (
            1,
            "",
            "trio-chardev: the log file is where the service is: run 'logs' there; "
            "'history n' works from here\n",
        )
