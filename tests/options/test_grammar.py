"""The texts were recorded from qemu-storage-daemon 7.2, except those of newer options."""

from __future__ import annotations

from typing import Any

import pytest

from tests.samples import KINDS
from trio_chardev.errors import OptionsError
from trio_chardev.options.grammar import ChardevGrammar, ChardevSpec, check_id
from trio_chardev.options.keyval import HelpRequested
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure

GRAMMAR = ChardevGrammar(KINDS)


def inet(host: str, port: str, **more: object) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host, "port": port, **more}}


def unix(path: str, **more: object) -> dict[str, Any]:
    return {"type": "unix", "data": {"path": path, **more}}


FD_7 = {"type": "fd", "data": {"str": "7"}}


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("null,id=x", "null", {}),
        ("backend=null,id=x", "null", {}),
        ("id=x,backend=null,", "null", {}),
        ("null,id=x,backend=pty", "pty", {}),
        ("null,id=x,id=y", "null", {}),
        ("null,id=x,logfile=/l,,m,logappend=on", "null", {"logfile": "/l,m", "logappend": True}),
        ("null,id=x,path=/p,size=5,server=on,mouse=on", "null", {}),
        ("file,id=x,path=/o", "file", {"out": "/o"}),
        (
            "file,id=x,path=/o,input-path=/i,append=on",
            "file",
            {"out": "/o", "in": "/i", "append": True},
        ),
        ("pipe,id=x,path=/p", "pipe", {"device": "/p"}),
        ("parallel,id=x,path=/p", "parallel", {"device": "/p"}),
        (
            "serial,id=x,path=/p,data-bits=7,parity=E",
            "serial",
            {"device": "/p", "data-bits": 7, "parity": "E"},
        ),
        ("stdio,id=x,signal=off", "stdio", {"signal": False}),
        ("ringbuf,id=x,size=1.5k", "ringbuf", {"size": 1536}),
        ("memory,id=x,size=0", "memory", {}),
        ("mux,id=x,chardev=y", "mux", {"chardev": "y"}),
        ("hub,id=x,chardevs.1=b,chardevs.0=a", "hub", {"chardevs": ["a", "b"]}),
        (
            "udp,id=x,port=5",
            "udp",
            {"remote": inet("localhost", "5")},
        ),
        (
            "udp,id=x,host=h,port=5,ipv4=on,localaddr=l",
            "udp",
            {"remote": inet("h", "5", ipv4=True), "local": inet("l", "0")},
        ),
        (
            "udp,id=x,host=,port=5,localport=0",
            "udp",
            {"remote": inet("localhost", "5"), "local": inet("", "0")},
        ),
        ("udp,id=x,port=5,localaddr=", "udp", {"remote": inet("localhost", "5")}),
        (
            "socket,id=x,host=h,port=5,to=010,ipv6=off,tight=on,abstract=on",
            "socket",
            {"addr": inet("h", "5", to=8, ipv6=False), "server": False},
        ),
        (
            "socket,id=x,host=h,port=5,keep-alive=on",
            "socket",
            {"addr": inet("h", "5", **{"keep-alive": True}), "server": False},
        ),
        (
            "socket,id=x,path=/s,abstract=on,tight=off,to=5,ipv4=on,keep-alive=on,server=on",
            "socket",
            {"addr": unix("/s", abstract=True, tight=False), "server": True, "wait": True},
        ),
        (
            "socket,id=x,path=,server=on,wait=off,telnet=on,tn3270=off,websocket=on",
            "socket",
            {
                "addr": unix(""),
                "server": True,
                "wait": False,
                "telnet": True,
                "tn3270": False,
                "websocket": True,
            },
        ),
        (
            "socket,id=x,fd=3,tls-creds=t,tls-authz=a,reconnect=-1",
            "socket",
            {
                "addr": {"type": "fd", "data": {"str": "3"}},
                "server": False,
                "tls-creds": "t",
                "tls-authz": "a",
                "reconnect": -1,
            },
        ),
        ("socket,id=x,fd=7,port=5", "socket", {"addr": FD_7, "server": False}),
        (
            "socket,id=x,fd=7,wait=off",
            "socket",
            {"addr": FD_7, "server": False, "wait": False},
        ),
        (
            "socket,id=x,fd=7,delay=off",
            "socket",
            {"addr": FD_7, "server": False, "nodelay": True},
        ),
        (
            "socket,id=x,fd=7,nodelay=on",
            "socket",
            {"addr": FD_7, "server": False, "nodelay": True},
        ),
    ],
)
def test_options_go_where_qmp_has_them(text: str, kind: str, data: dict[str, Any]) -> None:
    spec = GRAMMAR.parse(text)
    assert spec == ChardevSpec("x", {"type": kind, "data": data})
    structure(TaggedUnion("ChardevBackend", KINDS), spec.backend)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("null", "chardev: no id specified"),
        ("id=x", 'chardev: "x" missing backend'),
        ("bogus,id=x", "'bogus' is not a valid char driver name"),
        (",id=x", "'' is not a valid char driver name"),
        ("null,,id=x", "'null,id=x' is not a valid char driver name"),
        ("null,id=x,foo=1", "Invalid parameter 'foo'"),
        ("null,foo=1", "Invalid parameter 'foo'"),
        ("null,id=x,help=on", "Invalid parameter 'help'"),
        ("=null,id=x", "Invalid parameter ''"),
        ("null,id=x,mux=1", "Parameter 'mux' expects 'on' or 'off'"),
        ("null,id=x,signal=maybe", "Parameter 'signal' expects 'on' or 'off'"),
        ("null,id=x,to=x", "Parameter 'to' expects a number"),
        ("null,id=x,width=x", "Parameter 'width' expects a number"),
        ("bogus,id=x,width=3", "'bogus' is not a valid char driver name"),
        ("vc,id=x,width=3,encoding=utf8", "'vc' is not a valid char driver name"),
        ("null,width=3", "chardev: no id specified"),
        *(
            (f"{kind},id=x,{name}={value}", f"chardev 'x' does not support {what}")
            for kind in KINDS
            for name, value, what in (
                ("width", 640, "size options"),
                ("height", 480, "size options"),
                ("cols", 80, "size options"),
                ("rows", 25, "size options"),
                ("encoding", "utf8", "encoding option"),
            )
        ),
        ("file,id=x,encoding=,rows=1", "chardev 'x' does not support size options"),
        ("null,id=x,size=x", "Parameter 'size' expects a non-negative number below 2^64"),
        ("null,id=x,size=x,foo=1", "Parameter 'size' expects a non-negative number below 2^64"),
        ("null,id=1x,foo=1", "Parameter 'id' expects an identifier"),
        ("null,id=1,id=y", "Parameter 'id' expects an identifier"),
        ("file,id=x", "chardev: file: no filename given"),
        ("file,id=x,out=/o", "Invalid parameter 'out'"),
        ("pipe,id=x", "chardev: pipe: no device path given"),
        ("serial,id=x", "chardev: serial/tty: no device path given"),
        ("parallel,id=x", "chardev: parallel: no device path given"),
        ("mux,id=x", "chardev: mux: no chardev given"),
        ("hub,id=x", "hub: 'chardevs' list is not defined"),
        ("hub,id=x,chardevs.0=a,chardevs.2=c", "Parameter 'chardevs.1' missing"),
        ("hub,id=x,chardevs=a", "Invalid parameter 'chardevs'"),
        ("udp,id=x,host=h", "chardev: udp: remote port not specified"),
        ("udp,id=x,port=", "chardev: udp: remote port not specified"),
        ("socket,id=x,host=h", "chardev: socket: no port given"),
        (
            "socket,id=x,host=h,path=/s,delay=on,nodelay=on",
            "None or one of 'path', 'fd' or 'host' option required.",
        ),
        (
            "socket,id=x,fd=,path=/s",
            "None or one of 'path', 'fd' or 'host' option required.",
        ),
        ("socket,id=x", "One of 'path', 'fd' or 'host' option required."),
        ("socket,id=x,port=5", "One of 'path', 'fd' or 'host' option required."),
        ("socket,id=x,delay=off,nodelay=off", "'delay' and 'nodelay' are mutually exclusive"),
        ("socket,id=x,addr=h", "Invalid parameter 'addr'"),
        ('{"id": "x"}', "Parameter 'backend' is missing"),
        ('{"id": "1", "backend": {}}', "Parameter 'id' expects an identifier"),
    ],
)
def test_the_error_is_qemus(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        GRAMMAR.parse(text)
    assert str(caught.value) == error


def test_mux_is_for_the_caller() -> None:
    assert GRAMMAR.parse("null,id=x,mux=on") == ChardevSpec(
        "x", {"type": "null", "data": {}}, mux=True
    )
    assert not GRAMMAR.parse("null,id=x,mux=on,mux=off").mux


def test_a_json_object_is_chardev_adds_arguments() -> None:
    text = '{"id": "x", "backend": {"type": "socket", "data": {"addr": null}}}'
    assert GRAMMAR.parse(text).backend == {"type": "socket", "data": {"addr": None}}


def test_warnings_come_in_order_and_before_the_error() -> None:
    warnings: list[str] = []
    with pytest.raises(OptionsError, match="Invalid parameter 'foo'"):
        GRAMMAR.parse("socket,id=x,server,nowait,foo,telnet", warnings.append)
    assert [warning.partition("\n")[2] for warning in warnings] == [
        "Please use server=on instead",
        "Please use wait=off instead",
        "Please use foo=on instead",
    ]


def test_a_bare_id_is_called_on() -> None:
    warnings: list[str] = []
    assert GRAMMAR.parse("null,id", warnings.append).id == "on"
    assert warnings == ["short-form boolean option 'id' deprecated\nPlease use id=on instead"]


@pytest.mark.parametrize(("alias", "kind"), [("tty", "serial"), ("parport", "parallel")])
def test_old_names_are_deprecated(alias: str, kind: str) -> None:
    warnings: list[str] = []
    assert GRAMMAR.parse(f"{alias},id=x,path=/p", warnings.append).backend["type"] == kind
    assert warnings == [f"The alias '{alias}' is deprecated, use '{kind}' instead"]


def test_a_member_that_is_required_is_missed_by_name() -> None:
    grammar = ChardevGrammar({"new": KINDS["mux"]})
    with pytest.raises(OptionsError, match=r"^Parameter 'chardev' is missing$"):
        grammar.parse("new,id=x")


def test_members_that_are_objects_need_a_spelling() -> None:
    grammar = ChardevGrammar({"new": KINDS["udp"]})
    assert set(grammar.options_of("new")) == {"logfile", "logappend"}


@pytest.mark.parametrize("id", ["a", "A1", "a-b.c_d"])
def test_ids_begin_with_a_letter(id: str) -> None:
    check_id(id)


@pytest.mark.parametrize("id", ["", "1a", "a b", "a/b", "é", "a\n", "#a", "x[0]"])
def test_other_ids_are_refused_with_a_hint(id: str) -> None:
    with pytest.raises(OptionsError) as caught:
        check_id(id)
    assert str(caught.value) == "Parameter 'id' expects an identifier"
    assert caught.value.__notes__ == [
        "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
    ]


@pytest.mark.parametrize(
    "text", ["bogus", "bogus,foo=1", "bogus,id=x,foo=1", "bogus,id=x,mux=1", "foo=1,backend=bogus"]
)
def test_an_unknown_kind_is_blamed_first(text: str) -> None:
    """QEMU blames the option, of which nobody can say that it is wrong."""
    with pytest.raises(OptionsError) as caught:
        GRAMMAR.parse(text)
    assert str(caught.value) == "'bogus' is not a valid char driver name"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("help", None),
        ("?,id=x", None),
        ("null,help", "null"),
        ("tty,id=x,?", "serial"),
        ("bogus,help", None),
    ],
)
def test_help_can_be_asked_for(text: str, subject: str | None) -> None:
    with pytest.raises(HelpRequested) as caught:
        GRAMMAR.parse(text)
    assert caught.value.subject == subject


def test_help_lists_the_kinds() -> None:
    lines = GRAMMAR.help_text().splitlines()
    assert lines[0] == "Available chardev backend types:"
    assert [line.split()[0] for line in lines[1:]] == sorted(KINDS)
    assert lines[1].split(maxsplit=1)[1] == "A file."


def test_help_lists_options_as_they_are_spelled() -> None:
    lines = GRAMMAR.help_text("socket").splitlines()
    assert lines[0] == "socket options:"
    rows = dict(line.split("=", 1) for line in lines[1:])
    assert {"  path", "  host", "  to", "  server"} < set(rows)
    assert rows["  server"].split() == ["<bool", "(on/off)>", "Listen.", "(default:", "off)"]
    assert rows["  nodelay"].split(">")[1].split()[:3] == ["Send", "at", "once."]
    assert "  delay" not in rows
    assert "chardevs.N=<str>" in GRAMMAR.help_text("hub")
    assert "size=<size>" in GRAMMAR.help_text("ringbuf")
    assert "parity=<N|E|O>" in GRAMMAR.help_text("serial")
    assert "gain=<num>" in GRAMMAR.help_text("serial")
