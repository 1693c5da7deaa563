"""``config-from-ser2net`` and ``config-from-conserver`` as their users meet them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.cli.calls import wait_for
from tests.services import TIMEOUT, running
from trio_chardev.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run it within this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["trio-chardev", *arguments])
    with pytest.raises(SystemExit) as raised:
        main()
    return raised.value.code or 0


CONSERVER = "console a {{ type uds; uds {board}; rw *; }}"
SER2NET = "connection: &a\n  accepter: unix,{users}\n  connector: unix,{board}\n"


@pytest.mark.parametrize(
    ("command", "sample"),
    [("config-from-conserver", CONSERVER), ("config-from-ser2net", SER2NET)],
)
def test_what_is_printed_is_right(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    sample: str,
) -> None:
    """The status is 0 if all was converted."""
    (tmp_path / "file").write_text(sample.format(board="/b", users="/u"))
    assert run(monkeypatch, command, str(tmp_path / "file")) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    (tmp_path / "c.toml").write_text(text)
    assert run(monkeypatch, "check", "--config", str(tmp_path / "c.toml")) == 0


def test_what_is_printed_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client is at the board, as with ser2net."""
    text = SER2NET.format(board=tmp_path / "board", users=tmp_path / "users")
    (tmp_path / "s.yaml").write_text(text)
    assert run(monkeypatch, "config-from-ser2net", str(tmp_path / "s.yaml")) == 0
    (tmp_path / "c.toml").write_text(capsys.readouterr().out)
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as user:
        door.bind(str(tmp_path / "board"))
        door.listen()
        door.settimeout(TIMEOUT)
        user.settimeout(TIMEOUT)
        with running("--config", str(tmp_path / "c.toml")):
            board, _ = door.accept()
            with board:
                board.settimeout(TIMEOUT)
                wait_for(lambda: user.connect_ex(str(tmp_path / "users")) == 0)
                user.sendall(b"root\r")
                assert board.recv(5, socket.MSG_WAITALL) == b"root\r"
                board.sendall(b"# ")
                assert user.recv(2, socket.MSG_WAITALL) == b"# "


def test_what_is_left_out_is_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the status is 1."""
    (tmp_path / "s.yaml").write_text("connection: &a\n  accepter: tcp,1\n  connector: echo\n")
    assert run(monkeypatch, "config-from-ser2net", str(tmp_path / "s.yaml")) == 1
    text, errors = capsys.readouterr()
    assert text.startswith("# Made from ")
    assert errors == f"{tmp_path}/s.yaml:1: connection 'a': there is nothing like 'echo' here\n"


@pytest.mark.parametrize("command", ["config-from-ser2net", "config-from-conserver"])
def test_no_such_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    assert run(monkeypatch, command, str(tmp_path / "x")) == 66
    assert capsys.readouterr().err == f"trio-chardev: there is no '{tmp_path}/x'\n"


def test_without_pyyaml_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "trio_chardev.convert.ser2net_yaml", raising=False)
    (tmp_path / "s.yaml").write_text("x: 1\n")
    assert run(monkeypatch, "config-from-ser2net", str(tmp_path / "s.yaml")) == 1
    assert "'trio-chardev[convert]'" in capsys.readouterr().err
