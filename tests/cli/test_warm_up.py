"""Once a service has run for a moment, it has all of its own modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest
import trio

from trio_chardev.cli import warm_up
from trio_chardev.cli.warm_up import DELAY, import_the_rest, modules


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_tables_and_functions_import_later_is_among_them() -> None:
    found = set(modules())
    assert {
        *("trio_chardev.backends.console.console", "trio_chardev.devices.bridge"),
        *("trio_chardev.access.tls_creds", "trio_chardev.qmp.commands.stats"),
        *("trio_chardev.protocols.websocket", "trio_chardev.backends.taps.record"),
    } <= found
    import_the_rest()
    assert found <= sys.modules.keys()


async def test_it_is_done_once_the_service_has_run_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    begun: list[float] = []

    async def run_in_worker(function: object) -> None:
        assert function is import_the_rest
        begun.append(trio.current_time())

    monkeypatch.setattr(warm_up, "run_in_worker", run_in_worker)
    start = trio.current_time()
    await warm_up.warm_up()
    assert begun == [start + DELAY]


def test_a_module_that_can_not_be_imported_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warm_up, "modules", lambda: iter(["trio_chardev.nosuch"]))
    import_the_rest()
    assert "'trio_chardev.nosuch' can't be imported: No module named" in caplog.text
