from __future__ import annotations

import functools
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
import trio

from tests.peers import need
from trio_chardev.access.table import OBJECTS
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.table import FOREIGN, KINDS
from trio_chardev.errors import OptionsError
from trio_chardev.options.members import IntRange
from trio_chardev.options.structure import structure
from trio_chardev.qmp.commands.chardev import BackendArguments
from trio_chardev.qmp.commands.config import Reloaded
from trio_chardev.qmp.commands.context import Command, Context, Host
from trio_chardev.qmp.commands.descriptor import FD_COMMANDS
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.json.codec import Encoded
from trio_chardev.qmp.schema import qmp_schema
from trio_chardev.qmp.server.events import EVENTS
from trio_chardev.registry import open_registry
from trio_chardev.service import open_service
from trio_chardev.service_log.areas import Levels

Entity = dict[str, Any]
Schema = dict[str, Entity]  # by name
OURS: list[Entity] = qmp_schema(COMMANDS, EVENTS)


def by_name(entities: Iterable[Entity]) -> Schema:
    return {entity["name"]: entity for entity in entities}


@pytest.fixture(scope="module")
def qemu() -> Schema:
    """The schema of QEMU's own program with chardevs and QMP."""
    return schema_of(need("qemu-storage-daemon"), "--chardev", "stdio,id=m", "--monitor", "m")


@pytest.fixture(scope="module")
def emulator() -> Schema:
    """That of the emulator, which has commands about descriptors too."""
    no_machine = ["-display", "none", "-nodefaults", "-machine", "none"]
    return schema_of(need("qemu-system-x86_64"), *no_machine, "-qmp", "stdio")


def schema_of(*program: str) -> Schema:
    """Asks it to quit only when it has answered: QEMU leaves without what it has not written."""
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(10, process.kill)
        watchdog.start()
        try:
            for name in ("qmp_capabilities", "query-qmp-schema"):
                process.stdin.write(json.dumps({"execute": name}) + "\n")
            replies = map(json.loads, process.stdout)
            schema = next(r["return"] for r in replies if isinstance(r.get("return"), list))
            process.stdin.write(json.dumps({"execute": "quit"}) + "\n")
            process.communicate()
        finally:
            watchdog.cancel()
    return by_name(schema)


def types_named_in(entity: Entity) -> Iterator[str]:
    for key in ("arg-type", "ret-type", "element-type"):
        if key in entity:
            yield entity[key]
    for part in (*entity.get("members", ()), *entity.get("variants", ())):
        if "type" in part:
            yield part["type"]


# ---------------------------------------------------------------- form


def test_each_type_exists_once_and_is_reached_from_a_command_or_event() -> None:
    assert max(Counter(entity["name"] for entity in OURS).values()) == 1
    schema = by_name(OURS)
    reached = {e["name"] for e in OURS if e["meta-type"] in ("command", "event")}
    assert reached == {*COMMANDS, *EVENTS}
    todo = list(reached)
    while todo:
        found = set(types_named_in(schema[todo.pop()])) - reached
        reached |= found
        todo += found
    assert reached == set(schema)


def test_commands_and_events_come_first_in_the_order_of_their_tables() -> None:
    names = [entity["name"] for entity in OURS]
    assert names[: len(COMMANDS) + len(EVENTS)] == [*COMMANDS, *EVENTS]


def test_names_of_objects_and_enums_are_numbers_and_of_arrays_say_what_of() -> None:
    masked = [e["name"] for e in OURS if e["meta-type"] in ("object", "enum")]
    assert sorted(masked, key=int) == [str(number) for number in range(len(masked))]
    for entity in OURS:
        if entity["meta-type"] == "array":
            assert entity["name"] == f"[{entity['element-type']}]"


def test_made_again_it_is_the_same() -> None:
    assert qmp_schema(COMMANDS, EVENTS) == OURS


