"""ser2net's configurations become ours; what can't is told with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from trio_chardev.config.configuration import read_configuration
from trio_chardev.convert.converted import Converted, MissingError
from trio_chardev.convert.ser2net_file import convert
from trio_chardev.errors import OptionsError


def consoles_of(result: Converted, folder: Path) -> dict[str, Any]:
    """The tables of the consoles, of a configuration that has no faults."""
    file = folder / "made.toml"
    file.write_text(result.toml())
    configuration = read_configuration([str(file)])
    configuration.faults.raise_any()
    consoles: dict[str, Any] = tomllib.loads(result.toml()).get("console", {})
    return consoles


def converted(text: str, folder: Path, name: str = "s.yaml") -> tuple[dict[str, Any], list[str]]:
    """The consoles that *text* becomes, and what is left out, without the path."""
    file = folder / name
    file.write_text(text)
    result = convert(str(file))
    return consoles_of(result, folder), [
        line.removeprefix(f"{folder}/") for line in result.left_out
    ]


SERVER = """%YAML 1.1
---
define: &banner \\r\\nport \\p at \\d [\\B] {x}\\r\\n\\r\\n
define: &serial /dev/serial/by-path/pci

connection: &board
  accepter: telnet(rfc2217,mode=server),tcp,127.0.0.1,4001
  timeout: 0
  connector: serialdev,
             *(serial)-port0,
             115200e71,local XONXOFF rtscts
  options:
    banner: *banner
    kickolduser: true
    max-connections: 3
    trace-read: /var/log/\\o-\\d.log
    trace-timestamp: true
"""


def test_a_whole_connection(tmp_path: Path) -> None:
    consoles, left_out = converted(SERVER, tmp_path)
    assert left_out == []
    assert consoles == {
        "board": {
            "device": "serial,path=/dev/serial/by-path/pci-port0,speed=115200,parity=E,"
            "data-bits=7,xonxoff=on,rtscts=on,hupcl=off",
            "listen": ["127.0.0.1:4001,rfc2217=on,in-band=on"],
            "max-clients": 3,
            "on-full": "kick",
            "banner": "port 4001 at /dev/serial/by-path/pci-port0 [115200E71] {{x}}",
            "log": {"file": "/var/log/board-pci-port0.log", "events": True, "format": "timestamp"},
        }
    }


@pytest.mark.parametrize(
    ("accepter", "listen"),
    [
        ("tcp,4001", "*:4001"),
        ("4001", "*:4001"),
        ("telnet,tcp(nodelay=true),localhost,4001", "localhost:4001,telnet=on"),
        ("telnet(rfc2217=false),::1,4001", "[::1]:4001,telnet=on"),
        ("unix,/run/a,b.sock", "/run/a,,b.sock"),
    ],
)
def test_accepters(tmp_path: Path, accepter: str, listen: str) -> None:
    text = f"connection: &a\n  accepter: {accepter}\n  connector: serialdev,/dev/ttyS0\n"
    consoles, left_out = converted(text, tmp_path)
    assert (consoles["a"]["listen"], left_out) == ([listen], [])


@pytest.mark.parametrize(
    ("connector", "device"),
    [
        ("serialdev,/dev/ttyS0,9600N82 -RTSCTS", "serial,path=/dev/ttyS0,speed=9600,stop-bits=2,hupcl=off"),
        ("keepopen,serialdev(speed=19200),/dev/a", "serial,path=/dev/a,speed=19200,hupcl=off"),
        ("serialdev,/dev/a,4800 hangup-when-done dtr=off", "serial,path=/dev/a,speed=4800,dtr=off,hupcl=on"),
        ("telnet(rfc2217),tcp,h,1", "serial,path=rfc2217://h:1"),
        ("tcp,h,1", "socket,host=h,port=1,server=off,reconnect-ms=1000"),
        ("telnet,tcp,::1,1", "socket,host=::1,port=1,server=off,reconnect-ms=1000,telnet=on"),
        ("unix,/run/a", "socket,path=/run/a,server=off,reconnect-ms=1000"),
        ("pty(link=/tmp/l)", "pty,path=/tmp/l"),
    ],
)  # fmt: skip
def test_connectors(tmp_path: Path, connector: str, device: str) -> None:
    text = f"connection: &a\n  accepter: tcp,1\n  connector: {connector}\n"
    consoles, left_out = converted(text, tmp_path)
    assert (consoles["a"]["device"], left_out) == (device, [])


@pytest.mark.parametrize("accepter", ["tcp,h,1 2", "tcp", "a=b,1", "odd(x=1),tcp,h,1", "udp,1"])
def test_what_is_no_address_is_left_out(tmp_path: Path, accepter: str) -> None:
    text = f"connection: &a\n  accepter: {accepter}\n  connector: pty\n"
    consoles, left_out = converted(text, tmp_path)
    assert (consoles, len(left_out)) == ({}, 1)


def test_who_was_kept_out_is_not_let_in(tmp_path: Path) -> None:
    """A restriction that can't be converted leaves no listener."""
    text = (
        "connection: &a\n  accepter: tcp,1\n  connector: pty\n  options:\n    remaddr: 10.0.0.1\n"
    )
    consoles, left_out = converted(text, tmp_path)
    assert "listen" not in consoles["a"]
    assert left_out == [
        "s.yaml:5: 'remaddr': so it has no listener: add one behind a firewall, or with TLS"
    ]


