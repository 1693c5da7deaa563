"""The fuzzing targets. A target takes bytes, makes an input of them, and raises for a finding.

The bytes are not the input but choices among what is nearly right: so hypothesis can shrink them,
coverage can guide them, and a finding is a line of hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import trio
import trio.testing

from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.table import BACKEND, KINDS, opener_of
from trio_chardev.cli.options import GRAMMAR, MonitorOptions
from trio_chardev.cli.words import parse_arguments
from trio_chardev.core.backend import Opener
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.keyval import HelpRequested, parse_keyval, structure_text
from trio_chardev.options.legacy import parse_legacy
from trio_chardev.options.members import (
    Array,
    Enum,
    IntRange,
    Object,
    Scalar,
    TaggedUnion,
    ValueType,
    describe,
)
from trio_chardev.options.structure import structure
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.client.conversation import Conversation
from trio_chardev.qmp.commands.chardev import BackendArguments
from trio_chardev.qmp.commands.context import Host
from trio_chardev.qmp.commands.table import COMMANDS, make_schema
from trio_chardev.qmp.json.codec import Decoder, Malformed, Message, encode
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

T = TypeVar("T")


class Source:
    """Makes choices until the bytes are used up; from then on always the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def below(self, limit: int) -> int:
        return int.from_bytes(self.bytes(1 if limit <= 256 else 2), "big") % limit

    def pick(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]


# ---------------------------------------------------------------- JSON

WORDS = ["", "x", "n", "r", "é", "\0", "\x7f", "\U0001f600", "on", "help", "a,b", "/dev/fdset/1"]
NUMBERS = [0, 1, -1, 64, 65536, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30]
FLOATS = [0.5, -1.5, 1e300, 5e-324, 1e17, 0.1]
FRAGMENTS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\r\n", b"\\", b'"', b"'", b"-", b"."),
    *(b"0", b"-0", b"01", b"0e1", b"1e999", b"1E+", b"18446744073709551616", b"true", b"nul"),
    *(b"NaN", b"Infinity", b'"a"', b"'b'", b'"a":', b'{"a":1,"a":2}', b"\\u00e9", b"\\ud83d"),
    *(b"\\ude00", b"\\uFFFE", b"\\u12", b"\x00", b"\x01", b"\x7f", b"\xfe", b"\xff", b"\xef\xbb"),
    *(b"\xc3\xa9", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"#", b"GET /"),
    b"9" * 400,
]
HUGE = [b"[" * 1100, b'{"a":' * 1030, b'"' + b"x" * 3000, b"]" * 1100]


def fragment(source: Source) -> bytes:
    return source.pick(HUGE if source.below(64) == 1 else FRAGMENTS)


def json_value(source: Source, depth: int = 3) -> Any:
    match source.below(8 if depth else 5):
        case 0:
            return source.pick(WORDS)
        case 1:
            return source.pick(NUMBERS)
        case 2:
            return source.pick([None, True, False])
        case 3:
            return source.pick(FLOATS)
        case 4:
            return source.bytes(source.below(9)).decode("latin-1")
        case 5:
            return [json_value(source, depth - 1) for _ in range(source.below(4))]
        case _:
            names = [source.pick(WORDS) for _ in range(source.below(4))]
            return {name: json_value(source, depth - 1) for name in names}


def mutated(source: Source, data: bytes) -> bytes:
    for _ in range(1 + source.below(3)):
        at = source.below(1 << 16) % (len(data) + 1)
        inserted = source.pick([b"", source.bytes(1), fragment(source)])
        data = data[:at] + inserted + data[at + source.below(4) :]
    return data


def json_text(source: Source) -> bytes:
    """Make whole messages, nearly whole ones and no messages."""
    text = b""
    while source.more and len(text) < 3000:
        match source.below(4):
            case 0:
                text += encode({"m": json_value(source)})
            case 1:
                text += mutated(source, encode({"m": json_value(source)}))
            case 2:
                text += fragment(source)
            case _:
                text += source.bytes(source.below(6))
    return text


