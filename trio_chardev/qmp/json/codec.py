"""QMP's wire format: bytes to JSON values and back. No I/O.

Messages need no separator: one ends where its braces and its brackets balance, each counted
separately, or where there is one too many. After malformed input the decoder goes on as QEMU
does, so that clients can recover in the same way: a byte FF always gives one error and then a
clean decoder.

Nearly every message is an object in ASCII that comes whole. Such messages take a fast path: the
standard library's scanner, which is written in C and many times faster than the lexer and parser
here. All that it accepts has to mean the same to QEMU. It is more liberal about repeated keys, NaN
and Infinity, exponents behind a bare zero, numbers beyond 64 bits and deep nesting: hooks and
checks reject those. Text with characters that QEMU rejects is not given to it. Whatever it does
not accept, the lexer reads instead, up to the end of that message.

`Decoder.feed_some` works through a bounded portion of the data, whatever it is, so that other
tasks can run between two portions.

There is one deliberate difference from QEMU: a message that is too deep, too long or has too many
tokens gives one error, and the rest of it is skipped. QEMU loses count, and answers each left-over
brace and bracket with one more error.
"""

from __future__ import annotations

import json
import re
from collections.abc import MutableSequence
from typing import Any, Final, TypeAlias

import attrs

from trio_chardev.qmp.json import utf8
from trio_chardev.qmp.json.encoder import Encoded, encode, encode_pretty
from trio_chardev.qmp.json.lexer import RESETS, Kind, Lexer
from trio_chardev.qmp.json.parser import Json, Parser, integer
from trio_chardev.qmp.server.quota import TOKEN_COST

__all__ = ["Decoder", "Encoded", "Json", "Malformed", "Message", "encode", "encode_pretty"]

MAX_NESTING: Final = 1024
LONGEST_STRAY: Final = 16 << 10  # bytes of a stray token that an error shows

_TOO_LONG: Final = "JSON token size limit exceeded"

PORTION: Final = 96  # messages of the fast path, or tokens of the lexer
# The fast path looks at this many bytes for a portion, and then at this many for one message. That
# bounds the cost of a vain attempt, and no limit but that of nesting can be exceeded within it.
_WINDOW: Final = 4 << 10
_PIECE: Final = 64 << 10

_OPENING: Final = b"{ \t\r\n"  # how ordinary messages begin, perhaps with white space
_SEPARATORS: Final = (" ", "\t", "\r", "\n")
_LONGEST_CUT: Final = len("\\uDEAD\\uBEE")  # the longest unfinished escape in a string
_SPACE = re.compile(r"[ \t\r\n]*+")
# Surrogates and non-characters begin with D or F; anything but a hexadecimal digit is an error.
_RISKY_ESCAPE = re.compile(rb"\\u[^0-9A-CEa-ce]")


@attrs.frozen
class Limits:
    """The limits of one message; the defaults are QEMU's."""

    size: int = 64 << 20
    """Bytes of its tokens, not counting white space."""

    tokens: int = 2 << 20
    """At least as many as the fast path takes bytes at once, because it does not count tokens."""


QEMU: Final = Limits()


@attrs.frozen
class Malformed:
    """They: this was not a message. *desc* is the text of a GenericError, in QEMU's words."""

    desc: str


Message: TypeAlias = "Json | Malformed"


class Decoder:
    """Finds the messages of one connection. *limits* bound what it keeps."""

    def __init__(self, limits: Limits = QEMU) -> None:
        self._limits = limits
        self._lexer = Lexer()
        self._frame = _Frame()
        self.effort = 0
        """How many messages of the fast path and tokens of the lexer have been found so far."""

    @property
    def held(self) -> int:
        """About how many bytes are kept for an unfinished message."""
        return self._lexer.held + self._frame.cost

    def feed(self, data: bytes) -> list[Message]:
        """Give the messages that *data* completes, in order. Raises nothing.

        A message may be any JSON value, not only an object. A number or a word outside of
        braces ends only with the byte after it.
        """
        messages: list[Message] = []
        pos = 0
        while pos < len(data):
            pos = self.feed_some(data, pos, messages)
        return messages

    def feed_some(self, data: bytes, pos: int, messages: MutableSequence[Any]) -> int:
        """Decode a portion of *data* from *pos* on into *messages*; return where it ends."""
        if data[pos] in _OPENING and self._frame.empty and self._lexer.idle:
            before = len(messages)
            end = _take_ordinary(data, pos, messages)
            if end > pos:
                self.effort += len(messages) - before
                return end
        return self._take_one(data, pos, messages)

    def _take_one(self, data: bytes, pos: int, messages: MutableSequence[Any]) -> int:
        """Go on to the end of a message, a portion or *data*, and return where that is."""
        for _ in range(PORTION):
            self.effort += 1
            kind, text, pos = self._lexer.scan(data, pos)
            if kind == "end":
                break
            if kind == "cut":
                self._check_held(messages)
                break
            if kind == "stray":
                self._stray(text, messages)
            else:
                self._token(kind, text, messages)
            if self._frame.empty:
                break
        return pos

    def _token(self, kind: Kind, text: bytes, messages: MutableSequence[Any]) -> None:
        frame = self._frame
        closed = frame.count(kind, text)
        if not frame.skipping:
            exceeded = frame.exceeded(self._limits)
            if exceeded:
                messages.append(Malformed(exceeded))
                frame.skip()
            else:
                frame.parser.push(kind, text)
                if closed:
                    messages.append(frame.message())
        if closed:
            self._frame = _Frame()

    def _check_held(self, messages: MutableSequence[Any]) -> None:
        """Stop keeping an unfinished token that is too long, or whose message is skipped."""
        frame = self._frame
        if not frame.skipping and frame.size + self._lexer.held >= self._limits.size:
            messages.append(Malformed(_TOO_LONG))
            frame.skip()
        if frame.skipping:
            self._lexer.forget()

    def _stray(self, text: bytes, messages: MutableSequence[Any]) -> None:
        if self._frame.skipping:
            if text[-1] not in RESETS:
                return
            text = text[-1:]  # the rest may have been forgotten
        shown = utf8.decode_c_string(text[:LONGEST_STRAY])
        messages.append(Malformed(f"JSON parse error, stray '{shown}'"))
        self._frame = _Frame()


