"""What a command needs is imported by a thread, the first time that it is used."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fuzz_targets import harmless_opener_of
from tests.services import until
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.options.lazy import LazyTable
from trio_chardev.qmp.commands.context import Command, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server import answers
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.qmp.server.session import Request
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

MODULE = "later_imported"
TEXT = """
import threading
from trio_chardev.qmp.commands.context import Command, NoArguments

THREAD = threading.current_thread()
ROWS = {"late": Command(NoArguments, lambda context, arguments: {"was": "imported"})}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module of the command is, once it is written."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop(MODULE, None)


async def ask(device: FakeDevice, request: bytes) -> bytes:
    """Return the answer to *request*."""
    device.sent.clear()
    device.feed(request)
    with trio.fail_after(10):
        await until(lambda: device.sent.endswith(b"\n"))
    return bytes(device.sent)


async def test_a_command_is_imported_by_a_thread_and_if_that_fails_the_client_is_told(
    folder: Path,
) -> None:
    table: LazyTable[Command] = LazyTable({"late": f"{MODULE}:ROWS:late"})
    table.add("qmp_capabilities", COMMANDS["qmp_capabilities"])
    device = FakeDevice("m", eager=True)
    async with (
        open_registry_with(harmless_opener_of) as registry,
        open_background_nursery() as nursery,
    ):
        await registry.add("m", FakeOptions(device=device))
        monitor = Monitor(registry["m"], table, Host(registry, lambda reason: None))
        await nursery.start(monitor.run)
        await ask(device, b'{"execute": "qmp_capabilities"}')
        answer = await ask(device, b'{"execute": "late"}')
        assert b"'late' can't be used now: No module named" in answer
        (folder / f"{MODULE}.py").write_text(TEXT)
        assert b'{"was": "imported"}' in await ask(device, b'{"execute": "late"}')
        assert sys.modules[MODULE].THREAD is not threading.main_thread()


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": {"type": "late"}},
        {"driver": "late"},
        {"qom-type": "late"},
    ],
)
def test_so_are_kinds_drivers_and_objects_that_arguments_name(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table: LazyTable[Any] = LazyTable({"late": f"{MODULE}:ROW"})
    monkeypatch.setattr(answers, "KINDS", table)
    monkeypatch.setattr(answers, "NAMED", dict.fromkeys(answers.NAMED, table))
    request = Request("chardev-add", arguments)
    assert answers.to_import(COMMANDS, request) == [(table, "late")]
    assert answers.waits(COMMANDS, None, request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [{"backend": 1}, {"backend": {}}, {"backend": {"type": []}}, {"driver": None}, {"driver": "x"}],
)
def test_what_names_no_row_is_left_to_the_command(arguments: dict[str, Any]) -> None:
    assert answers.to_import(COMMANDS, Request("query-chardev", arguments)) == []
