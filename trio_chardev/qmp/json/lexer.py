"""Splits QMP input into tokens, as QEMU does, no matter how packets cut it.

QEMU's dialect of JSON: strings may have single quotes; a number or a word ends only when a byte
comes that can't be part of it. Input that fits no token is *stray*: the token so far and the byte
that broke it. After that everything is skipped up to a structural character, a control character
other than tab, or FE or FF, which UTF-8 never has; lexing resumes at that byte.

There is one regular expression for each kind of token. A match ends in one of the groups `string`,
`number`, `word` (a token), `cut` (the data ends within the token) and `stray`. A token that is cut
is kept, and the next data is matched after its *stem*, the shortest text that puts the expression
into the same state (`1` for `12345`, `"` for `"some text`). So every byte is matched a fixed number
of times, even when a token comes one byte at a time.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, cast

Kind: TypeAlias = Literal["mark", "string", "number", "word", "stray", "cut", "end"]
# The kind, the text, and the position at which the next token begins.
Token: TypeAlias = tuple[Kind, bytes, int]

MARKS: Final = b"{}[]:,"
# Bytes that always reset the decoder. Tab, CR and LF are white space outside strings.
RESETS: Final = frozenset({*range(0x20), 0xFE, 0xFF} - {*b"\t\r\n"})

_SPACE = re.compile(rb"[ \t\r\n]*+")
_SKIPPED = re.compile(rb"[^\x00-\x08\x0a-\x1f{}\[\]:,\xfe\xff]*+")


def _string(quote: bytes) -> re.Pattern[bytes]:
    body = rb"(?:[^\x00-\x1f\xfe\xff\\%b]++|\\[^\x00-\x1f\xfe\xff])*+" % quote
    end = rb"(?:(?P<string>%b)|(?P<cut>(?P<escape>\\)?+\Z)|(?P<stray>\\?+.))" % quote
    return re.compile(quote + body + end, re.DOTALL)


# There is no exponent after a bare zero: `0e1` is the number 0 and the word e. Each alternative
# says what may not follow a complete number, and then requires a byte that ends it.
_WHOLE = rb"(?:0|[1-9][0-9]*+)"
_NUMBER = re.compile(
    rb"(?P<number>-?+(?:0(?![0-9.])|[1-9][0-9]*+(?![.eE])|%(whole)b\.[0-9]++(?![eE])"
    rb"|(?:%(whole)b\.[0-9]++|[1-9][0-9]*+)[eE][+-]?+[0-9]++)(?=.))"
    rb"|%(begun)b(?:(?P<cut>(?:(?<=[eE+-])[0-9]++)?+\Z)|(?P<stray>.))"
    % {
        b"whole": _WHOLE,
        # The longest part of a number up to where an exponent's digits would begin.
        b"begun": rb"-?+(?:%b(?:\.(?:[0-9]++(?:[eE][+-]?+)?+)?+|[eE][+-]?+)?+)?+" % _WHOLE,
    },
    re.DOTALL,
)
_WORD = re.compile(rb"[a-z]++(?:(?P<cut>\Z)|(?P<word>))")
_DIGITS = re.compile(rb"([0-9])[0-9]+")

_PATTERNS: Final[dict[int, re.Pattern[bytes]]] = {
    **{quote: _string(bytes([quote])) for quote in b"\"'"},
    **dict.fromkeys(b"-0123456789", _NUMBER),
    **dict.fromkeys(b"abcdefghijklmnopqrstuvwxyz", _WORD),
}


class Lexer:
    """Finds one token at a time, and keeps what the end of the data cuts off."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._stem = b""
        self._recovering = False

    @property
    def idle(self) -> bool:
        """Does the next byte begin a token, whatever came before?"""
        return not (self._stem or self._recovering)

    @property
    def held(self) -> int:
        """How many bytes of an unfinished token are kept."""
        return len(self._held)

    def forget(self) -> None:
        """Drop the kept bytes: the token's kind and end will still be found, but not its text."""
        self._held.clear()

    def scan(self, data: bytes, pos: int) -> Token:
        """Find the token of *data* at *pos*, which must be 0 if the last token was cut.

        The kind is ``end`` if there is none, and ``cut`` if there is only a part of one; in both
        cases all of *data* is used up.
        """
        if self._stem:
            return self._resume(data)
        skipped = _SKIPPED if self._recovering else _SPACE
        pos = _end(skipped, data, pos)
        if self._recovering and pos < len(data):
            self._recovering = False
            pos = _end(_SPACE, data, pos)
        if pos == len(data):
            return "end", b"", pos
        pattern = _PATTERNS.get(data[pos])
        if pattern is not None:
            return self._token(pattern, data, pos, 0)
        text = data[pos : pos + 1]
        self._recovering = text not in MARKS
        return "stray" if self._recovering else "mark", text, pos + 1

    def _resume(self, data: bytes) -> Token:
        stem, self._stem = self._stem, b""
        kind, text, end = self._token(_PATTERNS[stem[0]], stem + data, 0, len(stem))
        return kind, text, end - len(stem)

    def _token(self, pattern: re.Pattern[bytes], data: bytes, pos: int, known: int) -> Token:
        """Match a token; the first *known* bytes are the stem of the bytes that are kept."""
        match = pattern.match(data, pos)
        assert match is not None  # the byte that chose the pattern is enough for `cut` or `stray`
        kind = cast("Kind", match.lastgroup)
        text = data[pos + known : match.end()]
        if kind == "cut":
            self._held += text
            self._stem = _stem_of(match)
            return kind, b"", match.end()
        if known:
            self._held += text
            text = bytes(self._held)
            self._held = bytearray()
        self._recovering = kind == "stray"
        return kind, text, match.end()


def _end(pattern: re.Pattern[bytes], data: bytes, pos: int) -> int:
    match = pattern.match(data, pos)
    return pos if match is None else match.end()


def _stem_of(match: re.Match[bytes]) -> bytes:
    if match.re is _NUMBER:
        return _DIGITS.sub(rb"\1", match[0])
    if match.re is _WORD:
        return match[0][:1]
    return match[0][:1] + (match["escape"] or b"")