@attrs.define(repr=False)
class _Frame:
    """The message that is being collected."""

    parser: Parser = attrs.Factory(Parser)
    braces: int = 0
    brackets: int = 0
    tokens: int = 0
    size: int = 0
    skipping: bool = False

    @property
    def empty(self) -> bool:
        return not (self.tokens or self.skipping)

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes."""
        return 0 if self.skipping else self.size + TOKEN_COST * self.tokens

    def skip(self) -> None:
        """Skip the rest of the message, and keep nothing of it."""
        self.skipping = True
        self.parser = Parser()

    def count(self, kind: Kind, text: bytes) -> bool:
        """Count a token; is it the last of the message?"""
        self.tokens += 1
        self.size += len(text)
        if kind == "mark":
            self.braces += (text == b"{") - (text == b"}")
            self.brackets += (text == b"[") - (text == b"]")
        return not (self.braces or self.brackets) or self.braces < 0 or self.brackets < 0

    def exceeded(self, limits: Limits) -> str | None:
        """The error for the first exceeded limit, in QEMU's order; None if all are kept."""
        if self.size >= limits.size:
            return _TOO_LONG
        if self.tokens > limits.tokens:
            return "JSON token count limit exceeded"
        if self.braces + self.brackets > MAX_NESTING:
            return "JSON nesting depth limit exceeded"
        return None

    def message(self) -> Message:
        if self.parser.error is not None:
            return Malformed(f"JSON parse error, {self.parser.error}")
        return self.parser.value


def _take_ordinary(data: bytes, pos: int, messages: MutableSequence[Any]) -> int:
    """Take complete ordinary messages at *pos*; return where they end, which may be *pos*."""
    for size, most in ((_WINDOW, PORTION), (_PIECE, 1)):
        window = data[pos : pos + size]
        if not window.isascii() or (b"\\u" in window and _RISKY_ESCAPE.search(window)):
            break
        taken, is_cut = _scan_ordinary(window.decode("ascii"), most, messages)
        if taken or not is_cut or len(window) < size:
            return pos + taken
    return pos


def _scan_ordinary(text: str, most: int, messages: MutableSequence[Any]) -> tuple[int, bool]:
    """Take up to *most* ordinary messages from the beginning of *text*.

    Return where they end, and whether an ordinary message that *text* cuts off may follow.
    """
    pos = 0
    try:
        for _ in range(most):
            if text.startswith(_SEPARATORS, pos):
                pos = _end_of_space(text, pos)
            if not text.startswith("{", pos):
                break
            value, end = _scan(text, pos)
            if end - pos > MAX_NESTING and _may_be_deep(text, pos, end):
                break
            messages.append(value)
            pos = end
    except json.JSONDecodeError as exc:
        is_at_end = exc.pos > len(text) - _LONGEST_CUT
        return pos, is_at_end or exc.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        pass
    return pos, False


def _end_of_space(text: str, pos: int) -> int:
    match = _SPACE.match(text, pos)
    return pos if match is None else match.end()


def _may_be_deep(text: str, start: int, end: int) -> bool:
    return text.count("{", start, end) + text.count("[", start, end) > MAX_NESTING


def _members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate key")
    return members


def _float(text: str) -> float:
    if text.lstrip("-")[:2] in ("0e", "0E"):
        raise ValueError("to QEMU these are two tokens")
    return float(text)


def _constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


_scan = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=integer,
    parse_float=_float,
    parse_constant=_constant,
).raw_decode
