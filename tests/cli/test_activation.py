"""A service of systemd: its sockets, by name, and its folders."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import server_certificate, write_folder
from tests.cli.test_inherited import high, started, stop
from tests.peers import need
from tests.services import PROGRAM, TIMEOUT, Qmp, running
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.cli import address
from trio_chardev.cli.inherited import Inherited
from trio_chardev.errors import BackendError, ChardevError, OptionsError


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with high(sock) as moved:
            yield moved


CONSOLE = """
[console.board]
device = "null"
listen = "fd:board{more}"
"""


def test_a_console_and_qmp_at_activated_sockets(tmp_path: Path) -> None:
    """And QMP needs no option: it is at the socket called qmp."""
    file = tmp_path / "x.toml"
    file.write_text(CONSOLE.format(more=""))
    with (
        listening(tmp_path / "q") as qmp_socket,
        listening(tmp_path / "b") as board,
        started("--config", str(file), fds=[qmp_socket, board], names="qmp:board") as process,
        Qmp(tmp_path / "q") as qmp,
    ):
        assert {row["label"] for row in qmp("query-chardev")} >= {"board", "board-console"}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "b"))
        # The listener is made anew, with the same socket.
        file.write_text(CONSOLE.format(more=",read-only=on"))
        assert qmp("config-reload")["changed"] == ["board-l0"]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(tmp_path / "b"))
            while not qmp("query-clients"):
                pass
        # And again, as a second one can't have it meanwhile.
        file.write_text(
            CONSOLE.format(more=",read-only=on") + '[device.other]\ndriver = "listener"\n'
            'console = "board-console"\nfd = "board"\n'
        )
        assert "File descriptor 'board' has been given already" in qmp("config-reload")
        stop(process)
    assert (tmp_path / "b").exists(), "it is systemd's"


def test_a_listening_socket_can_be_given_again_when_its_user_has_closed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path / "s") as sock:
        monkeypatch.setattr("trio_chardev.cli.inherited.FIRST", sock.fileno())
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "s"}
        inherited = Inherited.found(environ)
        for name in ("s", str(sock.fileno()), "s"):
            taken = inherited.take(name)
            assert taken != sock.fileno()
            assert not os.get_inheritable(taken)
            for again in ("s", str(sock.fileno())):
                with pytest.raises(BackendError, match="has been given already"):
                    inherited.take(again)
            os.close(taken)
            other = os.open(os.devnull, os.O_RDONLY)  # it has the number now
            assert inherited.is_listening("s")
            os.close(other)


def test_systemd_itself_passes_them(tmp_path: Path) -> None:
    """It starts the service when the first client comes, which is served."""
    file = tmp_path / "x.toml"
    file.write_text(CONSOLE.format(more=""))
    process = subprocess.Popen(
        [
            need("systemd-socket-activate"),
            *("-l", str(tmp_path / "q"), "-l", str(tmp_path / "b"), "--fdname=qmp:board"),
            *PROGRAM,
            *("serve", "--config", str(file)),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        with Qmp(tmp_path / "q") as qmp:
            assert {row["label"] for row in qmp("query-chardev")} >= {"board", "board-console"}
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "b"))
                while not qmp("query-clients"):
                    pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()


def test_the_folders_that_systemd_makes_are_the_defaults(tmp_path: Path) -> None:
    """Of several, which are joined by colons, it is the first."""
    folders = {name: tmp_path / name.lower() for name in ("RUNTIME", "STATE", "CONFIGURATION")}
    for folder in folders.values():
        folder.mkdir()
    (folders["CONFIGURATION"] / "config.toml").write_text('[chardev]\na = "null"\n')
    environ = {f"{name}_DIRECTORY": f"{path}:/nowhere" for name, path in folders.items()}
    for expected in (["a"], ["a", "b"]):
        with running(XDG_CONFIG_HOME="/nowhere", **environ) as service:
            path = folders["RUNTIME"] / "qmp.sock"
            assert service.wait_line() == f"QMP at {path}"
            with Qmp(path) as qmp:
                assert (
                    sorted(row["label"] for row in qmp("query-chardev"))[: len(expected)]
                    == expected
                )
                qmp.add("b", "null")
            said = json.loads((folders["STATE"] / "state.json").read_text())
            assert "b" in str(said)
            listed = subprocess.run(
                [*PROGRAM, "list", "--json"],
                env={"PATH": "/usr/bin:/bin", **environ},
                capture_output=True,
                check=True,
            )
            assert b'"b"' in listed.stdout
            assert service.stop()[0] == 0


def test_a_client_finds_the_system_s_service_if_there_is_no_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    system = tmp_path / "system.sock"
    monkeypatch.setattr(address, "SYSTEM_MONITOR", system)
    own = tmp_path / "trio-chardev" / "qmp.sock"
    assert address.client_path() == own
    system.touch()
    assert address.client_path() == system
    own.touch()
    assert address.client_path() == own


def test_keys_are_where_systemd_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object without a folder takes its files from there; with one, it does not."""
    options = TlsCredsX509(id="tls", endpoint="server")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(OptionsError, match="Missing 'dir'"):
        options.create({})
    monkeypatch.setenv(
        "CREDENTIALS_DIRECTORY", write_folder(tmp_path / "creds", server=server_certificate())
    )
    assert options.create({}).verify_peer
    with pytest.raises(ChardevError, match="/nowhere"):
        TlsCredsX509(id="tls", endpoint="server", dir="/nowhere").create({})