def packets(source: Source, data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = source.pick([1000, 1, 2, 7, 64, 1 << 16])
        yield data[at : at + size]
        at += size


def decode(*data: bytes) -> list[Message]:
    decoder = Decoder()
    return [message for packet in data for message in decoder.feed(packet)]


def shown(message: Message) -> str:
    """Show *message* so that 1 and 1.0 differ where possible; deep values without recursion."""
    try:
        return repr(message)
    except RecursionError:
        return encode(message).decode()


def codec(data: bytes) -> None:
    """Check that fast path and slow path agree, at every split, and encoding is a fixpoint."""
    source = Source(data)
    text = json_text(source)
    messages = decode(text)
    whole = [shown(message) for message in messages]
    bytewise = decode(*(text[i : i + 1] for i in range(len(text))))
    assert [shown(message) for message in bytewise] == whole, text
    cut = decode(*packets(Source(data[::-1]), text))
    assert [shown(message) for message in cut] == whole, text
    for message in messages:
        if not isinstance(message, Malformed):
            check_fixpoint(message)


def check_fixpoint(value: Message) -> None:
    printed = encode({"m": value})
    once, *more = decode(printed)
    if isinstance(once, Malformed):  # perhaps twice: for "-" and for "inf"
        assert b"inf" in printed, printed  # an infinite number, which JSON does not have
        return
    assert not more, printed
    again = encode(once)
    assert again == printed or b"-0" in printed, printed
    assert encode(decode(again)[0]) == again, printed


# ---------------------------------------------------------------- the monitor

RESET = b"\xff"
NAMES = [name for name in COMMANDS if name != "quit"]  # after quit nothing is answered
ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"id": "n", "backend": {"type": "null", "data": {}}},
    {"id": "r", "backend": {"type": "ringbuf", "data": {"size": 64}}},
    {"id": "r"},
    {"device": "r", "data": "text" * 700},
    {"device": "r", "size": 64},
    {"fdname": "x"},
    {"enable": ["oob"]},
]
# Used where the arguments fit; else they are refused.
USUAL = [("chardev-add", 1), ("chardev-change", 2), ("chardev-remove", 3), ("query-chardev", 0)]
MAX_RINGBUF = 1 << 16


@attrs.define
class Script:
    """What a client sends, and the ids that must come back: in this order, and in any order."""

    data: bytearray = attrs.Factory(bytearray)
    in_order: list[int] = attrs.Factory(list)
    oob: list[int] = attrs.Factory(list)
    is_clean: bool = True
    """Does what comes next begin a message?"""

    def command(self, source: Source) -> None:
        name, at = source.pick([*USUAL, (source.pick(NAMES), source.below(len(ARGUMENTS)))])
        arguments = ARGUMENTS[at] if source.below(8) else {"x": json_value(source)}
        is_oob = source.below(5) == 1
        kind = "oob" if is_oob else "in order"
        ids = self.oob if is_oob else self.in_order
        id = [kind if self.is_clean else "perhaps", len(ids), json_value(source, 1)]
        execute = "exec-oob" if is_oob else "execute"
        message = {execute: name, "arguments": arguments, "id": id}
        if self.is_clean:
            ids.append(len(ids))
        self.data += encode(message)[: -2 if source.below(2) else None]

    def garbage(self, source: Source) -> None:
        command = encode({"execute": source.pick(NAMES), "id": "mutant"})
        junk = [mutated(source, command), fragment(source), source.bytes(source.below(20))]
        self.data += source.pick(junk)
        self.is_clean = False

    def reset(self) -> None:
        self.data += RESET
        self.is_clean = True


def script(source: Source) -> Script:
    made = Script()
    if source.below(4):
        arguments = {"enable": ["oob"] * source.below(2)}
        made.data += encode({"execute": "qmp_capabilities", "arguments": arguments})
    while source.more and len(made.data) < 50_000:
        match source.below(6):
            case 0 | 1 | 2:
                made.command(source)
            case 3:
                made.garbage(source)
            case _:
                made.reset()
    return made


