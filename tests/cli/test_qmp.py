"""``trio-chardev qmp``, ``list``, ``change`` and ``events``, at a service of its own process."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import PROGRAM, Qmp, running
from trio_chardev.backends.addresses import InetAddress, UnixAddress
from trio_chardev.cli import main
from trio_chardev.cli.address import default_monitor_path, parse_address
from trio_chardev.errors import OptionsError

RINGBUF = '{"id": "r", "backend": {"type": "ringbuf", "data": {"size": 64}}}'


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
) -> Iterator[object]:
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
        qmp("chardev-change", id="n", backend={"type": "null", "data": {}})


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/run/qmp.sock", UnixAddress("/run/qmp.sock")),
        ("qmp.sock", UnixAddress("qmp.sock")),
        ("./a:1", UnixAddress("./a:1")),
        ("unix:a:1", UnixAddress("a:1")),
        ("localhost:4444", InetAddress("localhost", "4444")),
        ("tcp:localhost:4444", InetAddress("localhost", "4444")),
        (":4444", InetAddress("", "4444")),
        ("[::1]:4444", InetAddress("::1", "4444")),
        ("tcp:[::1]:4444", InetAddress("::1", "4444")),
        ("::1", UnixAddress("::1")),
        ("", UnixAddress("")),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "a:b:c", "localhost:", "[::1]"])
def test_tcp_needs_a_host_and_a_port(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^error parsing address '.*'$"):
        parse_address(f"tcp:{text}")


# ---------------------------------------------------------------- qmp


class TestQmp:
    def test_what_a_command_returns_is_one_line_of_json(self, call) -> None:  # type: ignore[no-untyped-def]
        assert call("qmp", "query-chardev") == (
            0,
            '[{"frontend-open": false, "filename": "null", "label": "n"}]\n',
            "",
        )
