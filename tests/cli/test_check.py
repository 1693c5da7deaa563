"""``trio-chardev check`` as its users meet it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_chardev.cli import main
from trio_chardev.config import files


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run it within this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["trio-chardev", "check", *arguments])
    with pytest.raises(SystemExit) as raised:
        main()
    code = raised.value.code
    return code if isinstance(code, int) else 0


def test_what_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is opened, and the files are counted together."""
    (tmp_path / "a.toml").write_text(f'[console.a]\ndevice = "file,path={tmp_path}/x"\n')
    (tmp_path / "b.toml").write_text('[device.e]\ndriver = "echo"\nchardev = "a"\n')
    arguments = ["--config", str(tmp_path / "a.toml"), "--config", str(tmp_path / "b.toml")]
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == "right: 2 chardevs, 2 devices, 0 objects\n"
    assert not (tmp_path / "x").exists()


def test_what_is_wrong_is_printed_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[console.a]\ndevice = "nul"\nhistory = "x"\n')
    assert call(monkeypatch, "--config", str(file)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        f"trio-chardev: {file}:2: [console.a.device]: 'nul' is not a valid char driver name"
    )
    assert second.startswith(f"trio-chardev: {file}:3: [console.a.history]: Parameter 'history'")


def test_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--config", str(tmp_path / "x")) == 66
    assert capsys.readouterr().err == f"trio-chardev: there is no '{tmp_path}/x'\n"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(files, "SYSTEM", tmp_path / "etc")
    assert call(monkeypatch) == 66
    assert capsys.readouterr().err == (
        f"trio-chardev: there is no configuration in '{tmp_path}/trio-chardev' or '{tmp_path}/etc'\n"
    )