def harmless_opener_of(options: BackendOptions) -> Opener:
    """Return openers of fakes, and of backends that touch nothing outside."""
    if isinstance(options, FakeOptions):
        return options.device.open
    is_small = isinstance(options, RingbufOptions) and options.size <= MAX_RINGBUF
    writes = options.logfile is not None or options.record is not None
    if not writes and (isinstance(options, NullOptions) or is_small):
        return opener_of(options)
    raise BackendError("not in a test")


class _Complaints(logging.Handler):
    """Keeps what is logged about bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def no_complaints() -> Iterator[None]:
    handler, logger = _Complaints(), logging.getLogger("trio_chardev")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    for record in handler.records:
        raise AssertionError(record.getMessage()) from (record.exc_info or (None, None))[1]


def monitor(data: bytes) -> None:
    """Check that each well-formed command after a reset gets one reply, and nothing is left."""
    make_schema()  # else the first who asks for it waits for a thread, which Trio does not see
    source = Source(data)
    room = source.pick([None, 100, 5000])
    made = script(source)
    sizes = Source(data[::-1])
    with no_complaints():
        output = trio.run(run_monitor, list(packets(sizes, bytes(made.data))), room)
    replies = [json.loads(line) for line in output.split(b"\r\n")[:-1]]
    assert output.endswith(b"\r\n")
    assert all({"QMP", "event", "return", "error"} & reply.keys() for reply in replies)
    for kind, expected in (("in order", made.in_order), ("oob", made.oob)):
        ids = [reply["id"][1] for reply in replies if is_id(reply.get("id"), kind)]
        assert (sorted(ids) if kind == "oob" else ids) == expected, (kind, bytes(made.data))


def is_id(id: object, kind: str) -> bool:
    return isinstance(id, list) and id[:1] == [kind]


async def run_monitor(incoming: list[bytes], room: int | None) -> bytes:
    """Return what a monitor answers."""
    device = FakeDevice("m", eager=True)
    async with (
        open_registry_with(harmless_opener_of) as registry,
        open_background_nursery() as nursery,
    ):
        await registry.add("m", FakeOptions(device=device))
        monitor = Monitor(registry["m"], COMMANDS, Host(registry, lambda reason: None))
        await nursery.start(monitor.run)
        device.room = room
        for packet in incoming:
            device.feed(packet)
            await trio.testing.wait_all_tasks_blocked()
        before = -1
        while before != len(device.sent):
            before = len(device.sent)
            if room is not None:
                device.make_room(room)
            await trio.testing.wait_all_tasks_blocked()
        client = monitor._client
        assert client is not None
        left = device.unread, len(monitor._out), len(client.backlog), len(client.queue)
        assert left == (0, 0, 0, 0)
        return bytes(device.sent)


# ---------------------------------------------------------------- options


def options(data: bytes) -> None:
    """Check that chardev-add's arguments are taken, or refused with an OptionsError."""
    source = Source(data)
    value = {"id": perhaps("x", source), "backend": fitting(source, BACKEND)}
    with contextlib.suppress(OptionsError):
        arguments = structure(BackendArguments, value)
        assert structure(BackendArguments, unstructure(arguments)) == arguments, value


def perhaps(value: object, source: Source) -> Any:
    """Return *value*, or something else."""
    return json_value(source) if source.below(32) == 1 else value


def fitting(source: Source, value_type: ValueType) -> Any:
    """Return what is most probably a value of that type."""
    match value_type:
        case Scalar("bool"):
            value: Any = source.pick([True, False])
        case Scalar("int") | IntRange():
            value = source.pick(NUMBERS)
        case Scalar("number"):
            value = source.pick(FLOATS)
        case Enum(values):
            value = source.pick(values)
        case Array(item):
            value = [fitting(source, item) for _ in range(source.below(3))]
        case Object(cls):
            value = fitting_object(source, cls)
        case TaggedUnion(variants=variants, tag=tag, is_flat=is_flat):
            name = source.pick(list(variants))
            inner = fitting_object(source, variants[name])
            name = perhaps(name, source)
            value = {tag: name, **inner} if is_flat else {tag: name, "data": inner}
        case _:
            value = source.pick(WORDS)
    return perhaps(value, source)


