"""Builds a value from tokens, one at a time, without recursion.

QEMU parses a message only when its last token has come, and reports the first error. This parser
takes each token when it comes and keeps the first error, which gives the same result without
storing the tokens. It does not find the end of the message: that is found by counting braces and
brackets, even where they make no sense.
"""

from __future__ import annotations

import enum
import json
import re
from typing import Final, TypeAlias

from trio_chardev.qmp.json import utf8
from trio_chardev.qmp.json.lexer import Kind

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_WORDS: Final[dict[bytes, Json]] = {b"true": True, b"false": False, b"null": None}
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")
# The standard library's scanner. `strict=False` allows NUL, which may be spelt C0 80.
_unescape = json.JSONDecoder(strict=False).decode
# Plain text and correct escapes, of which only the UTF-8 remains to be checked. A regular
# expression, as C is faster and there may be millions of characters.
_FINE = re.compile(
    rb"""(?: [^\\]++ | \\["'\\/bfnrt] | \\u(?:
        [0-9A-CEa-ce]%(hex)b{3} | [dD][0-7]%(hex)b{2}
        | [dD][89ABab]%(hex)b{2}\\u[dD](?![fF]{2}[EFef])[C-Fc-f]%(hex)b{2}
        | [fF][0-9A-CEa-ce]%(hex)b{2} | [fF][dD][0-9A-CFa-cf]%(hex)b
        | [fF]{2}(?![fF][EFef])%(hex)b{2}
    ))*+"""
    % {b"hex": b"[0-9A-Fa-f]"},
    re.VERBOSE,
)
# QEMU puts a parse error into a buffer of 1024 bytes.
_MAX_ERROR = 1023


class ParseError(ValueError):
    """They: the text is not QEMU's JSON; ``str()`` follows "JSON parse error, "."""


class _Want(enum.Enum):
    """What may come next."""

    ITEM = enum.auto()  # a value, or a key
    ITEM_OR_END = enum.auto()  # the same, right after the opening brace or bracket
    COLON = enum.auto()
    SEPARATOR = enum.auto()  # a comma, or the end of the container


class Parser:
    """Parses one value. `value` is valid when the message is complete and `error` is None."""

    def __init__(self) -> None:
        self.value: Json = None
        self.error: str | None = None
        self._want = _Want.ITEM
        self._open: list[dict[str, Json] | list[Json]] = []
        # For each open container the key whose value has begun; None in a list, or where a
        # key comes next.
        self._keys: list[str | None] = []

    def push(self, kind: Kind, text: bytes) -> None:
        """Take the next token. After an error tokens are ignored."""
        if self.error is not None:
            return
        try:
            self._push(kind, text)
        except ParseError as error:
            self.error = str(error)[:_MAX_ERROR]
            self._open.clear()

    def _push(self, kind: Kind, text: bytes) -> None:
        if self._want is _Want.SEPARATOR:
            self._separator(text)
        elif self._want is _Want.COLON:
            if text != b":":
                raise ParseError("missing : in object pair")
            self._want = _Want.ITEM
        elif kind != "mark":
            self._complete(_scalar(kind, text))
        elif text == b"{":
            self._begin({})
        elif text == b"[":
            self._begin([])
        elif self._want is _Want.ITEM_OR_END and text == self._closer():
            self._end()
        else:
            raise ParseError("expecting value")

    def _separator(self, text: bytes) -> None:
        if text == self._closer():
            self._end()
        elif text == b",":
            self._want = _Want.ITEM
        else:
            kind = "dict" if isinstance(self._open[-1], dict) else "list"
            raise ParseError(f"expected separator in {kind}")

    def _closer(self) -> bytes:
        return b"}" if isinstance(self._open[-1], dict) else b"]"

    def _begin(self, container: dict[str, Json] | list[Json]) -> None:
        self._open.append(container)
        self._keys.append(None)
        self._want = _Want.ITEM_OR_END

    def _end(self) -> None:
        self._keys.pop()
        self._complete(self._open.pop())

    def _complete(self, value: Json) -> None:
        """Put a complete value into its container."""
        if not self._open:
            self.value = value
            return
        self._want = _Want.SEPARATOR
        container = self._open[-1]
        key = self._keys[-1]
        if isinstance(container, list):
            container.append(value)
        elif key is None:
            # QEMU parses a key like any value, so it reports an error within it first.
            if not isinstance(value, str):
                raise ParseError("key is not a string in object")
            self._keys[-1] = value
            self._want = _Want.COLON
        elif key in container:
            raise ParseError("duplicate key")
        else:
            container[key] = value
            self._keys[-1] = None