def test_it_has_the_form_that_qemu_says(qemu: Schema) -> None:
    """QEMU's schema tells of itself what query-qmp-schema gives."""
    ret_type = qemu["query-qmp-schema"]["ret-type"]
    assert fits(qemu, ret_type, OURS)
    assert not fits(qemu, ret_type, [*OURS, {"name": "x", "meta-type": "builtin"}])


@attrs.frozen
class Nothing:
    pass


@attrs.frozen
class Everything:
    small: Annotated[int, IntRange("uint8_t", 0, 255)]
    choice: Literal[5, 6]
    word: Literal["a", "b"]
    real: float
    what_ever: Any
    rows: tuple[tuple[str, ...], ...] = ()


def test_every_form_of_member() -> None:
    commands = {
        "run": Command(Everything, print, tuple[int, ...], allow_oob=True),
        "rest": Command(Nothing, print),
    }
    assert qmp_schema(commands, {"RESET": Nothing}) == [
        {
            "name": "run",
            "meta-type": "command",
            "arg-type": "0",
            "ret-type": "[int]",
            "allow-oob": True,
        },
        {"name": "rest", "meta-type": "command", "arg-type": "1", "ret-type": "1"},
        {"name": "RESET", "meta-type": "event", "arg-type": "1"},
        {
            "name": "0",
            "meta-type": "object",
            "members": [
                {"name": "small", "type": "int"},
                {"name": "choice", "type": "int"},
                {"name": "word", "type": "2"},
                {"name": "real", "type": "number"},
                {"name": "what-ever", "type": "any"},
                {"name": "rows", "type": "[[str]]", "default": None},
            ],
        },
        {"name": "[int]", "meta-type": "array", "element-type": "int"},
        {"name": "int", "meta-type": "builtin", "json-type": "int"},
        {"name": "1", "meta-type": "object", "members": []},
        {
            "name": "2",
            "meta-type": "enum",
            "members": [{"name": "a"}, {"name": "b"}],
            "values": ["a", "b"],
        },
        {"name": "number", "meta-type": "builtin", "json-type": "number"},
        {"name": "any", "meta-type": "builtin", "json-type": "value"},
        {"name": "[[str]]", "meta-type": "array", "element-type": "[str]"},
        {"name": "[str]", "meta-type": "array", "element-type": "str"},
        {"name": "str", "meta-type": "builtin", "json-type": "string"},
    ]


def test_every_kind_is_a_variant() -> None:
    schema = by_name(OURS)
    arguments = schema[schema["chardev-add"]["arg-type"]]
    backend = schema[next(m["type"] for m in arguments["members"] if m["name"] == "backend")]
    assert [variant["case"] for variant in backend["variants"]] == [*KINDS, *FOREIGN]
    [tag] = backend["members"]
    assert tag["name"] == backend["tag"] == "type"
    assert schema[tag["type"]]["values"] == [*KINDS, *FOREIGN]


# ---------------------------------------------------------------- beside QEMU

SCHEMA_OF_ITSELF = "query-qmp-schema"  # compared by test_it_has_the_form_that_qemu_says

NOT_HERE = [
    "object-add(secret).iv?: string",  # secrets are not encrypted themselves
    "object-add(secret).keyid?: string",
    "object-add(*).loaded?: boolean",  # QEMU deprecates it
    "object-add.id: string",  # see OURS_ALONE
]
"""What QEMU 7.2 has, of what we have too."""

