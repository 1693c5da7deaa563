"""The commands about a chardev's line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.qmp.commands.test_chardev import Commands, open_commands
from trio_chardev.devices.bridge import BridgeOptions


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
        settings = {"speed": 57600, "flow": "rtscts"}
        assert await run("chardev-set-line", id="board", settings=settings) == {}
        assert await run("chardev-get-line", id="board") == {**before, **settings}


async def test_they_survive_a_change_under_a_bridge() -> None:
    async with open_line() as (run, name):
        await run.add("user")
        run.registry.devices.add(BridgeOptions(chardev="board", peer="user"))
        await run("chardev-set-line", id="board", settings={"speed": 57600})
        await run.change("board", "null")
        assert await run("chardev-get-line", id="board") == {"supported": []}
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


async def test_a_line_without_modem_lines_says_so_and_keeps_its_speed() -> None:
    async with open_line() as (run, name):
        text = await run.error("chardev-set-line", id="board", settings={"speed": 300, "dtr": True})
        assert text == f"'{name}' has no modem lines"
        assert (await run("chardev-get-line", id="board"))["speed"] == 9600
