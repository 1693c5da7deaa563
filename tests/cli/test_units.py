"""The units that are installed: systemd's own tools accept them, and they name what there is."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.calls import Call
from tests.peers import need
from tests.services import TIMEOUT, Qmp, running
from trio_chardev.cli import units
from trio_chardev.cli.address import SYSTEM_MONITOR
from trio_chardev.errors import OptionsError

MAX_EXPOSURE = "2.5"  # of 10, as systemd-analyze(1) counts it; 2.0 is for the network and devices


def installed(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """The files by their names."""
    units.install_units(str(root), for_user=False, force=False)
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [Path(f"{root}{path}") for path in units.SYSTEM.values()]
    return {str(path.relative_to(root)): path for path in paths}


def run(*words: str) -> str:
    result = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout + result.stderr


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    return installed(tmp_path, capsys)


SERVICE = "etc/systemd/system/trio-chardev.service"


def test_systemd_accepts_the_units(files: dict[str, Path]) -> None:
    folder = files[SERVICE].parent
    assert run(need("systemd-analyze"), "verify", *map(str, sorted(folder.iterdir()))) == ""


PAGE = (Path(__file__).parent.parent.parent / "docs" / "systemd.md").read_text()
ADDED = re.findall(r"^```ini\n# (\S+)\n(.*?)^```$", PAGE, re.M | re.S)


def test_systemd_accepts_what_the_page_adds(files: dict[str, Path], tmp_path: Path) -> None:
    assert len(ADDED) == PAGE.count("```ini") == 3
    assert set(units.SYSTEM.values()) <= set(re.findall(r"`(/etc/[^`]+)`", PAGE))
    for path, text in ADDED:
        target = Path(f"{tmp_path}{path}")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    given = [str(path) for path in files[SERVICE].parent.iterdir() if path.is_file()]
    assert len(given) == 3
    assert run(need("systemd-analyze"), "verify", *given) == ""


def test_systemd_finds_what_is_wrong(files: dict[str, Path]) -> None:
    """So that its silence means something, for drop-ins, too."""
    folder = files[SERVICE].with_name("trio-chardev.service.d")
    folder.mkdir()
    (folder / "x.conf").write_text("[Service]\nLoadCredential=\nNoSuchKey=1\n")
    assert "NoSuchKey" in run(need("systemd-analyze"), "verify", str(files[SERVICE]))


def test_the_page_has_the_commands() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    commands = [
        [line.strip() for line in then.splitlines()[1:]]
        for then in (units.NEXT, units.NEXT_OF_USER)
    ]
    for block, command, then in zip(
        blocks,
        ("trio-chardev install-units", "trio-chardev install-units --user"),
        commands,
        strict=True,
    ):
        assert block.splitlines() == [command, *then]


def test_systemd_accepts_the_user_s_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    units.install_units("", for_user=True, force=False)
    path, _, then = capsys.readouterr().out.partition("\n")
    assert path == f"{tmp_path}/config/systemd/user/trio-chardev.service"
    assert then == f"{units.NEXT_OF_USER}\n"
    assert run(need("systemd-analyze"), "verify", "--user", path) == ""


def test_the_service_is_not_exposed(files: dict[str, Path]) -> None:
    run(
        *(need("systemd-analyze"), "security", "--offline=true", "--no-pager"),
        *(f"--threshold={MAX_EXPOSURE.replace('.', '')}", str(files[SERVICE])),
    )


def test_the_user_is_made(files: dict[str, Path], tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "etc").mkdir(parents=True)
    conf = files["etc/sysusers.d/trio-chardev.conf"]
    run(need("systemd-sysusers"), f"--root={made}", str(conf))
    assert "\ntrio-chardev:" in "\n" + (made / "etc" / "passwd").read_text()
    assert re.search(r"^dialout:.*:trio-chardev$", (made / "etc" / "group").read_text(), re.M)
    run(
        *(need("systemd-tmpfiles"), "--create", f"--root={made}"),
        str(files["etc/tmpfiles.d/trio-chardev.conf"]),
    )
    assert (made / "run" / "trio-chardev").stat().st_mode & 0o7777 == 0o755


def test_logrotate_has_the_logs_opened_anew(files: dict[str, Path], tmp_path: Path) -> None:
    """With its folder and its service replaced by those of the test."""
    logs = tmp_path / "log"
    logs.mkdir(mode=0o700)
    with (
        running(
            *("--chardev", f"null,id=n,logfile={logs}/n.log,logappend=on"),
            *("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
        ) as service,
        Qmp(tmp_path / "q"),
    ):
        (logs / "n.log").write_text("said\n")
        text = files["etc/logrotate.d/trio-chardev"].read_text()
        for old, new in (
            ("/var/log/trio-chardev/", f"{logs}/"),
            ("\tsu trio-chardev trio-chardev\n", ""),
            (
                "systemctl kill --signal=USR2 trio-chardev.service 2>/dev/null || true",
                f"kill -USR2 {service.process.pid}",
            ),
        ):
            assert old in text
            text = text.replace(old, new)
        conf = tmp_path / "logrotate.conf"
        conf.write_text(text)
        conf.chmod(0o600)
        run(need("logrotate"), "--force", "--state", str(tmp_path / "state"), str(conf))
        assert (logs / "n.log.1").read_text() == "said\n"
        while not (logs / "n.log").exists():
            assert service.process.poll() is None


def unit(path: Path) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, found, value = line.partition("=")
        if found and not line.startswith("#"):
            made.setdefault(key, []).append(value)
    return made


def test_what_the_unit_runs_is_this_program(files: dict[str, Path], tmp_path: Path) -> None:
    """And it is ready and serves with what the unit gives it."""
    service = unit(files[SERVICE])
    program, *words = shlex.split(service["ExecStart"][0].replace("%E/trio-chardev", str(tmp_path)))
    assert program == str(Path(sysconfig.get_path("scripts"), "trio-chardev"))
    (tmp_path / "run").mkdir()
    environ = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    with subprocess.Popen([program, *words], env=environ, stdout=subprocess.PIPE) as process:
        try:
            with Qmp(tmp_path / "run" / "qmp.sock"):
                (tmp_path / "a.toml").write_text('[chardev]\na = "null"\n')
                reload = subprocess.run(
                    shlex.split(service["ExecReload"][0]),
                    env=environ,
                    capture_output=True,
                    check=True,
                )
                assert reload.stdout == b"added: a\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


def test_the_units_agree_with_the_program(files: dict[str, Path]) -> None:
    socket = unit(files["etc/systemd/system/trio-chardev.socket"])
    assert socket["ListenStream"] == [str(SYSTEM_MONITOR).replace("/run", "%t")]
    assert socket["FileDescriptorName"] == ["qmp"]
    service = unit(files[SERVICE])
    assert service["User"] == socket["SocketUser"] == ["trio-chardev"]
    assert service["Type"] == ["notify"]


def test_what_an_admin_has_altered_is_not_lost(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path, capsys)  # the same again
    path = files[SERVICE]
    text = path.read_text()
    path.write_text("mine\n")
    with pytest.raises(OptionsError, match=r"differs: --force writes it"):
        units.install_units(str(tmp_path), for_user=False, force=False)
    assert path.read_text() == "mine\n"
    units.install_units(str(tmp_path), for_user=False, force=True)
    assert path.read_text() == text


def test_a_folder_that_can_not_be_made(tmp_path: Path, call: Call) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "sysusers.d").symlink_to("/proc/self/nowhere")
    status, _, errors = call("install-units", "--root", str(tmp_path))
    assert status == 1
    assert errors.count("\n") == 1
    assert "Could not write" in errors


def test_a_program_that_the_service_can_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr(units, "find_program", lambda: '"/home/me/a b/trio-chardev"')
    status, _, errors = call("install-units", "--root", str(tmp_path))
    assert status == 0
    assert "is where the service can't run it" in errors


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("/opt/x-1.0/bin/a", "/opt/x-1.0/bin/a"),
        ("/a b/c", '"/a b/c"'),
        ('/a"\\%$', '"/a\\"\\\\%%$$"'),
    ],
)
def test_a_path_is_quoted_as_systemd_reads_it(path: str, quoted: str) -> None:
    assert units._quoted(path) == quoted


def test_without_a_script_it_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    words: Sequence[str] = shlex.split(units.find_program())
    assert "trio-chardev" in run(*words, "--version")