def test_braces_of_a_banner_are_no_placeholders(tmp_path: Path) -> None:
    text = "connection: &a\n  accepter: tcp,1\n  connector: pty\n  options:\n    banner: '{name} {x}'\n"
    assert converted(text, tmp_path)[0]["a"]["banner"] == "(name) {{x}}"


def test_what_is_left_out_is_told_with_its_line(tmp_path: Path) -> None:
    text = """default:
  name: speed
connection: &a
  accepter: sctp,1
  connector: serialdev,/dev/ttyS0
connection: &b
  accepter: telnet,tcp,1
  timeout: 60
  connector: serialdev,/dev/ttyS1,weird
  options:
    closeon: x
    telnet-brk-on-sync: true
    new-thing: 1
    trace-both: '/log-\\Y'
    trace-read: /log
connection: &c
  accepter: tcp,2
  enable: off
  connector: serialdev,/dev/ttyS2
connection: &d
  accepter: *nothing
connection: &9_e
  accepter: tcp,3
  connector: pty
"""
    consoles, left_out = converted(text, tmp_path)
    assert list(consoles) == ["b", "c9_e"]
    assert consoles["b"]["idle-timeout"] == 60
    assert [line.partition(" ")[0] for line in left_out] == [
        f"s.yaml:{line}:" for line in (1, 3, 8, 9, 11, 12, 13, 14, 15, 16, 20, 21, 22)
    ]
    assert left_out[1] == "s.yaml:3: connection 'a': there is nothing like 'sctp' here"
    assert left_out[3] == "s.yaml:9: there is nothing like 'weird' here"


def test_one_line_has_one_console(tmp_path: Path) -> None:
    """With the same settings it has another listener; with others it can't be open at once."""
    text = "".join(
        f"connection: &{name}\n  accepter: {accepter}\n  connector: serialdev,/dev/a,{speed}\n"
        for name, accepter, speed in (
            ("a", "tcp,1", 9600),
            ("b", "telnet,2", 9600),
            ("c", "3", 1200),
        )
    )
    consoles, left_out = converted(text, tmp_path)
    assert {name: each["listen"] for name, each in consoles.items()} == {
        "a": ["*:1", "*:2,telnet=on"]
    }
    assert [line[:40] for line in left_out] == ["s.yaml:7: connection 'c': its line is that"[:40]]


