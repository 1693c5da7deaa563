"""The commands about a chardev's line."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.devices.fakes import open_fakes
from tests.qmp.commands.test_chardev import Commands, open_commands
from tests.services import until
from tests.users import PATIENCE
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.table import Kind
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.events import UNKNOWN_SIZE, Event, LineSettings, ModemLines, WindowSize
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.service import open_service
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions


@asynccontextmanager
async def open_line() -> AsyncIterator[tuple[Commands, str]]:
    """Open a service whose chardev "board" is a serial line; give the line's name, too."""
    master, slave = os.openpty()
    try:
        async with open_commands() as run:
            await run.add("board", "serial", device=os.ttyname(slave), speed=9600)
            yield run, os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


async def test_settings_are_read_and_set_one_by_one() -> None:
    async with open_line() as (run, _):
        before = await run("chardev-get-line", id="board")
        assert before.items() >= {"speed": 9600, "data-bits": 8, "parity": "N"}.items()
        assert before.items() >= {"stop-bits": 1, "flow": "none"}.items()
        assert "settings" in before["supported"]
        assert "modem" not in before["supported"], "a PTY has none"
        assert before["missing"] == ["modem"]
        settings = {"speed": 57600, "flow": "rtscts"}
        assert await run("chardev-set-line", id="board", settings=settings) == {}
        assert await run("chardev-get-line", id="board") == {**before, **settings}


async def test_they_survive_a_change_under_a_bridge() -> None:
    async with open_line() as (run, name):
        await run.add("user")
        run.registry.devices.add(BridgeOptions(chardev="board", peer="user"))
        await run("chardev-set-line", id="board", settings={"speed": 57600})
        await run.change("board", "null")
        missing = ["break", "modem", "purge", "settings"]
        assert await run("chardev-get-line", id="board") == {"supported": [], "missing": missing}
        await run.change("board", "serial", device=name, speed=9600)
        assert (await run("chardev-get-line", id="board"))["speed"] == 57600


@pytest.mark.parametrize(
    ("id", "settings", "text"),
    [
        ("x", {}, "Chardev 'x' not found"),
        ("board", {"speed": 0}, "'speed' must be from 1 to 4294967295 bits per second"),
        ("board", {"flow": "x"}, "Parameter 'flow' does not accept value 'x'"),
        ("board", {"stop-bits": 3}, "Parameter 'stop-bits' does not accept value '3'"),
        ("board", {"cts": True}, "Parameter 'settings.cts' is unexpected"),
        ("ring", {"speed": 300}, "'ringbuf' has no line settings"),
    ],
)
async def test_bad_values_get_one_clear_line(id: str, settings: dict[str, Any], text: str) -> None:
    async with open_line() as (run, _):
        await run.add("ring")
        assert await run.error("chardev-set-line", id=id, settings=settings) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "either 'steps' or 'name' is needed"),
        ({"steps": [{}], "name": "esp32-boot"}, "either 'steps' or 'name' is needed"),
        ({"steps": []}, "'steps' must have from 1 to 1000 elements"),
        ({"steps": [{"pause": 1}]}, "Parameter 'steps[0].pause' is unexpected"),
        ({"name": "esp8"}, "Parameter 'name' does not accept value 'esp8'"),
    ],
)
async def test_a_bad_sequence_gets_one_clear_line(arguments: dict[str, Any], text: str) -> None:
    async with open_line() as (run, _):
        assert await run.error("chardev-line-sequence", id="board", **arguments) == text


async def test_a_sequence_is_done_by_steps_or_by_name(autojump_clock: MockClock) -> None:
    board = FakeDevice("board", has_line=True, line=LineSettings())
    async with open_fakes(board) as registry:
        run = Commands(Context(Host(registry, lambda reason: None)))
        steps = [{"dtr": True, "pause-us": 20}, {"speed": 300, "break": True}, {"break": False}]
        assert await run("chardev-line-sequence", id="board", steps=steps) == {}
        assert await run("chardev-line-sequence", id="board", name="esp32-reset") == {}
    assert board.line_calls == [
        *(ModemLines.DTR, LineSettings(300), True, False),
        *(ModemLines.RTS, ModemLines(0)),
    ]


async def test_a_sequence_whose_client_leaves_is_undone(tmp_path: Path) -> None:
    board = FakeDevice("board", has_line=True, line=LineSettings(), modem=ModemLines(0))
    path = UnixAddress(path=str(tmp_path / "qmp.sock"))
    async with open_service(Kind(FakeOptions, lambda o, r: o.device.open(r))) as service:
        await service.registry.add("board", FakeOptions(device=board))
        await service.listen_qmp(SocketOptions(addr=path, server=True, wait=False))
        stream = await trio.open_unix_socket(str(tmp_path / "qmp.sock"))
        arguments = {"id": "board", "steps": [{"dtr": True, "pause-us": 10**7}]}
        for name, its in (("qmp_capabilities", {}), ("chardev-line-sequence", arguments)):
            command = {"execute": name, "arguments": its}
            await stream.send_all(json.dumps(command).encode())
        with trio.fail_after(PATIENCE):
            await until(lambda: board.line_calls == [ModemLines.DTR])
            await stream.aclose()
            await until(lambda: board.line_calls == [ModemLines.DTR, ModemLines(0)])


async def test_a_line_without_modem_lines_says_so_and_keeps_its_speed() -> None:
    async with open_line() as (run, name):
        text = await run.error("chardev-set-line", id="board", settings={"speed": 300, "dtr": True})
        assert text == f"'{name}' has no modem lines"
        assert (await run("chardev-get-line", id="board"))["speed"] == 9600


# ---------------------------------------------------------------- the window


async def test_a_window_size_reaches_the_user_as_if_the_backend_had_told_it() -> None:
    devices, user = [FakeDevice("here"), FakeDevice("away", connected=False)], FakeFrontend()
    async with open_fakes(*devices) as registry:
        run = Commands(Context(Host(registry, lambda reason: None)))
        for device in devices:
            frontend = registry[device.name].attach(on_event=user.on_event)
            for cols in (132, 132, 0, 80):
                size = {"id": device.name, "cols": cols, "rows": 0}
                assert await run("chardev-window-size-changed", **size) == {}
            assert frontend.window_size == WindowSize(80, 0)
    assert user.events == [Event.OPENED, WindowSize(132, 0), UNKNOWN_SIZE, WindowSize(80, 0)]


async def test_a_window_size_is_silently_nothing_where_nobody_can_use_it() -> None:
    async with open_commands() as run:
        await run.add("a", "null")
        assert await run("chardev-window-size-changed", id="a", cols=65535, rows=0) == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"id": "x", "cols": 80, "rows": 24}, "Chardev 'x' not found"),
        ({"id": "n", "cols": 80}, "Parameter 'rows' is missing"),
        (
            {"id": "n", "cols": "80", "rows": 24},
            "Parameter 'cols' expects uint64",
        ),
        ({"id": "n", "cols": 80, "rows": 65536}, "Parameter 'rows' expects uint16_t"),
        ({"id": "n", "cols": -1, "rows": 24}, "Parameter 'cols' expects uint16_t"),
    ],
)
async def test_a_window_size_has_16_bits(arguments: dict[str, Any], text: str) -> None:
    async with open_commands() as run:
        await run.add("n", "null")
        assert await run.error("chardev-window-size-changed", **arguments) == text
