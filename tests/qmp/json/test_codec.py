"""The decoder: framing, recovery, limits, and that its two paths agree."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from tests.peers import need
from trio_chardev.qmp.json import codec
from trio_chardev.qmp.json.codec import (
    LONGEST_STRAY,
    QEMU,
    Decoder,
    Json,
    Limits,
    Malformed,
    Message,
    encode,
)
from trio_chardev.qmp.server.monitor_client import MESSAGE

COMMAND = b'{"execute": "query-chardev"}\r\n'
VALUE: Message = {"execute": "query-chardev"}
STRAY_FF = Malformed("JSON parse error, stray '\ufffd'")
EXPECTING = Malformed("JSON parse error, expecting value")

integers = st.integers(-(2**63), 2**64 - 1)
characters = st.characters(exclude_categories=["Cs"]).filter(
    lambda char: not (0xFDD0 <= ord(char) <= 0xFDEF or ord(char) & 0xFFFE == 0xFFFE)
)
# Not -0.0: it is printed as -0, which is the integer 0.
floats = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
scalars = st.none() | st.booleans() | integers | st.text(characters)
values = st.recursive(
    scalars | floats,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner),
    max_leaves=5,
)
fragments = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\r\n", b"\\", b'"', b"'"),
        *(
            b"0",
            b"-0",
            b"12",
            b"-",
            b".",
            b".5",
            b"e",
            b"E+",
            b"e-3",
            b"1e5",
            b"01",
            b"0e1",
            b"0.0",
        ),
        *(b"9223372036854775808", b"18446744073709551616", b"-9223372036854775809", b"1e999"),
        *(b"true", b"null", b"foo", b"NaN", b"Infinity", b"-Infinity", b"+", b"#", b"GET / "),
        *(b'"a"', b"'b'", b'"x":1', b'{"a":1}', b'{"a":1,"a":2}', b'{"a":', b'{"a":[', COMMAND),
        *(
            b"\\u0041",
            b"\\ud83d\\ude00",
            b"\\uD800",
            b"\\uDC00",
            b"\\uFFFE",
            b"\\u12",
            b"\\n",
            b"\\'",
        ),
        *(b"\x00", b"\x01", b"\x7f", b"\xfe", b"\xff", b"\xef\xbb\xbf", b"\xc3\xa9", b"\xc0\x80"),
        *(b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbf\xbe", b"\xf0\x9f\x98\x80"),
    ]
)
garbage = st.lists(fragments | st.binary(max_size=4), max_size=12).map(b"".join)
nearly_json = st.builds(
    lambda value, at, inserted, left_out: (
        (text := encode({"m": value}))[: at % len(text)]
        + inserted
        + text[at % len(text) + left_out :]
    ),
    *(values, st.integers(0, 200), fragments | st.just(b""), st.integers(0, 2)),
)
brief = settings(max_examples=40)


def decode(*pieces: bytes, limits: Limits = QEMU) -> list[Message]:
    decoder = Decoder(limits)
    return [message for piece in pieces for message in decoder.feed(piece)]


def bytewise(data: bytes, limits: Limits = QEMU) -> list[Message]:
    """By the slow path alone: the fast one takes only messages that are complete."""
    return decode(*(data[i : i + 1] for i in range(len(data))), limits=limits)


def json_error(text: str) -> Malformed:
    return Malformed(f"JSON parse error, {text}")


def test_messages_need_no_separator() -> None:
    assert decode(COMMAND.strip() * 3 + b"[1]" + COMMAND) == [VALUE] * 3 + [[1], VALUE]


def test_white_space_alone_is_no_message() -> None:
    assert decode(b"", b" \t\r\n", b"\n" * 70000) == []


@pytest.mark.parametrize(("text", "value"), [(b"4.5", 4.5), (b"12", 12), (b"null", None)])
def test_a_number_or_word_outside_of_braces_ends_with_the_next_byte(
    text: bytes, value: Json
) -> None:
    decoder = Decoder()
    assert decoder.feed(text) == []
    assert decoder.feed(b"\n") == [value]


@pytest.mark.parametrize("text", [b'"text"', b"'text'"])
def test_a_string_outside_of_braces_ends_with_its_quote(text: bytes) -> None:
    assert decode(text) == ["text"]


def test_braces_and_brackets_are_counted_apart() -> None:
    assert decode(b"{[}", b"]") == [EXPECTING]
    assert decode(b'{"a"]', COMMAND) == [json_error("missing : in object pair"), VALUE]


def test_what_closes_too_much_is_a_message_of_its_own() -> None:
    assert decode(b"}", b"],:", COMMAND) == [EXPECTING] * 4 + [VALUE]


def test_a_parse_error_waits_for_the_end_of_the_message() -> None:
    decoder = Decoder()
    assert decoder.feed(b'{"a" 1, nonsense, {"b":') == []
    assert decoder.feed(b"}}") == [json_error("missing : in object pair")]


def test_a_lexical_error_is_told_at_once_and_drops_the_message() -> None:
    decoder = Decoder()
    assert decoder.feed(b'{"execute":"a\x01') == [json_error("stray '\"a\x01'")]
    assert decoder.feed(b'b" 5 x, \xc3\xa9') == [EXPECTING, json_error("stray '\ufffd'")]
    assert decoder.feed(b' "skipped" \t" {') == []
    assert decoder.feed(b"}") == [{}]


def test_an_http_request_gets_qemus_four_errors() -> None:
    assert decode(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", COMMAND) == [
        json_error("stray 'G'"),
        json_error("stray 'H'"),
        EXPECTING,
        json_error("invalid keyword 'localhost'"),
        VALUE,
    ]


def test_a_long_stray_text_is_shown_in_part() -> None:
    shown = "'" + "x" * (LONGEST_STRAY - 1)
    assert decode(b"'" + b"x" * LONGEST_STRAY + b"\n") == [json_error(f"stray '{shown}'")]


def test_a_stray_text_ends_before_nul() -> None:
    assert decode(b"{\0", b'\n"ab\0') == [json_error("stray ''"), json_error("stray '\"ab'")]


@brief
@given(garbage)
def test_ff_behind_any_garbage_is_one_error_and_a_clean_decoder(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    *before, last = decoder.feed(b"\xff")
    assert len(before) <= 1  # a number or a word that the byte has ended
    assert isinstance(last, Malformed)
    assert last.desc.endswith("\ufffd'")
    assert decoder.feed(COMMAND) == [VALUE]


@brief
@given(garbage | nearly_json)
def test_every_split_gives_the_same(data: bytes) -> None:
    """Also the fast path (the data in one piece) and the slow one (bytewise) are the same."""
    whole = repr(decode(data))
    assert repr(bytewise(data)) == whole
    for i in range(1, len(data)):
        assert repr(decode(data[:i], data[i:])) == whole


@brief
@given(st.lists(values, max_size=3), st.integers(1, 30))
def test_what_was_encoded_is_decoded_in_any_packets(messages: list[Json], size: int) -> None:
    data = b"".join(encode({"m": message}) for message in messages)
    packets = [data[i : i + size] for i in range(0, len(data), size)]
    # 1.0 is printed as 1 and comes back as an int, as in QEMU: compare what is printed.
    expected = [encode({"m": message}) for message in messages]
    assert [encode(m) for m in decode(data)] == expected
    assert [encode(m) for m in decode(*packets)] == expected


@brief
@given(st.lists(values, max_size=3))
def test_json_of_the_standard_library_is_decoded(messages: list[Json]) -> None:
    data = b"".join(json.dumps({"m": message}).encode() for message in messages)
    expected = repr([{"m": message} for message in messages])
    assert repr(decode(data)) == repr(bytewise(data)) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 0e1}',
        '{"a": -0E1}',
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        '{"a": "\\uFFFF"}',
        '{"a": "\u007f\ufdd0"}',
        '{"a": "\t"}',
        '{"a": 18446744073709551616}',
        '{"a": -0}',
        "{'a': 'b'}",
        "[" * 2 + "{}" + "]" * 2,
    ],
)
def test_where_the_standard_scanner_differs_it_is_not_trusted(text: str) -> None:
    data = text.encode() + COMMAND
    assert repr(decode(data)) == repr(bytewise(data))


def test_packets_larger_than_a_piece() -> None:
    value = {"data": "x" * 200_000, "more": [1.5, None]}
    assert decode(COMMAND * 10_000 + encode(value) + COMMAND) == [*[VALUE] * 10_000, value, VALUE]


@pytest.mark.parametrize("inner", [1, 600, 1023])
def test_nesting_up_to_1024(inner: int) -> None:
    text = b'{"id": ' + b"[" * inner + b"]" * inner + b"}"
    [message] = decode(text)
    assert encode(message) == text + b"\r\n"  # comparing the values would recurse


@pytest.mark.parametrize("inner", [1024, 5000])
def test_deeper_nesting_is_one_error_for_the_whole_message(inner: int) -> None:
    text = b'{"id": ' + b"[" * inner + b"]" * inner + b"}"
    error = Malformed("JSON nesting depth limit exceeded")
    assert decode(text + COMMAND) == bytewise(text + COMMAND) == [error, VALUE]


def test_a_shallow_message_of_many_objects_is_not_deep() -> None:
    text = b'{"a": [' + b"{}, " * 2000 + b"[]]}"
    assert decode(text) == [{"a": [{}] * 2000 + [[]]}]


@pytest.fixture
def deep() -> Decoder:
    """A decoder within a message that is too deep."""
    decoder = Decoder()
    assert len(decoder.feed(b"[" * 2000)) == 1
    return decoder


def test_a_reset_byte_ends_the_skipping_of_a_message(deep: Decoder) -> None:
    assert deep.feed(b'[ "text') == []
    assert deep.feed(b"\xff" + COMMAND) == [STRAY_FF, VALUE]


def test_other_errors_in_a_skipped_message_are_quiet(deep: Decoder) -> None:
    assert deep.feed(b'+ x "text\n, 01 {') == []
    assert deep.feed(b"}" + b"]" * 2000 + COMMAND) == [VALUE]


def test_the_limits_are_qemus_unless_others_are_given() -> None:
    assert Limits(size=64 << 20, tokens=2 << 20) == QEMU


@pytest.mark.parametrize("limits", [QEMU, MESSAGE])
def test_what_the_fast_path_takes_at_once_exceeds_no_limit(limits: Limits) -> None:
    """It does not count."""
    assert min(limits.size, limits.tokens) >= codec._PIECE


def test_too_many_tokens() -> None:
    limits = Limits(tokens=9)
    error = Malformed("JSON token count limit exceeded")
    assert bytewise(b"[1,2,3,4]", limits) == [[1, 2, 3, 4]]
    assert bytewise(b"[1,2,3,4,5,[6,7]]" + COMMAND, limits) == [error, VALUE]


@pytest.mark.parametrize("data", [b'["' + b"x" * 95 + b'"]', b"[1" + b"0" * 95 + b"]", b"x" * 99])
def test_too_many_bytes_of_tokens(data: bytes) -> None:
    limits = Limits(size=90)
    error = Malformed("JSON token size limit exceeded")
    assert bytewise(data + b" " + COMMAND, limits) == [error, VALUE]
    assert decode(data + b" " + COMMAND, limits=limits) == [error, VALUE]


def test_what_is_too_long_is_not_kept() -> None:
    decoder = Decoder(Limits(size=1 << 20))
    chunk = b"x" * 65536
    errors = [message for _ in range(40) for message in decoder.feed(b'"' * (_ == 0) + chunk)]
    assert errors == [Malformed("JSON token size limit exceeded")]
    assert decoder._lexer.held == 0
    assert decoder.feed(b'"' + COMMAND) == [VALUE]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[socket.socket]:
    """A connection to the monitor of a real qemu-storage-daemon, not negotiated."""
    path = tmp_path / "qmp"
    chardev = f"socket,id=q,path={path},server=on,wait=on"
    argv = [need("qemu-storage-daemon"), "--chardev", chardev, "--monitor", "chardev=q"]
    with (
        subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.settimeout(5)
        try:
            while peer.connect_ex(str(path)) and process.poll() is None:
                time.sleep(0.005)
            yield peer
        finally:
            process.terminate()


def as_qemu_answers(message: Message) -> dict[str, object]:
    """The error for a message that is malformed, no object, or without `execute`."""
    if isinstance(message, dict):
        desc = "QMP input lacks member 'execute'"
        return {"id": message["id"], "error": {"class": "GenericError", "desc": desc}}
    desc = "QMP input must be a JSON object"
    if isinstance(message, Malformed):
        desc = message.desc
    return {"error": {"class": "GenericError", "desc": desc}}


def test_qemu_itself_answers_the_same(monitor: socket.socket) -> None:
    """Each line is a set of ids; what is wrong with them and how they are printed is QEMU's."""
    ids = [
        *(b"1", b"-0", b"-0.0", b"0.1", b"1.0", b"1e300", b"1E5", b"1e999", b"-1e999", b"1e-400"),
        *(b"9223372036854775808", b"18446744073709551616", b"-9223372036854775809", b"0e1", b"01"),
        *(b"-", b"1.", b"1e", b"1e+", b".5", b"+1", b"0x10", b"nul", b"True", b"NaN", b"z" * 1100),
        *(b"[1,]", b"[,1]", b"[1 2]", b"{1:2}", b"{null:2}", b"{[]:1}", b"{'a' 1}", b"{'a':}"),
        *(b"{'a':1,'a':2}", b"[}", b"{]", b"'a\\'b\"'", b'"\\x"', b'"\\u12"', b'"\\uD800"'),
        *(
            b'"\\ud83d\\ude00"',
            b'"\\ude00\\ud83d"',
            b'"\\ud83f\\udffe"',
            b'"\\u12\xc3\xa9\xc3\xa9"',
        ),
        *(b'"\xc3\xa9"', b'"\xc0\x80"', b'"\xc1\x81"', b'"\xe2\x82"', b'"\xed\xa0\x80"', b'"\x7f"'),
        *(
            b'"\xf4\x90\x80\x80"',
            b'"\xef\xb7\x90"',
            b'"\xf0\x9f\xbf\xbf"',
            b'"\t"',
            b'"\xfc\x84\x80',
        ),
    ]
    data = b"".join(b'{"id":%b}\xff' % text for text in ids)
    expected = b"".join(encode(as_qemu_answers(message)) for message in decode(data))
    received = b""
    end = b'{"id":"end"}'
    monitor.sendall(data + end)
    while b'"end"' not in received or not received.endswith(b"\n"):
        received += monitor.recv(65536)
    answers = received.split(b"\n", 1)[1].splitlines()[:-1]
    assert answers == expected.splitlines()
