"""The meanings of the forms, and the texts, were recorded from qemu-system-x86_64 7.2."""

from __future__ import annotations

from typing import Any

import pytest

from tests.samples import KINDS
from trio_chardev.errors import OptionsError
from trio_chardev.options.grammar import ChardevGrammar
from trio_chardev.options.legacy import LegacyChardev, parse_legacy

GRAMMAR = ChardevGrammar(KINDS)


def parse(text: str) -> LegacyChardev:
    chardev = parse_legacy(GRAMMAR, text, "serial0")
    assert chardev is not None
    return chardev


def backend(text: str) -> tuple[str, dict[str, Any]]:
    spec = parse(text).spec
    assert spec is not None
    assert spec.id == "serial0"
    return spec.backend["type"], spec.backend["data"]


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("null", "null", {}),
        ("pty", "pty", {}),
        ("pty:/link", "pty", {"path": "/link"}),
        ("stdio", "stdio", {}),
        ("file:/a,,b", "file", {"out": "/a,,b"}),
        ("file:", "file", {"out": ""}),
        ("pipe:/p,x=1", "pipe", {"device": "/p,x=1"}),
        ("COM1", "serial", {"device": "COM1"}),
        ("/dev/ttyS0", "serial", {"device": "/dev/ttyS0"}),
        ("/dev/parport0", "parallel", {"device": "/dev/parport0"}),
        ("/dev/ppi0", "parallel", {"device": "/dev/ppi0"}),
    ],
)
def test_simple_forms(text: str, kind: str, data: dict[str, Any]) -> None:
    assert backend(text) == (kind, data)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp:h:5", "h", "5"),
        ("tcp::5", "", "5"),
        ("tcp:h:http,nodelay", "h", "http"),
        ("tcp:[::1]:5", "::1", "5"),
        (f"tcp:{'h' * 64}:{'5' * 32}", "h" * 64, "5" * 32),
        ("tcp:h:5,host=i,port=6", "i", "6"),
    ],
)
def test_tcp_has_a_host_and_a_port(text: str, host: str, port: str) -> None:
    _, data = backend(text)
    assert data["addr"] == {"type": "inet", "data": {"host": host, "port": port}}
    assert data["server"] is False


@pytest.mark.parametrize("protocol", ["telnet", "tn3270", "websocket"])
def test_a_protocol_cannot_be_switched_off(protocol: str) -> None:
    _, data = backend(f"{protocol}:h:5,server,nowait,{protocol}=off")
    assert data[protocol] is True
    assert (data["server"], data["wait"]) == (True, False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unix:/s,server,nowait", "/s"),
        ("unix:/a,,b,server,nowait", "/a,b"),
        ("unix:path=/s,server,nowait", "/s"),
        ("unix:/s,path=/t,server,nowait", "/t"),
        ("unix:,server,nowait", ""),
    ],
)
def test_unix_parses_commas(text: str, path: str) -> None:
    assert backend(text) == (
        "socket",
        {"addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": False},
    )


def test_udp_has_two_addresses() -> None:
    def inet(host: str, port: str) -> dict[str, Any]:
        return {"type": "inet", "data": {"host": host, "port": port}}

    assert backend("udp::5")[1] == {"remote": inet("localhost", "5")}
    assert backend("udp:h:5@:6")[1] == {"remote": inet("h", "5"), "local": inet("", "6")}
    assert backend("udp:[::1]:5@[::]:6")[1] == {
        "remote": inet("::1", "5"),
        "local": inet("::", "6"),
    }


def test_none_is_no_chardev() -> None:
    assert parse_legacy(GRAMMAR, "none", "serial0") is None


def test_a_chardev_can_be_named() -> None:
    assert parse("chardev:x") == LegacyChardev("x", None)
    assert not parse("chardev:x").wants_monitor


def test_mon_makes_a_mux_with_a_monitor() -> None:
    chardev = parse("mon:null")
    assert chardev.spec is not None
    assert chardev.spec.mux
    assert chardev.wants_monitor
    assert not parse("null").wants_monitor


def test_mon_stdio_leaves_ctrl_c_to_the_mux() -> None:
    assert backend("mon:stdio") == ("stdio", {"signal": False})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'' is not a valid char driver"),
        ("nosuch", "'nosuch' is not a valid char driver"),
        ("mux", "'mux' is not a valid char driver"),
        ("stdio,signal=off", "'stdio,signal=off' is not a valid char driver"),
        ("/tmp/x", "'/tmp/x' is not a valid char driver"),
        ("mon:", "'' is not a valid char driver"),
        ("mon:none", "'none' is not a valid char driver"),
        ("mon:mon:null", "'mon:null' is not a valid char driver"),
        ("mon:chardev:x", "'chardev:x' is not a valid char driver"),
        ("tcp:h", "'tcp:h' is not a valid char driver"),
        ("tcp:h:", "'tcp:h:' is not a valid char driver"),
        ("udp::5@x", "'udp::5@x' is not a valid char driver"),
        ("vc:80Cx24C", "'vc' is not a valid char driver name"),
        ("con:", "'con:' is not a valid char driver"),
        ("msmouse", "'msmouse' is not a valid char driver name"),
        ("tcp:h:5,foo=1", "Invalid parameter 'foo'"),
        ("tcp:h:5,help", "Invalid parameter 'help'"),
        ("unix:/s,wait=maybe", "Parameter 'wait' expects 'on' or 'off'"),
    ],
)
def test_the_error_is_qemus(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        parse(text)
    assert str(caught.value) == error
