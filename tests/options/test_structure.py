"""The error texts, and which of several errors is reported, were recorded from QEMU 7.2."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from hypothesis import given, strategies as st

from tests.peers import need
from tests.samples import (
    Address,
    ChardevBackend,
    ChardevChange,
    Common,
    Fd,
    File,
    Hostdev,
    Hub,
    Inet,
    Line,
    Ringbuf,
    Socket,
    Udp,
    Unix,
)
from tests.services import TIMEOUT
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.members import IntRange, Object, Scalar, TaggedUnion, describe, type_of
from trio_chardev.options.structure import structure
from trio_chardev.options.unstructure import unstructure

INET = {"host": "127.0.0.1", "port": "0"}


def complaint(cls: Any, value: object, path: str = "") -> str:
    with pytest.raises(OptionsError) as caught:
        structure(cls, value, path)
    return str(caught.value)


def backend(kind: str, data: object) -> dict[str, Any]:
    return {"id": "x", "backend": {"type": kind, "data": data}}


def inet(**members: object) -> dict[str, Any]:
    return backend("socket", {"addr": {"type": "inet", "data": {**INET, **members}}})


def test_json_becomes_the_class_of_its_kind() -> None:
    arguments = structure(
        ChardevChange,
        backend(
            "socket",
            {
                "addr": {"type": "inet", "data": {**INET, "to": 5, "keep-alive": True}},
                "server": False,
                "tls-creds": "t",
                "logfile": "/log",
            },
        ),
    )
    assert arguments == ChardevChange(
        "x",
        Socket(
            addr=Inet("127.0.0.1", "0", to=5, keep_alive=True),
            server=False,
            tls_creds="t",
            logfile="/log",
        ),
    )


def test_the_trailing_underscore_is_not_in_qmps_name() -> None:
    assert structure(File, {"out": "o", "in": "i"}) == File(out="o", in_="i")


def test_arrays_become_tuples() -> None:
    assert structure(Hub, {"chardevs": ["a", "b"]}) == Hub(chardevs=("a", "b"))


def test_a_union_can_be_asked_for_by_itself() -> None:
    assert structure(ChardevBackend, {"type": "memory", "data": {"size": 4}}) == Ringbuf(size=4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Parameter 'id' is missing"),
        ({"id": 5}, "Invalid parameter type for 'id', expected: string"),
        ({"id": None}, "Invalid parameter type for 'id', expected: string"),
        ({"backend": 5}, "Parameter 'id' is missing"),
        ({"id": "x", "foo": 1}, "Parameter 'backend' is missing"),
        ({"id": "x", "backend": "null"}, "Invalid parameter type for 'backend', expected: object"),
        ({"id": "x", "backend": []}, "Invalid parameter type for 'backend', expected: object"),
        ({"id": "x", "backend": {}}, "Parameter 'backend.type' is missing"),
        ({"id": "x", "backend": {"data": 5}}, "Parameter 'backend.type' is missing"),
        (
            {"id": "x", "backend": {"type": True}},
            "Invalid parameter type for 'backend.type', expected: string",
        ),
        (
            {"id": "x", "backend": {"type": "nosuch"}},
            "Parameter 'type' does not accept value 'nosuch'",
        ),
        ({"id": "x", "backend": {"type": "null"}}, "Parameter 'backend.data' is missing"),
        (
            {"id": "x", "backend": {"type": "file", "bar": 1}},
            "Parameter 'backend.data' is missing",
        ),
        (
            {"id": "x", "backend": {"type": "null", "data": {}, "bar": 1}},
            "Parameter 'backend.bar' is unexpected",
        ),
        (
            {"id": "x", "backend": {"type": "null", "data": {"a": 1}, "bar": 1}, "foo": 1},
            "Parameter 'backend.data.a' is unexpected",
        ),
        (
            {"id": "x", "backend": {"type": "null", "data": {}}, "foo": 1},
            "Parameter 'foo' is unexpected",
        ),
        (
            {"id": "x", "backend": {"type": "null", "data": {}}, "": 1},
            "Parameter '' is unexpected",
        ),
        (backend("null", None), "Invalid parameter type for 'backend.data', expected: object"),
        (
            backend("null", {"logfile": None}),
            "Invalid parameter type for 'backend.data.logfile', expected: string",
        ),
        (
            backend("null", {"logappend": "on", "logfile": 5}),
            "Invalid parameter type for 'backend.data.logfile', expected: string",
        ),
        (
            backend("file", {"out": "o", "append": 0}),
            "Invalid parameter type for 'backend.data.append', expected: boolean",
        ),
        (backend("file", {"append": 1}), "Parameter 'backend.data.out' is missing"),
        (
            backend("file", {"append": 1, "in": 1}),
            "Invalid parameter type for 'backend.data.in', expected: string",
        ),
        (backend("file", {"foo": 1}), "Parameter 'backend.data.out' is missing"),
        (backend("socket", {"server": 5}), "Parameter 'backend.data.addr' is missing"),
        (
            backend("socket", {"addr": {"type": "tcp"}}),
            "Parameter 'type' does not accept value 'tcp'",
        ),
        (
            backend("socket", {"addr": {"type": "unix", "path": "p"}}),
            "Parameter 'backend.data.addr.data' is missing",
        ),
        (
            backend("socket", {"addr": {"type": "unix", "data": {"path": "p"}, "a": 1}, "b": 1}),
            "Parameter 'backend.data.addr.a' is unexpected",
        ),
        (
            backend("udp", {"local": 5}),
            "Parameter 'backend.data.remote' is missing",
        ),
        (inet(to=70000), "Parameter 'to' expects uint16_t"),
        (inet(to=-1), "Parameter 'to' expects uint16_t"),
        (inet(to=2**64 - 1), "Parameter 'to' expects uint16_t"),
        (inet(to=2**64), "Parameter 'backend.data.addr.data.to' expects uint64"),
        (inet(to=5.0), "Parameter 'backend.data.addr.data.to' expects uint64"),
        (inet(to="5"), "Parameter 'backend.data.addr.data.to' expects uint64"),
        (inet(to=True), "Parameter 'backend.data.addr.data.to' expects uint64"),
        (
            inet(port=0),
            "Invalid parameter type for 'backend.data.addr.data.port', expected: string",
        ),
    ],
)
def test_the_error_is_qemus(arguments: object, text: str) -> None:
    assert complaint(ChardevChange, arguments) == text


@pytest.mark.parametrize("value", [5.0, 1e2, None, True, "5", 2**63, -(2**63) - 1, [], {}])
def test_an_int_is_written_as_one_and_has_64_bits(value: object) -> None:
    text = "Invalid parameter type for 'backend.data.size', expected: integer"
    assert complaint(ChardevChange, backend("ringbuf", {"size": value})) == text


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0])
def test_an_int_may_use_all_its_bits(value: int) -> None:
    assert structure(Ringbuf, {"size": value}).size == value


@attrs.frozen(kw_only=True)
class Various:
    """What no chardev of QEMU's has."""

    any: Any = None
    size: Annotated[int, IntRange("uint64", 0, 2**64 - 1)] = 0
    small: Annotated[int, IntRange("int8_t", -128, 127)] = 0
    number: float = 0.0
    listed: tuple[Unix, ...] = ()
    grid: tuple[tuple[int, ...], ...] = ()
    words: tuple[Literal["a", "b"], ...] = ()
    nested: Unix | None = None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"small": 128}, "Parameter 'small' expects int8_t"),
        ({"small": 2**63}, "Invalid parameter type for 'p.small', expected: integer"),
        ({"size": "1"}, "Parameter 'p.size' expects uint64"),
        ({"number": "1"}, "Invalid parameter type for 'p.number', expected: number"),
        ({"number": True}, "Invalid parameter type for 'p.number', expected: number"),
        ({"listed": {}}, "Invalid parameter type for 'p.listed', expected: array"),
        (
            {"listed": [{"path": ""}, 5]},
            "Invalid parameter type for 'p.listed[1]', expected: object",
        ),
        ({"listed": [{}]}, "Parameter 'p.listed[0].path' is missing"),
        (
            {"grid": [[1], [1, 2, None]]},
            "Invalid parameter type for 'p.grid[1][2]', expected: integer",
        ),
        ({"words": ["a", "c"]}, "Parameter 'null' does not accept value 'c'"),
        ({"nested": None}, "Invalid parameter type for 'p.nested', expected: object"),
        ({"nested": {"path": "", "x{0}": 1}}, "Parameter 'p.nested.x{0}' is unexpected"),
        (5, "Invalid parameter type for 'p', expected: object"),
    ],
)
def test_other_types_have_their_words(value: object, text: str) -> None:
    assert complaint(Various, value, "p") == text