def fitting_object(source: Source, cls: type) -> dict[str, Any]:
    made = {
        member.name: fitting(source, member.value_type)
        for member in describe(cls)
        if source.below(4) == 1 or (not member.is_optional and source.below(16) != 1)
    }
    if source.below(64) == 1:
        made[source.pick(WORDS)] = json_value(source)
    return made


# ---------------------------------------------------------------- text

KEYS = sorted({name for kind in KINDS for name in GRAMMAR.options_of(kind)})
TOKENS = [
    *(",", ",,", "=", ".", ":", "@", "[", "]", "{", "}", '"', "no", "on", "off", "help", "?"),
    *("id=x", "mux=on", "tcp:", "udp:", "unix:", "telnet:", "mon:", "chardev:", "none", "stdio"),
    *("0", "-1", "0x", "0x10", "08", "1.5k", "1e5", ".5G", "9" * 5000, "٣", "²", "a.", "chardevs."),
    *("\0", "\n", "é", "\udcff", "inf", "nan", "1_000", "chardevs.0=a", "[::1]", "a." * 1100),
    *('{"id": "x", "backend": {"type": "null", "data": {}}}', '{"a":' * 1100, "[" * 1100),
]


def text(data: bytes) -> None:
    """Check that the command line is parsed, or refused with an OptionsError; or asks for help."""
    source = Source(data)
    given = source.pick(["", f"{source.pick([*KINDS])},id=x"])
    while source.more and len(given) < 10_000:
        given += source.pick([source.pick(TOKENS), f",{source.pick(KEYS)}=", source.pick(KEYS)])
    for read in (from_chardev, from_legacy, parse_keyval, from_monitor, from_words):
        with contextlib.suppress(OptionsError, HelpRequested):
            read(given)


def from_chardev(given: str) -> None:
    structure(BACKEND, GRAMMAR.parse(given).backend)


def from_legacy(given: str) -> None:
    legacy = parse_legacy(GRAMMAR, given, "x")
    if legacy is not None and legacy.spec is not None:
        structure(BACKEND, legacy.spec.backend)


def from_monitor(given: str) -> None:
    structure_text(MonitorOptions, given, "chardev")


def from_words(given: str) -> None:
    parse_arguments(given.split(","))


# ---------------------------------------------------------------- the client

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
STAMP = {"seconds": 1, "microseconds": 2}


def client(data: bytes) -> None:
    """Check that whatever a server says, each call ends once, and nothing else is raised."""
    source = Source(data)
    conversation, decoder = Conversation("The server"), Decoder()
    said = encode(GREETING) if source.below(8) else b""
    while source.more and len(said) < 20_000:
        said += server_message(source)
    calls = []
    with conversation.subscribe(3):
        for packet in packets(Source(data[::-1]), said):
            if conversation.end_reason is None:
                is_oob = source.below(2) == 1
                calls.append(conversation.submit("x", {}, is_oob=is_oob, fds=[]))
                conversation.begin()
            for message in decoder.feed(packet):
                conversation.take(message)
        conversation.end("over")
    assert conversation.end_reason is not None
    assert "\n" not in conversation.end_reason
    assert all(call.done.is_set() for call in calls)
    assert not conversation.begin()


def server_message(source: Source) -> bytes:
    id = source.pick([source.below(9), json_value(source)])
    stamp = source.pick([STAMP, {**STAMP, "seconds": source.pick(NUMBERS)}, json_value(source)])
    made: list[dict[str, Any]] = [
        {"return": json_value(source), "id": id},
        {"error": {"class": "GenericError", "desc": source.pick(WORDS)}, "id": id},
        {"event": "E", "timestamp": stamp, "data": source.pick([{}, json_value(source)])},
        {"return": {}},
        {"error": json_value(source)},
        GREETING,
    ]
    message = encode(source.pick(made))
    return message if source.below(8) else mutated(source, message)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec,
    "monitor": monitor,
    "options": options,
    "text": text,
    "client": client,
}