def integer(text: str) -> int | float:
    """Convert digits without fraction or exponent: to an int if int64 or uint64 holds it."""
    if len(text) < 19:
        return int(text)
    if len(text) <= 20 and -(1 << 63) <= (number := int(text)) < 1 << 64:
        return number
    return float(text)


def _scalar(kind: Kind, text: bytes) -> Json:
    if kind == "string":
        return _string(text)
    if kind == "word":
        if text not in _WORDS:
            raise ParseError(f"invalid keyword '{text.decode()}'")
        return _WORDS[text]
    number = text.decode()
    return integer(number) if number.removeprefix("-").isdigit() else float(number)


def _string(raw: bytes) -> str:
    """The value of a string token, quotes included."""
    if b"\\" not in raw:
        return _text(raw[1:-1])
    text = utf8.decode(_standard_spelling(raw))
    if text is not None:
        try:
            value = _unescape(text)
        except ValueError:
            pass
        else:
            # The scanner lets lone surrogates and non-characters pass.
            assert isinstance(value, str)
            if not utf8.NOT_A_CHARACTER.search(value):
                return value
    raise _find_error(raw)


def _standard_spelling(raw: bytes) -> bytes:
    """Respell a string token with double quotes and without ``\\'``, which standard JSON lacks."""
    inner = raw[1:-1].replace(
        rb"\\", b"\0"
    )  # no token contains NUL; after this each backslash left begins another escape
    inner = inner.replace(rb"\'", b"'")
    if raw.startswith(b"'"):
        inner = inner.replace(rb"\"", b'"').replace(b'"', rb"\"")
    return b'"%b"' % inner.replace(b"\0", rb"\\")


def _find_error(raw: bytes) -> ParseError:
    """Find the first error in a string token."""
    pos, end = 1, len(raw) - 1
    try:
        while pos < end:
            fine = _FINE.match(raw, pos, end)
            assert fine is not None  # it also matches nothing at all
            _text(fine[0])
            pos = fine.end()
            if pos < end:
                pos = _check_escape(raw, pos)
    except ParseError as error:
        return error
    raise AssertionError(f"{raw!r} is a string")


def _text(raw: bytes) -> str:
    text = utf8.decode(raw)
    if text is None:
        raise ParseError("invalid UTF-8 sequence in string")
    return text


def _check_escape(raw: bytes, pos: int) -> int:
    """Return where the escape at *pos* ends. Raises ParseError if it is invalid."""
    if raw[pos + 1] in b"\"'\\/bfnrt":
        return pos + 2
    if raw[pos + 1] != ord("u"):
        raise ParseError("invalid escape sequence in string")
    code, end = _hex(raw, pos + 2), pos + 6
    if 0xD800 <= code < 0xDC00 and raw.startswith(b"\\u", end):
        low = _hex(raw, end + 2)
        if 0xDC00 <= low < 0xE000:
            code, end = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF), end + 6
    if code < 0 or utf8.NOT_A_CHARACTER.match(chr(code)):
        shown = utf8.decode_c_string(raw[pos:end])
        raise ParseError(f"{shown} is not a valid Unicode character")
    return end


def _hex(raw: bytes, pos: int) -> int:
    match = _HEX.match(raw, pos)
    return int(match[0], 16) if match else -1
