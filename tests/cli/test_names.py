"""Which chardev a name on the command line means."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.cli.names import Board, boards_of, find
from trio_chardev.errors import OptionsError


def bridge(id: str, chardev: str, peer: str) -> dict[str, Any]:
    return {"driver": "bridge", "id": id, "chardev": chardev, "peer": peer}


KINDS = {
    "board": "serial",
    "users": "console",
    "tty": "pty",
    "board-console": "console",
    "far": "socket",
    "far-console": "console",
    "alone": "console",
    "null": "null",
}
DEVICES = [
    bridge("board-bridge", "board", "board-console"),
    bridge("b1", "users", "tty"),
    bridge("plain", "null", "other"),
    {"driver": "listener", "id": "l", "console": "users"},
]
BOARD = Board(name="board", device="board", console="board-console", bridge="board-bridge")
USERS = Board(name="users", device="tty", console="users", bridge="b1")
FAR = Board(name="far", device="far", console="far-console")
BOARDS = [
    BOARD,
    USERS,
    FAR,
    Board(name="alone", console="alone"),
    Board(name="null", device="null"),
]


def test_a_device_and_its_console_are_one() -> None:
    """Joined by a bridge, whichever way round; or, without one, by their names."""
    assert list(boards_of(KINDS, DEVICES)) == BOARDS


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("board", BOARD),
        ("board-console", BOARD),
        ("board-bridge", BOARD),
        ("users", USERS),
        ("tty", USERS),
        ("b1", USERS),
        ("far", FAR),
        ("far-console", FAR),
    ],
)
def test_either_side_and_the_bridge_are_names_of_it(name: str, board: Board) -> None:
    assert find(BOARDS, name) is board


def test_the_side_that_a_command_is_about() -> None:
    assert (BOARD.device_side, BOARD.console_side) == ("board", "board-console")
    alone, null = BOARDS[3:]
    assert alone.device_side == "alone"
    with pytest.raises(OptionsError, match=r"'null' has no console: add one with 'trio-chardev"):
        _ = null.console_side


def test_the_names_that_bridges_make_can_not_hide_a_chardev() -> None:
    """A bridge may be called as a chardev is."""
    boards = list(boards_of({"a": "null", "b": "null", "c": "console"}, [bridge("a", "b", "c")]))
    assert find(boards, "a").device == "a"


def test_a_name_that_nothing_has() -> None:
    with pytest.raises(OptionsError, match="^there is no 'x'; there is: board, users, far, alone"):
        find(BOARDS, "x")
    with pytest.raises(OptionsError, match="^there is no 'x'; there is: nothing$"):
        find([], "x")
    many = [Board(name=str(number)) for number in range(21)]
    with pytest.raises(OptionsError, match=r"18, 19, \.\.\.$"):
        find(many, "x")
