"""A service for the tests of commands, and the program within this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calls import Call
from tests.services import Qmp, running
from trio_chardev.cli import main
from trio_chardev.cli.address import default_monitor_path

NULL = {"backend": {"type": "null", "data": {}}}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a service, where others look for it; it has a null chardev "n"."""
    folder = tmp_path_factory.mktemp("service")
    with (
        running("--chardev", "null,id=n", XDG_RUNTIME_DIR=str(folder)) as service,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        assert service.wait_line() == f"QMP at {default_monitor_path()}"
        yield default_monitor_path()


@pytest.fixture
def call(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Run the program within this process: its exit status and what it says."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trio-chardev", *arguments])
        with pytest.raises(SystemExit) as raised:
            main()
        code = raised.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    yield run
    with Qmp(path) as qmp:
        for row in qmp("query-chardev"):
            if row["label"] != "n":
                qmp("chardev-remove", id=row["label"])
        qmp("chardev-change", id="n", **NULL)
