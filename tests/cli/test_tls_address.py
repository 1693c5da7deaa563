"""A monitor with TLS, for commands and for attach."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.certificates import client_certificate, server_certificate, write_folder
from tests.cli.calls import Call
from tests.cli.terminals import Board, board, terminal
from tests.peers import free_port
from trio_chardev.cli import main
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.tls_address import TlsAddress, TlsOptions
from trio_chardev.errors import OptionsError

ESCAPE = b"\x1d"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tls:h:4444,dir=/d", TlsAddress("h", "4444", options=TlsOptions(dir="/d"))),
        (
            "tls:[::1]:4,dir=/a,,b,verify-peer=off,tls-hostname=n",
            TlsAddress(
                "::1", "4", options=TlsOptions(dir="/a,b", verify_peer=False, tls_hostname="n")
            ),
        ),
    ],
)
def test_an_address_with_tls(text: str, address: TlsAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tls:h", "error parsing address 'h'"),
        ("tls:h:1", "--socket tls:h:1: Parameter 'dir' is missing"),
        ("tls::1,dir=/d", "--socket tls::1,dir=/d: TLS needs the name of a host"),
        ("tls:h:1,dir=/d,x=1", "Parameter 'x' is unexpected"),
        ("tls:h:1,help", "the options are dir=DIR"),
    ],
)
def test_an_address_that_is_wrong(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as raised:
        parse_address(text)
    assert error in str(raised.value)


@attrs.define
class Secured:
    """A board whose monitor, and one listener, speak TLS, with those who have a certificate."""

    board: Board
    folder: Path
    """Of the service."""
    monitor: str
    """HOST:PORT"""
    ours: str
    """The folder of a client's credentials."""

    @property
    def address(self) -> str:
        return f"tls:{self.monitor},dir={self.ours}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    qmp, plain, listener = free_port(), free_port(), free_port()
    server = write_folder(folder / "server", server=server_certificate())
    on = "console=board-console,host=127.0.0.1"
    more = [
        *("--object", f"tls-creds-x509,id=t,dir={server},endpoint=server"),
        *("--qmp", f"tcp:127.0.0.1:{qmp},server=on,wait=off,tls-creds=t"),
        *("--device", f"listener,id=plain,{on},port={plain}"),
        *("--device", f"listener,id=secure,{on},port={listener},tls-creds=t"),
    ]
    with board(folder, *more) as it:
        ours = write_folder(folder / "client", client=client_certificate())
        yield Secured(it, folder, f"127.0.0.1:{qmp}", ours)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program within this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trio-chardev", *arguments])
        with pytest.raises(SystemExit) as raised:
            main()
        code = raised.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return run


def test_a_command_asks_through_tls(secured: Secured, run: Call) -> None:
    status, said, errors = run("list", "--json", "-s", secured.address)
    assert (status, errors) == (0, "")
    assert [row["name"] for row in json.loads(said)] == ["board"]


def test_the_address_may_be_in_the_environment(
    secured: Secured, run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_CHARDEV_SOCKET", secured.address)
    status, said, errors = run("list", "--json")
    assert (status, errors) == (0, "")
    assert [row["name"] for row in json.loads(said)] == ["board"]


def test_one_without_a_certificate_is_refused_in_one_line(secured: Secured, run: Call) -> None:
    folder = write_folder(secured.folder / "nobody")
    status, said, errors = run("list", "-s", f"tls:{secured.monitor},dir={folder}")
    assert (status, said) == (1, "")
    assert errors.startswith(f"trio-chardev: The QMP server '{secured.monitor}': ")
    assert "certificate required" in errors
    assert errors.count("\n") == 1


def test_a_server_with_another_name_is_not_talked_to(secured: Secured, run: Call) -> None:
    status, said, errors = run("list", "-s", f"{secured.address},tls-hostname=other.example")
    assert (status, said) == (1, "")
    assert "TLS handshake failed: " in errors
    assert "other.example" in errors
    assert run("list", "-s", f"{secured.address},tls-hostname=localhost")[0] == 0


def test_files_that_are_missing_are_told_and_nobody_is_waited_for(
    secured: Secured, run: Call
) -> None:
    status, said, errors = run("list", "-s", f"tls:{secured.monitor},dir={secured.folder}/none")
    assert (status, said) == (1, "")
    assert errors == (
        f"trio-chardev: Unable to access credentials {secured.folder}/none/ca-cert.pem: "
        "No such file or directory\n"
    )


def test_a_terminal_is_attached_through_tls_by_a_listener_that_has_it(secured: Secured) -> None:
    with terminal("attach", "-s", secured.address, "board", cols=90) as user:
        user.expect(b"attached to board-console")
        user.type(b"x")
        secured.board.expect(b"x")
        secured.board.print(b"there")
        user.expect(b"there")
        with secured.board.qmp() as qmp:
            (row,) = qmp("query-clients")
        assert row["who"].endswith("CN=laptop")
        assert row["address"].startswith("127.0.0.1:")
        user.type(ESCAPE + b"w")
        user.expect(b"*w  ")
        user.type(ESCAPE + b"d")
        assert user.wait() == 0


def test_text_is_sent_through_tls_and_the_answer_found(secured: Secured, run: Call) -> None:
    at = ("-s", secured.address)
    status, cursor, errors = run("send", *at, "board", "uname" * 1000, "--cursor")
    assert (status, errors) == (0, "")
    secured.board.expect(b"uname" * 1000)
    secured.board.print(b"Linux\n")
    assert run("expect", *at, "board", "Linux", "--since", cursor.strip()) == (0, "Linux", "")


def test_keys_never_go_through_a_listener_without_tls_where_the_monitor_has_it(
    secured: Secured, run: Call
) -> None:
    with secured.board.qmp() as qmp:
        assert qmp("device_del", id="secure") == {}
        status, said, errors = run("attach", "-s", secured.address, "board")
    assert (status, said) == (1, "")
    assert "no listener with TLS" in errors
