"""``trio-chardev top``, once and live."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

from tests.cli.boards import board as board_at, say
from tests.cli.calls import Call
from tests.cli.terminals import board, terminal

ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"


def test_where_there_is_no_terminal_it_prints_one_table(call: Call) -> None:
    status, text, errors = call("top", "--interval", "0.1")
    assert (status, errors) == (0, "")
    header, row = text.splitlines()
    assert header.split() == [
        *("CONSOLE", "STATE", "CLIENTS", "FROM/s", "TO/s", "BEHIND", "OUTPUT", "ERROR")
    ]
    assert row.split() == ["n", "closed", *"-00---"]
    assert len(call("top", "--interval", "0.1", "-n", "2")[1].splitlines()) == 5


def test_what_a_board_prints_is_in_its_rate(call: Call, path: Path, tmp_path: Path) -> None:
    with board_at(call, path, tmp_path) as device:
        say(call, device, b"x" * 500)
        device.sendall(b"y")
        status, text, _ = call("top", "board-console", "--json", "--interval", "0.1", "-n", "2")
        assert status == 0
        for line in text.splitlines():
            (row,) = json.loads(line)
            assert (row["name"], row["state"], row["clients"]) == ("board", "open", 0)
            assert row["received"] in (500, 501)
            assert row["received-rate"] <= 10


def test_a_name_that_there_is_not_is_one_line(call: Call) -> None:
    assert call("top", "x", "--once") == (1, "", "trio-chardev: there is no 'x'; there is: n\n")


def test_live_it_follows_a_service_that_starts_again_and_q_leaves(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal("top", "-s", it.socket, "--interval", "0.1") as user:
        user.expect(ENTERED)
        user.expect(b"1 shown, 1 open")
        it.kill()
        user.expect(b"trying again")
        with board(tmp_path, device=it.device):
            user.expect(b"1 shown, 1 open")
            user.type(b"ss")
            user.expect(b"by clients")
            user.resize(100, 10)
            user.type(b"q")
            assert user.wait() == 0
            assert user.seen.count(LEFT) == 1
            assert not user.is_raw


def test_however_it_ends_the_terminal_is_as_before(tmp_path: Path) -> None:
    with board(tmp_path) as it, contextlib.ExitStack() as stack:
        ends = [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, -signal.SIGHUP)]
        users = [stack.enter_context(terminal("top", "-s", it.socket)) for _ in ends]
        for user, (number, status) in zip(users, ends, strict=True):
            user.expect(ENTERED)
            user.process.send_signal(number)
            assert user.wait() == status
            assert LEFT in user.seen
            assert not user.is_raw


def test_without_a_service_the_screen_is_left_alone(tmp_path: Path) -> None:
    with terminal("top", "-s", str(tmp_path / "q")) as user:
        assert user.wait() == 1
        assert ENTERED not in user.seen
        assert b"start a service" in user.seen
