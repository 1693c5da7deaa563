"""What is imported when it is used can be imported before."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from trio_chardev import importing
from trio_chardev.importing import have_all, import_the_rest, modules

EXTRAS = [
    "prometheus_client",
    "yaml",
]  # their modules are None then, so that they can't be imported


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
    assert "'trio_chardev.nosuch' can't be imported: No module named" in caplog.text
    assert importing.is_done(), "it would be told, and tried, with each command"


def test_what_comes_after_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def note(name: str) -> None:
        tried.append(name)
        raise ImportError

    monkeypatch.setattr(importing, "modules", lambda: iter(["one", "two"]))
    monkeypatch.setattr(importing, "import_module", note)
    monkeypatch.setattr(importing, "_is_done", False)
    import_the_rest()
    assert tried == ["one", "two"]


def test_without_descriptors_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(importing, "import_module", refuse)
        patch.setattr(importing, "_is_done", False)
        import_the_rest()
        assert not importing.is_done()
    assert "not all of the program can be imported yet: Too many open files" in caplog.text


def test_threads_that_want_it_at_the_same_time_do_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    may_end = threading.Event()

    def names() -> Iterator[str]:
        done.append("begun")
        may_end.wait(10)
        return iter(())

    monkeypatch.setattr(importing, "modules", names)
    monkeypatch.setattr(importing, "_is_done", False)
    threads = [threading.Thread(target=import_the_rest) for _ in range(3)]
    for thread in threads:
        thread.start()
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert done == ["begun"]
    assert importing.is_done()


def test_it_needs_nothing_but_what_is_installed_in_any_case() -> None:
    """An extra, such as prometheus-client, may be missing, and takes its time if it is there."""
    text = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))\n"
        "from trio_chardev.importing import import_the_rest, is_done\n"
        "import_the_rest(); print(is_done())"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


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
