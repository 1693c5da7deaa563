"""Prints JSON as QEMU does: in ASCII, with a space after comma and colon, and CR LF at the end.

Characters outside 0x20..0x7E are escaped in upper-case hexadecimal, surrogates and non-characters
become U+FFFD, and a floating-point number is printed with 17 digits: 1.0 as ``1``, and infinity as
``inf``, which is not JSON.

The standard library's encoder, written in C, prints nearly the same. Its output is used unless it
shows one of the differences: an escape by number, DEL, or a float, which can only come after a
bracket or a space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

from trio_chardev.qmp.json import utf8

_standard = json.JSONEncoder(check_circular=False).encode
_FLOAT = re.compile(r"[\[ ]-?(?:[0-9]+[.e]|Inf|NaN)")
_SHORT = [(char, f"\\{name}") for char, name in zip('\\"\b\f\n\r\t', '\\"bfnrt', strict=True)]
_NUMBERED = re.compile(r"[^ -~]+")  # used after the short escapes are made


class Encoded(bytes):
    """Printed JSON. As a member of a message it is inserted as it is."""

    __slots__ = ()


def encode(value: object) -> bytes:
    """Print *value* in one line, with CR LF.

    The keys of a dict must be strings. Raises TypeError for what JSON can't express.
    """
    if type(value) is dict and type(result := value.get("return")) is Encoded:
        if len(value) == 1:
            return b'{"return": %b}\r\n' % result
        members = (
            b"%b: %b" % (encode(name)[:-2], item if type(item) is Encoded else encode(item)[:-2])
            for name, item in value.items()
        )
        return b"{%b}\r\n" % b", ".join(members)
    if not isinstance(value, float):
        try:
            text = _standard(value)
        except RecursionError:
            pass  # QEMU allows deeper nesting than Python's encoder
        else:
            if "\\u" not in text and "\x7f" not in text and not _FLOAT.search(text):
                return text.encode("ascii") + b"\r\n"
    return _spell(value, pretty=False)


def encode_pretty(value: object) -> bytes:
    """Print *value* in several lines, as a monitor with ``pretty=on`` does.

    Each level is indented by four spaces, each line ends in CR LF, and an empty object or list
    takes two lines.
    """
    if type(value) is dict and type(value.get("return")) is Encoded:
        value = {**value, "return": json.loads(value["return"])}
    return _spell(value, pretty=True)


class _Ready(str):
    """Text that is printed as it is."""

    __slots__ = ()


def _spell(value: object, *, pretty: bool) -> bytes:
    done: list[str] = []
    to_do: list[tuple[object, int]] = [(value, 0)]  # items with their depths; a stack
    while to_do:
        item, depth = to_do.pop()
        if isinstance(item, _Ready):
            done.append(item)
        elif isinstance(item, (dict, list, tuple)):
            begin, end = "{}" if isinstance(item, dict) else "[]"
            done.append(begin)
            to_do.append((_Ready(_line(depth, pretty) + end), depth))
            members = [(part, depth + 1) for part in _members(item, depth + 1, pretty)]
            to_do.extend(reversed(members))
        else:
            done.append(_scalar(item))
    return "".join(done).encode("ascii") + b"\r\n"


def _members(
    container: dict[str, object] | list[object] | tuple[object, ...], depth: int, pretty: bool
) -> Iterator[object]:
    line = _line(depth, pretty)
    before = line
    for item in container:
        if isinstance(container, dict):
            yield _Ready(f"{before}{_quoted(item)}: ")
            yield container[cast("str", item)]
        else:
            yield _Ready(before)
            yield item
        before = f",{line or ' '}"


def _line(depth: int, pretty: bool) -> str:
    return "\r\n" + "    " * depth if pretty else ""


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return f"{value:.17g}"
    if value is None or isinstance(value, int):
        return _standard(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _quoted(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"keys must be str, not {type(text).__name__}")
    for char, escape in _SHORT:
        text = text.replace(char, escape)
    return f'"{_NUMBERED.sub(_number, text)}"'


def _number(match: re.Match[str]) -> str:
    """Escape characters by number, with functions written in C: there may be millions of them."""
    chars = utf8.NOT_A_CHARACTER.sub(utf8.REPLACEMENT, match[0])
    return "\\u" + chars.encode("utf-16-be").hex("+", 2).upper().replace("+", "\\u")