OURS_ALONE = [
    "*.data.logtimestamp?: boolean",
    *(f"*.data.log{what}? = *" for what in ("", "-format", "-time")),
    *(f"*.data.log-{what}?: boolean" for what in ("events", "strip")),
    *(f"*.data.log-{what}?: int" for what in ("rotate", "rotate-age", "keep")),
    *("*.data.record?: string", "*.data.record-format? = *", "*.data.rr? = *"),
    *(f"*.data.{of}-{what}" for of in ("log", "record") for what in ("mode?: string", "max?: int")),
    "*(file).data.max-size?: int",
    *(f"*({kind}).data.mode?: string" for kind in ("ringbuf", "memory")),
    *("*(replay)*", "*.backend.type = replay"),
    "*(console)*",  # QEMU has it for Windows
    "*(socket).data.binary-only?: boolean",
    "*(socket).data.rfc2217?: boolean",
    "*(socket).data.origins?[]: string",
    "*(socket).data.ws-path?: string",
    *("*(hub)*", "*.type = hub"),  # QEMU 10.0 has hubs
    "*(pty).data.path?: string",  # QEMU 9.2
    *(f"*({kind}).data.path?: string" for kind in ("ringbuf", "memory")),
    "*(socket).data.reconnect-ms?: int",  # QEMU 9.2
    *(f"*(socket).data.{member}?: int" for member in ("reconnect-max-ms", "linger-ms")),
    *(f"*({kind}).data.encoding? = *" for kind in ("vc", "dbus")),  # QEMU 11.1
    *("object-add.qom-type = monitor-qmp", "object-add(monitor-qmp)*"),  # QEMU 11.1
    *(
        f"*(serial).data.{member}?: *"
        for member in (
            *("speed", "data-bits", "stop-bits", "xonxoff", "rtscts", "exclusive", "reopen-ms"),
            *("wait", "hupcl", "rs485", "low-latency"),
            *("rs485-delay-before-ms", "rs485-delay-after-ms"),
        )
    ),
    *(f"*(serial).data.{member}?*" for member in ("parity", "dtr", "rts")),
    "*(mux).data.escape-quit?*",
    "query-chardev ->[].lost?: int",  # by a hub
    "query-chardev ->[].waiting?: int",  # for a server's client to leave
    "*(socket).data.http-guard?: boolean",
    "*(socket).data.on-busy? = *",
    *(f"chardev-change.{member}" for member in ("carry?: *", "keep-peer?: *", "drain-timeout?: *")),
    "object-add(*).id: string",  # the same for a client: it is beside the members of the variant
]

NOT_HERE_IN_THE_EMULATOR = [
    *("*[].type = block-node", "*[](block-node)*"),  # there is no disk
    *("*[].type = migration", "*[](migration)*"),
    *("*[](chardev)*", "*[]: object, tag type"),  # with one type there are no variants
]
OURS_ALONE_BESIDE_THE_EMULATOR = ["*yank*[].id: string", "*yank*[]: object, tag None"]


def lines_of(schema: Schema, name: str, path: str) -> Iterator[str]:
    """One line for each member, and for each value of an enum; names of types do not show."""
    entity = schema[name]
    match entity["meta-type"]:
        case "builtin":
            yield f"{path}: {entity['json-type']}"
        case "enum":
            yield from (f"{path} = {member['name']}" for member in entity["members"])
        case "array":
            yield from lines_of(schema, entity["element-type"], f"{path}[]")
        case "object":
            yield f"{path}: object, tag {entity.get('tag')}"
            for member in entity["members"]:
                mark = "?" if "default" in member else ""
                yield from lines_of(schema, member["type"], f"{path}.{member['name']}{mark}")
            for variant in entity.get("variants", ()):
                yield from lines_of(schema, variant["type"], f"{path}({variant['case']})")


def lines_of_commands(schema: Schema, commands: Iterable[str]) -> set[str]:
    lines = set()
    for name in commands:
        command = schema[name]
        lines.add(f"{name}: allow-oob {command.get('allow-oob', False)}")
        lines |= set(lines_of(schema, command["arg-type"], name))
        lines |= set(lines_of(schema, command["ret-type"], f"{name} ->"))
    return lines


def is_of_another_object(line: str) -> bool:
    """Is it about an object for an emulator?"""
    kind = re.match(r"object-add(?:\(([^)]*)\)|\.qom-type = (.*))", line)
    return kind is not None and (kind[1] or kind[2]) not in OBJECTS


