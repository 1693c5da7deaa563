"""What is imported when it is used can be imported before."""

from __future__ import annotations

import sys

import pytest

from trio_chardev import importing
from trio_chardev.importing import have_all, import_the_rest, modules


def test_what_tables_and_functions_import_later_is_among_them() -> None:
    found = set(modules())
    assert {
        *("trio_chardev.backends.console.console", "trio_chardev.devices.bridge"),
        *("trio_chardev.access.tls_creds", "trio_chardev.qmp.commands.stats"),
        *("trio_chardev.protocols.websocket", "trio_chardev.backends.taps.record"),
    } <= found
    import_the_rest()
    assert found <= sys.modules.keys()


def test_a_module_that_can_not_be_imported_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importing, "modules", lambda: iter(["trio_chardev.nosuch"]))
    monkeypatch.setattr(importing, "_is_done", False)
    import_the_rest()
    assert "not all of the program can be imported: No module named" in caplog.text
    assert not importing._is_done


async def test_it_is_done_once_and_without_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def refuse(function: object) -> None:
        done.append("refused")
        raise OSError

    monkeypatch.setattr(importing, "_is_done", False)
    monkeypatch.setattr(importing, "run_in_worker", refuse)
    await have_all()
    await have_all()
    assert done == ["refused"]