def test_without_a_path_the_root_has_no_name() -> None:
    assert complaint(Various, 5) == "Invalid parameter type for '<anonymous>', expected: object"


def test_the_last_name_of_an_outer_path_counts_too() -> None:
    union = TaggedUnion("U", {"a": Unix})
    assert complaint(union, {"type": "{b}"}) == "Parameter 'type' does not accept value '{b}'"
    sized: Any = Annotated[int, IntRange("uint8_t", 0, 255)]
    assert complaint(sized, 256, "a.b") == "Parameter 'b' expects uint8_t"


def test_a_large_unsigned_may_be_written_as_a_negative() -> None:
    assert structure(Various, {"size": -1}).size == 2**64 - 1


def test_numbers_are_floats_and_any_is_anything() -> None:
    assert structure(Various, {"number": 5, "any": [None, {"a": 1.5}]}) == Various(
        number=5.0, any=[None, {"a": 1.5}]
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"device": "d", "parity": "X"}, "Parameter 'parity' does not accept value 'X'"),
        ({"device": "d", "parity": 5}, "Invalid parameter type for 'parity', expected: string"),
        ({"device": "d", "data-bits": 9}, "Parameter 'data-bits' does not accept value '9'"),
        (
            {"device": "d", "data-bits": "8"},
            "Invalid parameter type for 'data-bits', expected: integer",
        ),
        ({"device": "d", "data_bits": 8}, "Parameter 'data_bits' is unexpected"),
    ],
)
def test_literals_are_enums(value: object, text: str) -> None:
    assert complaint(Line, value) == text
    assert structure(Line, {"device": "d", "parity": "E", "data-bits": 7}) == Line(
        device="d", parity="E", data_bits=7
    )