def check_differences(lines: set[str], patterns: list[str]) -> None:
    stray = {line for line in lines if not any(fnmatchcase(line, p) for p in patterns)}
    assert not stray, "these differences are not listed as intended"
    stale = [p for p in patterns if not any(fnmatchcase(line, p) for line in lines)]
    assert not stale, "these differences are gone: take them off the list"


def test_what_qemu_has_too_is_as_qemu_has_it(qemu: Schema) -> None:
    common = set(COMMANDS) & set(qemu) - {SCHEMA_OF_ITSELF}
    assert len(common) >= 12
    ours, theirs = lines_of_commands(by_name(OURS), common), lines_of_commands(qemu, common)
    theirs = {line for line in theirs if not is_of_another_object(line)}
    check_differences(theirs - ours, NOT_HERE)
    check_differences(ours - theirs, OURS_ALONE)


def test_what_the_emulator_alone_has_too_is_as_it_has_it(emulator: Schema) -> None:
    assert set(FD_COMMANDS) <= set(emulator)
    ours, theirs = (lines_of_commands(schema, FD_COMMANDS) for schema in (by_name(OURS), emulator))
    check_differences(theirs - ours, NOT_HERE_IN_THE_EMULATOR)
    check_differences(ours - theirs, OURS_ALONE_BESIDE_THE_EMULATOR)


@pytest.mark.parametrize("name", FD_COMMANDS)
def test_out_of_band_is_what_may_be_in_qemu(emulator: Schema, name: str) -> None:
    assert COMMANDS[name].allow_oob is emulator[name].get("allow-oob", False)


def test_shutdown_tells_what_it_does_in_qemu(emulator: Schema) -> None:
    ours, theirs = (
        set(lines_of(schema, schema["SHUTDOWN"]["arg-type"], ""))
        for schema in (by_name(OURS), emulator)
    )
    assert ours <= theirs
    assert {line for line in theirs - ours if ".reason = " not in line} == set()


# ---------------------------------------------------------------- beside structure()


def fits(schema: Schema, name: str, value: Any) -> bool:
    """What a client that knows nothing but the schema thinks of *value*."""
    entity = schema[name]
    match entity["meta-type"]:
        case "builtin":
            return fits_json_type(entity["json-type"], value)
        case "enum":
            return value in [member["name"] for member in entity["members"]]
        case "array":
            element = entity["element-type"]
            return isinstance(value, list) and all(fits(schema, element, item) for item in value)
    return isinstance(value, dict) and fits_object(schema, entity, value)


def fits_json_type(json_type: str, value: Any) -> bool:
    match json_type:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "int":
            return type(value) is int
        case "number":
            return type(value) in (int, float)
    return True


def fits_object(schema: Schema, entity: Entity, value: dict[str, Any]) -> bool:
    members = {member["name"]: member for member in entity["members"]}
    if "tag" in entity:
        cases = {variant["case"]: variant["type"] for variant in entity["variants"]}
        case = cases.get(value.get(entity["tag"]))
        if case is None:
            return False
        members |= {member["name"]: member for member in schema[case]["members"]}
    return set(value) <= set(members) and all(
        fits(schema, member["type"], value[key]) if key in value else "default" in member
        for key, member in members.items()
    )


UNIX = {"type": "unix", "data": {"path": "/x"}}

