"""On a terminal of 80 columns nothing is wider than it, whatever the ids are; in a pipe nothing is cut."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calls import Call
from tests.services import Qmp
from trio_chardev.cli import output
from trio_chardev.cli.table import width_of

LONG = "rack-17.shelf_3-board-under-test-with-a-name-that-somebody-found-good-" + "x" * 60
WIDE = "bücherregal-日本語の長い名前の装置-" + "机" * 40
COMBINED = "e\u0301" * 90
BRIDGES = [f"{LONG[:100]}-bridge", "b1", "b2"]  # ids of devices are ASCII

COMMANDS = [
    ["list"],
    ["list", "--devices"],
    ["clients"],
    ["top", "--interval", "0.1"],
    *(["show", id] for id in (LONG, WIDE, COMBINED)),
    ["show", BRIDGES[0]],
    ["version"],
]


@pytest.fixture(scope="module")
def awkward(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Boards with such names, and clients."""
    folder = tmp_path_factory.mktemp("日本-" + "long" * 5)
    with Qmp(path) as qmp:
        for number, id in enumerate((LONG, WIDE, COMBINED)):
            address = {"type": "unix", "data": {"path": f"{folder}/{number}"}}
            assert qmp.add(id, "socket", addr=address, server=True, wait=False) == {}
            assert qmp.add(f"{id}-console", "console", history=65536) == {}
            for driver, more in (
                ("bridge", {"id": BRIDGES[number], "chardev": id, "peer": f"{id}-console"}),
                ("listener", {"console": f"{id}-console", "path": f"{folder}/l{number}"}),
            ):
                assert qmp("device_add", driver=driver, **more) == {}
        yield
        for row in qmp("query-devices"):
            qmp("device_del", id=row["id"])


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 80 columns, as far as the program asks."""
    monkeypatch.setenv("COLUMNS", "80")
    for name, module in list(sys.modules.items()):
        if name.startswith("trio_chardev.cli.") and hasattr(module, "is_terminal"):
            monkeypatch.setattr(module, "is_terminal", lambda: True)


@pytest.mark.parametrize("arguments", COMMANDS, ids=range(len(COMMANDS)))
@pytest.mark.usefixtures("awkward", "at_terminal")
def test_no_line_of_a_table_is_wider_than_the_terminal(call: Call, arguments: list[str]) -> None:
    status, text, errors = call(*arguments)
    assert (status, errors) == (0, "")
    widest = max(text.splitlines(), key=width_of)
    assert width_of(widest) <= 80, widest


@pytest.mark.usefixtures("awkward")
def test_in_a_pipe_nothing_is_cut(call: Call) -> None:
    for arguments in (["list"], ["top", "--interval", "0.1"], ["show", LONG]):
        text = call(*arguments)[1]
        assert "..." not in text
        assert LONG in text
    assert WIDE in [row["name"] for row in json.loads(call("list", "--json")[1])]
    assert output.is_terminal() is False
