"""The texts were recorded from QEMU 7.2."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from tests.samples import Address, Line, Unix
from trio_chardev.errors import OptionsError
from trio_chardev.options.keyval import (
    HelpRequested,
    Item,
    parse_bool,
    parse_json,
    parse_keyval,
    parse_number,
    parse_size,
    split_items,
    structure_text,
)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        ("a=1", [Item("a", "1")]),
        ("a=1,", [Item("a", "1")]),
        ("a=1,b=", [Item("a", "1"), Item("b", "")]),
        ("a=x,,y,b=,,,c=,,,,", [Item("a", "x,y"), Item("b", ","), Item("c", ",,")]),
        ("a=b=c", [Item("a", "b=c")]),
        ("server,nowait", [Item("server", "on", "server"), Item("wait", "off", "nowait")]),
        ("no,a", [Item("", "off", "no"), Item("a", "on", "a")]),
        (",=", [Item("", "on", ""), Item("", "")]),
    ],
)
def test_items_are_split_at_single_commas(text: str, items: list[Item]) -> None:
    assert list(split_items(text)) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("null,x", [Item("backend", "null"), Item("x", "on", "x")]),
        ("a,,b,c=1", [Item("backend", "a,b"), Item("c", "1")]),
        ("c=1,null", [Item("c", "1"), Item("null", "on", "null")]),
        (",a=1", [Item("backend", ""), Item("a", "1")]),
        ("nobody", [Item("backend", "nobody")]),
    ],
)
def test_only_the_first_item_may_leave_the_key_out(text: str, items: list[Item]) -> None:
    assert list(split_items(text, "backend")) == items


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(max_size=8))))
def test_any_value_can_be_written(pairs: list[tuple[str, str]]) -> None:
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in pairs)
    assert [(item.key, item.value) for item in split_items(text)] == pairs


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a=1,a=2", {"a": "2"}),
        ("id=a,id=b", {"id": "a"}),
        ("addr.type=unix,addr.data.path=/s", {"addr": {"type": "unix", "data": {"path": "/s"}}}),
        ("l.1=b,l.0=a", {"l": ["a", "b"]}),
        ("l.0.a=1,l.1.a=2,l.0.b=3", {"l": [{"a": "1", "b": "3"}, {"a": "2"}]}),
    ],
)
def test_dotted_keys_nest(text: str, tree: dict[str, Any]) -> None:
    assert parse_keyval(text) == tree


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1=x", "Invalid parameter '1'"),
        ("=x", "Invalid parameter ''"),
        ("a.=x", "Invalid parameter 'a.'"),
        ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a.b.c=2", "Parameters 'a.b.*' used inconsistently"),
        ("a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.1=x", "Parameter 'a.0' missing"),
        ("a.b.0=x,a.b.2=y", "Parameter 'a.b.1' missing"),
        (f"a.0=x,a.{'9' * 5000}=y", "Parameter 'a.1' missing"),
        (f"a{'.b' * 1100}=x", f"Parameter 'a{'.b' * 1100}' is too long"),
    ],
)
def test_keys_must_agree(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        parse_keyval(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "subject"), [("help", None), ("?", None), ("tcp,help", "tcp"), ("tcp,a=1,?", "tcp")]
)
def test_help_is_a_bare_word(text: str, subject: str | None) -> None:
    with pytest.raises(HelpRequested) as caught:
        parse_keyval(text, "type" if "," in text else None)
    assert caught.value.subject == subject
    assert parse_keyval("help=on") == {"help": "on"}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("server", "short-form boolean option 'server' deprecated\nPlease use server=on instead"),
        ("nowait", "short-form boolean option 'nowait' deprecated\nPlease use wait=off instead"),
        ("delay", "short-form boolean option 'delay' deprecated\nPlease use nodelay=off instead"),
        (
            "nodelay",
            "short-form boolean option 'nodelay' deprecated\nPlease use nodelay=on instead",
        ),
    ],
)
def test_other_bare_words_are_deprecated(text: str, warning: str) -> None:
    warnings: list[str] = []
    parse_keyval(text, warn=warnings.append)
    assert warnings == [warning]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("on", "yes", "true", "y")),
        *((word, False) for word in ("off", "no", "false", "n")),
    ],
)
def test_booleans_have_eight_words(text: str, value: bool) -> None:
    assert parse_bool("mux", text) is value


@pytest.mark.parametrize("text", ["1", "0", "ON", "", "on ", "enable"])
def test_other_words_are_no_booleans(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^Parameter 'mux' expects 'on' or 'off'$"):
        parse_bool("mux", text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("42", 42),
        ("0x1F", 31),
        ("010", 8),
        (" 5", 5),
        ("+5", 5),
        ("-5", -5),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_numbers_are_read_as_c_does(text: str, value: int) -> None:
    assert parse_number("to", text) == value


@pytest.mark.parametrize("text", ["", "abc", "08", "5 ", "1.5", "0x", "5x", "1_0", "\u0665"])
def test_numbers_are_whole(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^Parameter 'to' expects a number$"):
        parse_number("to", text)


def test_numbers_have_64_bits() -> None:
    for number in ("18446744073709551616", "9" * 5000, "-" + "9" * 5000):
        text = f"^Value '{number}' is too large for parameter 'to'$"
        with pytest.raises(OptionsError, match=text):
            parse_number("to", number)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("64", 64),
        (" +64", 64),
        ("64b", 64),
        ("1k", 1024),
        ("1.5K", 1536),
        (".5k", 512),
        ("1.k", 1024),
        ("2M", 2 << 20),
        ("1G", 1 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("15.5E", 31 << 59),
        ("0.0005k", 1),
        ("010", 10),
        ("1.0", 1),
        ("0x10", 16),
        ("0x1b", 27),
    ],
)
def test_sizes_have_suffixes_and_fractions(text: str, value: int) -> None:
    assert parse_size("size", text) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "1e3", "64kk", "64 ", ".k", "nan", "inf", "0x1k", "9" * 5000]
)
def test_other_sizes_are_refused_with_a_hint(text: str) -> None:
    with pytest.raises(OptionsError) as caught:
        parse_size("size", text)
    assert str(caught.value) == "Parameter 'size' expects a non-negative number below 2^64"
    assert caught.value.__notes__[0].startswith("Optional suffix k, M, G")


@pytest.mark.parametrize("text", ["16E", "99999999999999999999", "0x10000000000000000"])
def test_sizes_have_64_bits(text: str) -> None:
    with pytest.raises(OptionsError, match="is out of range for parameter 'size'"):
        parse_size("size", text)


# ---------------------------------------------------------------- whole options


@attrs.frozen(kw_only=True)
class Bridge:
    """Something with all that a key can name."""

    chardev: str
    pretty: bool = False
    level: int = 0
    lines: tuple[Line, ...] = ()
    addr: Address | None = None


def test_strings_become_what_the_members_hold() -> None:
    text = "c0,pretty=on,level=0x10,lines.0.device=d,lines.0.data-bits=7,lines.0.gain=1.5"
    assert structure_text(Bridge, text, "chardev") == Bridge(
        chardev="c0", pretty=True, level=16, lines=(Line(device="d", data_bits=7, gain=1.5),)
    )


def test_unions_are_named_by_their_type() -> None:
    text = "c0,addr.type=unix,addr.data.path=/s,addr.data.tight=off"
    assert structure_text(Bridge, text, "chardev").addr == Unix("/s", tight=False)


def test_a_json_object_is_taken_too() -> None:
    assert structure_text(Bridge, '{"chardev": "c0", "pretty": true}') == Bridge(
        chardev="c0", pretty=True
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pretty=on", "Parameter 'chardev' is missing"),
        ("x,foo=1", "Parameter 'foo' is unexpected"),
        ("x,pretty=1", "Parameter 'pretty' expects 'on' or 'off'"),
        ("x,pretty.a=1", "Parameters 'pretty.*' are unexpected"),
        ("x,chardev.a=1", "Parameters 'chardev.*' used inconsistently"),
        ("x,lines.0.gain=a", "Invalid parameter type for 'lines.gain', expected: number"),
        ("x,lines.0.parity=X,lines.0.device=d", "Parameter 'parity' does not accept value 'X'"),
        ("x,lines=1", "Invalid parameter type for 'lines', expected: array"),
        ("x,addr=unix", "Invalid parameter type for 'addr', expected: object"),
        ("x,addr.type.0=unix", "Invalid parameter type for 'addr.type', expected: string"),
        ("x,addr.type=bogus", "Parameter 'type' does not accept value 'bogus'"),
        ('{"chardev": 5}', "Invalid parameter type for 'chardev', expected: string"),
    ],
)
def test_errors_are_qemus(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        structure_text(Bridge, text, "chardev")
    assert str(caught.value) == error


@pytest.mark.parametrize("text", ['{"a": 5', "{]", "[" * 100_000])
def test_bad_json_is_one_line(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^JSON parse error, [^\n]+$"):
        parse_json(text)