GOOD = [
    {"type": "null", "data": {}},
    {"type": "file", "data": {"out": "/x", "in": "/y", "append": True}},
    {"type": "ringbuf", "data": {"size": 4096, "logfile": "/x"}},
    {"type": "serial", "data": {"device": "/x", "data-bits": 7, "parity": "E"}},
    {"type": "socket", "data": {"addr": UNIX, "server": False, "reconnect-ms": 5}},
    {
        "type": "udp",
        "data": {"remote": {"type": "inet", "data": {"host": "h", "port": "1", "to": 9}}},
    },
]
BAD: list[Any] = [
    None,
    {"data": {}},
    {"type": "null"},
    {"type": "nul", "data": {}},
    {"type": "null", "data": {}, "more": 1},
    {"type": "null", "data": {"size": 1}},
    {"type": "file", "data": {"in": "/y"}},
    {"type": "file", "data": {"out": "/x", "in_": "/y"}},
    {"type": "file", "data": {"out": "/x", "append": 1}},
    {"type": "ringbuf", "data": {"size": True}},
    {"type": "ringbuf", "data": {"size": "4096"}},
    {"type": "serial", "data": {"device": "/x", "parity": "even"}},
    {"type": "socket", "data": {"addr": {"path": "/x"}}},
    {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": None}}}},
    {"type": "socket", "data": {"addr": UNIX, "reconnect_ms": 5}},
]


@pytest.mark.parametrize(
    ("backend", "is_good"), [(b, True) for b in GOOD] + [(b, False) for b in BAD], ids=str
)
def test_schema_and_structure_agree(backend: Any, is_good: bool) -> None:
    schema = by_name(OURS)
    arguments = {"id": "x", "backend": backend}
    assert fits(schema, schema["chardev-add"]["arg-type"], arguments) is is_good
    if is_good:
        structure(BackendArguments, arguments)
    else:
        with pytest.raises(OptionsError):
            structure(BackendArguments, arguments)


# ---------------------------------------------------------------- what handlers give

RINGBUF = {"type": "ringbuf", "data": {"size": 16}}
NULL = {"type": "null", "data": {}}
ABSENT = {"type": "serial", "data": {"device": "/nonexistent/tty", "wait": False}}
SOCKET = {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": ""}}}}


def connected_fd(context: Context) -> int:
    """As if a client had passed it."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("chardev-add", {"id": "a", "backend": {"type": "pty", "data": {}}}),
    ("query-chardev", {}),
    ("chardev-change", {"id": "a", "backend": RINGBUF}),
    ("ringbuf-write", {"device": "a", "data": "abc"}),
    ("ringbuf-read", {"device": "a", "size": 2}),
    ("chardev-send-break", {"id": "a"}),
    ("chardev-set-line", {"id": "a", "settings": {}}),
    ("chardev-get-line", {"id": "a"}),
    ("chardev-line-sequence", {"id": "a", "steps": [{"pause-us": 1}]}),
    ("chardev-window-size-changed", {"id": "a", "cols": 80, "rows": 24}),
    ("chardev-lend", {"id": "a", "to": "pty"}),
    ("query-chardev-details", {}),
    ("query-chardev-stats", {"id": "a"}),
    ("log-level-set", {"levels": "info,qmp=debug"}),
    ("chardev-return", {"id": "a"}),
    ("chardev-reopen-log", {}),
    ("chardev-remove", {"id": "a"}),
    ("chardev-add", {"id": "b", "backend": NULL}),
    ("getfd", {"fdname": "x"}),
    ("closefd", {"fdname": "x"}),
    ("add-fd", {"fdset-id": 3, "opaque": "o"}),
    ("query-fdsets", {}),
    ("remove-fd", {"fdset-id": 3}),
    ("chardev-add", {"id": "w", "backend": ABSENT}),
    ("chardev-retry", {"id": "w"}),
    ("chardev-add", {"id": "s", "backend": SOCKET}),
    ("getfd", {"fdname": "x"}),
    ("add_client", {"protocol": "s", "fdname": "x"}),
    ("query-yank", {}),
    ("yank", {"instances": [{"type": "chardev", "id": "s"}]}),
    ("device_add", {"driver": "bridge", "id": "d", "chardev": "b", "peer": "s"}),
    ("query-devices", {}),
    ("device_del", {"id": "d"}),
    ("chardev-add", {"id": "c", "backend": {"type": "console", "data": {"history": 4096}}}),
    ("getfd", {"fdname": "x"}),
    ("chardev-attach", {"id": "c", "fd": "x", "cols": 80, "rows": 24}),
    ("query-clients", {"id": "c"}),
    ("chardev-mark", {"id": "c", "name": "here"}),
    ("query-marks", {"id": "c"}),
    ("chardev-history", {"id": "c"}),
    ("device_add", {"driver": "listener", "id": "l", "console": "c", "host": "", "port": "0"}),
    ("query-devices", {}),
    ("object-add", {"qom-type": "secret", "id": "o", "data": "x"}),
    ("object-del", {"id": "o"}),
]
"""In this order; then all commands that can do without arguments."""


WITH_A_CLIENT = (
    *("chardev-kick", "chardev-give-write"),
    *("chardev-client-size", "chardev-client-break"),
)
"""They return nothing, and are tested where there are clients."""


class NoLog:
    levels = Levels()

    def set_levels(self, levels: Levels) -> None:
        self.levels = levels


async def reloaded() -> Reloaded:
    return Reloaded(added=("x",), changed=(), removed=())


async def test_what_each_handler_gives_fits_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both as a class, and as the schema tells it."""
    monkeypatch.setattr(Context, "take_passed_fd", connected_fd)
    schema = by_name(OURS)
    bare: list[tuple[str, dict[str, Any]]] = [
        (n, {}) for n, c in COMMANDS.items() if fits(schema, schema[n]["arg-type"], {})
    ]
    assert {name for name, _ in CALLS + bare} == set(COMMANDS) - set(WITH_A_CLIENT)
    async with open_registry() as registry:
        context = Context(Host(registry, on_quit=lambda reason: None, reload=reloaded, log=NoLog()))
        for name, arguments in CALLS + bare:
            result = COMMANDS[name].run(context, arguments)
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, Encoded):
                result = json.loads(result)
            assert fits(schema, schema[name]["ret-type"], result), name
            if COMMANDS[name].returns is not None:
                structure(COMMANDS[name].returns, result)
        context.host.fdsets.close_all()


async def test_the_schema_is_made_once_in_a_thread() -> None:
    command = COMMANDS["query-qmp-schema"]
    context: Any = None
    made = await command.run(context, {})
    assert await command.run(context, {}) is made
    assert json.loads(made) == OURS


# ---------------------------------------------------------------- clients


async def test_a_client_gets_it_in_one_message(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    async with open_service() as service:
        await service.listen_qmp(SocketOptions(addr=UnixAddress(path)))
        with trio.fail_after(5):
            async with await trio.open_unix_socket(path) as stream:
                for name in ("qmp_capabilities", "query-qmp-schema"):
                    await stream.send_all(json.dumps({"execute": name}).encode())
                lines = await read_until(stream, b'"name": "query-qmp-schema"')
                while not lines.endswith(b"\n"):
                    lines += await stream.receive_some()
    greeting, negotiated, answer = map(json.loads, lines.splitlines())
    assert "QMP" in greeting
    assert negotiated == {"return": {}}
    assert answer == {"return": OURS}


async def test_qmp_shell_starts_and_completes(tmp_path: Path) -> None:
    """QEMU's shell asks for the commands and completes a unique beginning at TAB."""
    path = tmp_path / "qmp.sock"
    master, slave = os.openpty()
    async with open_service() as service, trio.open_nursery() as nursery:
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(path))))
        run_shell = functools.partial(
            trio.run_process,
            [sys.executable, "-m", "qemu.qmp.qmp_shell", str(path)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "HOME": str(tmp_path), "TERM": "dumb"},
            check=False,
        )
        shell = await nursery.start(run_shell)
        os.close(slave)
        async with trio.lowlevel.FdStream(master) as terminal:
            with trio.fail_after(10):
                await read_until(terminal, b"(QEMU) ")
                await terminal.send_all(b"query-chardev-b\t\n")
                shown = await read_until(terminal, b'"name": "ringbuf"')
        assert b"query-chardev-backends" in shown
        shell.terminate()


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    shown = b""
    while end not in shown:
        chunk = await stream.receive_some()
        assert chunk, shown
        shown += chunk
    return shown
