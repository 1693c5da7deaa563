"""Commands wait until all of the program is imported, but for the first that a client sends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.fuzz_targets import harmless_opener_of
from tests.services import until
from trio_chardev import importing
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.options.lazy import LazyTable
from trio_chardev.qmp.commands.context import Command, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server.answers import AT_ONCE
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

REST = "query-chardev-backends"


async def ask(device: FakeDevice, name: str) -> bytes:
    """Return the answer to a command."""
    device.sent.clear()
    device.feed(b'{"execute": "%s"}' % name.encode())
    with trio.fail_after(10):
        await until(lambda: device.sent.endswith(b"\n"))
    return bytes(device.sent)


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have nothing imported until this is called."""
    may_end = trio.Event()

    async def run_in_worker(function: Callable[[], None]) -> None:
        await may_end.wait()
        function()

    monkeypatch.setattr(importing, "_is_done", False)
    monkeypatch.setattr(importing, "run_in_worker", run_in_worker)
    return may_end.set


async def test_the_first_commands_are_answered_at_once_and_others_when_all_is_imported(
    go_on: Callable[[], None],
) -> None:
    device = FakeDevice("m", eager=True)
    async with (
        open_registry_with(harmless_opener_of) as registry,
        open_background_nursery() as tasks,
    ):
        await registry.add("m", FakeOptions(device=device))
        monitor = Monitor(registry["m"], COMMANDS, Host(registry, lambda reason: None))
        await tasks.start(monitor.run)
        for name in sorted(AT_ONCE - {"quit"}, reverse=True):
            assert b'"return"' in await ask(device, name) or name != "qmp_capabilities"
        assert b'"return"' in await ask(device, "query-chardev")
        device.sent.clear()
        device.feed(b'{"execute": "%s"}' % REST.encode())
        await trio.testing.wait_all_tasks_blocked()
        assert not device.sent
        go_on()
        await until(lambda: device.sent.endswith(b"\n"))
        assert b'"return"' in device.sent


async def test_a_command_that_can_not_be_imported_is_an_error_of_its_own() -> None:
    table: LazyTable[Command] = LazyTable({"late": "trio_chardev.nosuch:ROWS:late"})
    table.add("qmp_capabilities", COMMANDS["qmp_capabilities"])
    device = FakeDevice("m", eager=True)
    async with (
        open_registry_with(harmless_opener_of) as registry,
        open_background_nursery() as tasks,
    ):
        await registry.add("m", FakeOptions(device=device))
        monitor = Monitor(registry["m"], table, Host(registry, lambda reason: None))
        await tasks.start(monitor.run)
        await ask(device, "qmp_capabilities")
        for _ in range(2):
            assert b"'late' can't be used now: No module named" in await ask(device, "late")