# ---------------------------------------------------------------- and back


def test_what_is_at_its_default_is_not_written() -> None:
    options = Socket(addr=Unix("/s"), server=False, tls_creds="t")
    assert unstructure(options) == {
        "addr": {"type": "unix", "data": {"path": "/s"}},
        "server": False,
        "tls-creds": "t",
    }


def test_a_union_is_written_with_the_first_of_its_names() -> None:
    assert unstructure(Ringbuf(size=4), ChardevBackend) == {"type": "ringbuf", "data": {"size": 4}}
    assert unstructure(Hostdev(device="d"), ChardevBackend)["type"] == "serial"


def test_tuples_are_written_as_lists() -> None:
    assert unstructure(Hub(chardevs=("a", "b"))) == {"chardevs": ["a", "b"]}


def test_any_is_written_as_it_is() -> None:
    value = {"any": [None, {"a": [1.5]}], "nested": {"path": "p"}}
    assert unstructure(structure(Various, value)) == value


texts = st.text(max_size=5)
inets = st.builds(
    Inet, texts, texts, to=st.none() | st.integers(0, 65535), ipv4=st.none() | st.booleans()
)
addresses = st.one_of(inets, st.builds(Unix, texts, tight=st.booleans()), st.builds(Fd, texts))
common = {"logfile": st.none() | texts, "logappend": st.booleans()}
backends = st.one_of(
    st.builds(Common, **common),
    st.builds(File, out=texts, in_=st.none() | texts, append=st.booleans(), **common),
    st.builds(Socket, addr=addresses, reconnect=st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.builds(Udp, remote=addresses, local=st.none() | addresses),
    st.builds(Ringbuf, size=st.integers(-(2**63), 2**63 - 1), **common),
)


@given(st.builds(ChardevChange, texts, backends))
def test_what_was_written_is_read_back(arguments: ChardevChange) -> None:
    assert structure(ChardevChange, json.loads(json.dumps(unstructure(arguments)))) == arguments


# ---------------------------------------------------------------- with the real one


@pytest.fixture
def ask_qemu(tmp_path: Path) -> Iterator[Callable[[object], str]]:
    """What qemu-storage-daemon's chardev-change says to arguments, for an id it does not know."""
    path = tmp_path / "qmp"
    chardev = f"socket,id=m,path={path},server=on,wait=on"
    command = [need("qemu-storage-daemon"), "--chardev", chardev, "--monitor", "m"]
    with subprocess.Popen(command) as process, socket.socket(socket.AF_UNIX) as client:
        deadline = time.monotonic() + TIMEOUT
        while client.connect_ex(str(path)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with client.makefile("rb") as lines:
            lines.readline()

            def ask(arguments: object, command: str = "chardev-change") -> str:
                message = {"execute": command, "arguments": arguments}
                client.sendall(json.dumps(message).encode())
                reply = json.loads(lines.readline())
                return str(reply["error"]["desc"]) if "error" in reply else "ok"

            ask({}, "qmp_capabilities")
            yield ask
        process.terminate()


class Mutator:
    """Makes arguments that are mostly right, in the shape of a type."""

    NAMES = ("foo", "bar", "type", "data", "id", "path", "Type", "", "a.b", "é", "{}")
    JUNK: tuple[Any, ...] = (
        None,
        True,
        5,
        -1,
        2**63,
        2**64,
        5.0,
        "",
        "inet",
        [],
        [1],
        {},
        {"type": "null"},
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def make(self, value_type: Any) -> Any:
        chance = self.random.random
        if chance() < 0.06:
            return self.random.choice(self.JUNK)
        match value_type:
            case Scalar("bool"):
                return True
            case Scalar("str"):
                return "s"
            case Scalar() | IntRange():
                return self.random.choice([5, 70000])
            case TaggedUnion():
                tag = self.random.choice(list(value_type.variants))
                members = {"type": tag, "data": self.make(Object(value_type.variants[tag]))}
            case Object(cls):
                members = {
                    member.name: self.make(member.value_type)
                    for member in describe(cls)
                    if not member.is_optional or chance() < 0.1
                }
        if members and chance() < 0.06:
            del members[self.random.choice(list(members))]
        for _ in range(self.random.choice([0, 0, 0, 0, 1, 2])):
            members[self.random.choice(self.NAMES)] = self.random.choice(self.JUNK)
        shuffled = list(members.items())
        self.random.shuffle(shuffled)
        return dict(shuffled)


def test_qemu_finds_the_same_error(ask_qemu: Callable[[object], str]) -> None:
    mutator = Mutator(seed=20)
    for _ in range(500):
        arguments = mutator.make(type_of(ChardevChange))
        if not isinstance(arguments, dict) or ("id" in arguments and arguments["id"] != "s"):
            continue
        try:
            structure(ChardevChange, arguments)
            mine = "Chardev 's' does not exist"
        except OptionsError as error:
            mine = str(error)
        assert (arguments, mine) == (arguments, ask_qemu(arguments))


def test_the_common_options_are_qapis_and_then_ours() -> None:
    assert [member.name for member in describe(BackendOptions)] == [
        *("logfile", "log", "logappend", "logtimestamp"),
        *("log-format", "log-time", "log-events", "log-strip", "record", "record-format"),
        *("log-mode", "log-max", "log-rotate", "log-rotate-age", "log-keep"),
        *("record-mode", "record-max", "rr"),
    ]
    assert all(member.doc for member in describe(BackendOptions))
    assert BackendOptions().open_timeout == 30.0


def test_an_address_can_be_any_of_its_variants() -> None:
    union: Any = Address
    assert structure(union, {"type": "fd", "data": {"str": "3"}}) == Fd("3")