def test_tls_needs_its_files_where_we_look(tmp_path: Path) -> None:
    text = "connection: &a\n  accepter: telnet,ssl(clientauth),tcp,1\n  connector: pty\n"
    file = tmp_path / "s.yaml"
    file.write_text(text)
    result = convert(str(file))
    assert consoles_of(result, tmp_path)["a"]["listen"] == ["*:1,telnet=on,tls-creds=tls"]
    assert result.objects["tls"]["verify-peer"] is True
    assert len(result.left_out) == 1


def test_included_files_have_their_own_lines_and_common_names(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.yaml").write_text("define: &dev /dev/ttyS1\n")
    (tmp_path / "d" / "2.yaml").write_text(
        "connection: &b\n  accepter: tcp,2\n  connector: serialdev,*(dev)\n  options:\n    x: 1\n"
    )
    text = f"include: {tmp_path}/d/*.yaml\nconnection: &a\n  accepter: tcp,1\n  connector: pty\n"
    consoles, left_out = converted(text + f"include: {tmp_path}/no\n", tmp_path)
    assert list(consoles) == ["b", "a"]
    assert consoles["b"]["device"].startswith("serial,path=/dev/ttyS1,")
    assert left_out == [
        f"s.yaml:5: there is no '{tmp_path}/no'",
        "d/2.yaml:5: there is nothing like 'x' here",
    ]


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    _, left_out = converted(f"include: {tmp_path}/s.yaml\n", tmp_path)
    assert left_out == [f"s.yaml:1: '{tmp_path}/s.yaml' is included 10 files deep"]


def test_names_in_names_can_not_grow_without_end(tmp_path: Path) -> None:
    text = "define: &a0 xxxxxxxxxx\n" + "".join(
        f"define: &a{n + 1} '*(a{n})*(a{n})'\n" for n in range(40)
    )
    with pytest.raises(OptionsError, match="s.yaml:14: this text is too long"):
        converted(text, tmp_path)


def test_what_is_no_yaml_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="s.yaml:3: this is not YAML"):
        converted("connection: &a\n  x: [\n", tmp_path)
    with pytest.raises(MissingError):
        convert(str(tmp_path / "no"))


def test_the_old_format(tmp_path: Path) -> None:
    text = """# comment
BANNER:welcome:hello \\d\\r\\n
TRACEFILE:tr1:/log
localhost,2000:telnet:600:/dev/ttyS0:9600 8DATABITS NONE 1STOPBIT welcome remctl tr=tr1
2001:raw:0:/dev/ttyS1:115200 EVEN 7DATABITS kickolduser max-connections=2
2002:off:0:/dev/ttyS2
CONTROLPORT:3000
"""
    consoles, left_out = converted(text, tmp_path, "ser2net.conf")
    assert consoles["port-2000"] == {
        "device": "serial,path=/dev/ttyS0,speed=9600,data-bits=8,stop-bits=1,hupcl=off",
        "listen": ["localhost:2000,rfc2217=on,in-band=on"],
        "max-clients": 1,
        "idle-timeout": 600,
        "log": {"file": "/log"},
        "banner": "hello /dev/ttyS0",
    }
    assert consoles["port-2001"] == {
        "device": "serial,path=/dev/ttyS1,speed=115200,parity=E,data-bits=7,hupcl=off",
        "listen": ["*:2001"],
        "max-clients": 2,
        "on-full": "kick",
    }
    assert [line[:15] for line in left_out] == [
        "ser2net.conf:4:",
        "ser2net.conf:6:",
        "ser2net.conf:7:",
    ]


SAMPLES = [
    Path("/etc/ser2net.yaml"),
    Path("/etc/ser2net/ser2net.yaml"),
    Path("/usr/share/doc/ser2net/examples/ser2net.yaml"),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_samples_of_the_package(sample: Path, tmp_path: Path) -> None:
    if not sample.exists():
        pytest.skip("ser2net is not installed here")
    consoles_of(convert(str(sample)), tmp_path)
