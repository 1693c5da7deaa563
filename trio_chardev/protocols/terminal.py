"""What a terminal is asked, and what it answers (ECMA-48, DEC STD 070, xterm's ctlseqs).

A program asks the terminal where its cursor is (``ESC [ 6 n``) or what it is (``ESC [ c``), and the
terminal answers as if somebody had typed it. So an old question that is shown again must be left
out (`QueryFilter`), and of several terminals only one may answer (`AnswerSplitter`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

MAX_HELD = 8192  # bytes of a sequence whose end has not come

_CSI = re.compile(rb"\x1b\[([0-?]*)([ -/]*)([@-~])")
_STRING = re.compile(rb"\x1b([]P_^X])([^\x07\x18\x1a\x1b]*)(?:\x07|\x1b\\)")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[]P_^X][^\x07\x18\x1a\x1b]*\x1b?)?\Z")
_STARTS = re.compile(rb"[\x05\x1b]")

_ENQ = b"\x05"
_DECID = b"\x1bZ"
_SIZES_ASKED = frozenset({b"11", b"13", b"14", b"15", b"16", b"18", b"19", b"20", b"21"})
_SIZES_TOLD = frozenset({b"1", b"2", b"3", b"4", b"5", b"6", b"8", b"9"})
_MAY_ASK = re.compile(rb"(?:4|5|1[0-9]|2[12]|50|52|60|61|99);")
"""The OSC numbers whose commands can ask, if they are too long to be looked at whole."""

_QUERIES_ASKED = re.compile(
    rb"\x05|\x1b(?:Z|\[[0-?]*(?:[cntxu]|\$[pwu]|\*y)|\[>[0-9;]*q|\](?:[^\x07\x1b]*;)?\?|P[0-9;]*[$+]q)"
)
"""Finds what may be a query, quickly, in what goes to all terminals."""


def may_ask(data: bytes) -> bool:
    """Is there something in *data* that terminals may answer?"""
    return _QUERIES_ASKED.search(data) is not None


def ends_within(data: bytes) -> bool:
    """Does *data* end within a control sequence, so that something else would be taken as its rest?"""
    return _BEGUN.search(data) is not None


@attrs.frozen
class Sequence:
    """A whole control sequence."""

    kind: bytes
    """``[`` is CSI, ``]`` OSC, ``P`` DCS, ``_`` APC; other strings are ``^`` and ``X``."""
    body: bytes
    """The parameters of CSI, or the string."""
    final: bytes = b""
    """The intermediate bytes of CSI, and its final byte."""


def is_query(sequence: Sequence) -> bool:
    """Does a terminal answer *sequence*?"""
    body, final = sequence.body, sequence.final
    match sequence.kind:
        case b"[":
            return _is_csi_query(body, final)
        case b"]":
            fields = body.split(b";")
            return any(f == b"?" or f.endswith(b"=?") for f in fields) or body.startswith(
                (b"1337;Report", b"1337;Capabilities")
            )
        case b"P":
            return re.match(rb"[0-9;]*[$+]q", body) is not None
        case b"_":
            return body.startswith(b"G") and b"a=q" in body.partition(b";")[0]
    return False


def _is_csi_query(body: bytes, final: bytes) -> bool:
    private = body[:1] if body[:1] in (b"?", b">", b"=", b"<") else b""
    match final:
        case b"c":  # DA; with ? it sets Linux's cursor
            return private != b"?"
        case b"n":  # DSR; with > it sets a key mode of xterm
            return private != b">"
        case b"t":
            return not private and body.partition(b";")[0] in _SIZES_ASKED
        case b"x":  # DECREQTPARM
            return not private
        case b"u" | b"m" | b"S":  # the keyboard of kitty, key modes and graphics of xterm
            return private == b"?"
        case b"q":  # XTVERSION
            return private == b">"
    # DECRQM, DECRQPSR, DECRQTSR, DECRQCRA, DECRQUPSS, DECRQLP, DECRQDE
    return final in (b"$p", b"$w", b"$u", b"*y", b"&u", b"'|", b'"v')


def is_answer(sequence: Sequence) -> bool:
    """Is *sequence*, typed at a terminal, its answer to a query, and no key?"""
    if sequence.kind != b"[":
        return True
    body, final = sequence.body, sequence.final
    private = body[:1] in (b"?", b">", b"=")
    match final:
        case b"R":  # CPR; without parameters it is F3
            return b";" in body or private
        case b"c" | b"n" | b"$y" | b"*y" | b'"v' | b"x":
            return True
        case b"t":
            return body.partition(b";")[0] in _SIZES_TOLD
        case b"u" | b"S" | b"m":
            return private
    return False


@attrs.define
class _Splitter:
    """Splits bytes into text and whole control sequences; keeps its state between pieces."""

    held: bytes = b""
    """The beginning of a sequence whose end has not come."""
    _is_dropping: bool = False
    """Is it within a string that was too long to be looked at whole, and may ask?"""

    def split(self, data: bytes) -> Iterator[bytes | tuple[bytes, Sequence | None]]:
        """Give text, and sequences with their bytes; None stands for one without parameters."""
        data, self.held = self.held + data, b""
        at = 0
        if self._is_dropping:
            if (end := re.search(rb"[\x07\x18\x1a]|\x1b\\", data)) is None:
                self.held = data[-1:] if data.endswith(b"\x1b") else b""
                return
            self._is_dropping, at = False, end.end()
        while (found := _STARTS.search(data, at)) is not None:
            start = found.start()
            if start > at:
                yield data[at:start]
            if data.startswith(_ENQ, start):
                at = start + 1
                yield _ENQ, None
            elif data.startswith(_DECID, start):
                at = start + 2
                yield _DECID, None
            elif csi := _CSI.match(data, start):
                at = csi.end()
                yield csi[0], Sequence(b"[", csi[1], csi[2] + csi[3])
            elif string := _STRING.match(data, start):
                at = string.end()
                yield string[0], Sequence(string[1], string[2])
            elif _BEGUN.match(data, start):
                yield from self._hold(data[start:])
                return
            else:
                at = start + 1
                yield data[start:at]
        if at < len(data):
            yield data[at:]

    def _hold(self, begun: bytes) -> Iterator[bytes]:
        """Keep the beginning of a sequence, unless it is too long."""
        if len(begun) <= MAX_HELD:
            self.held = begun
        elif begun[1:2] == b"]" and _MAY_ASK.match(begun, 2) and not begun.startswith(b"\x1b]52;"):
            self._is_dropping = True
        else:
            yield begun

    def rest(self) -> bytes:
        """Return what is held back, and forget it."""
        held, self.held, self._is_dropping = self.held, b"", False
        return held


class QueryFilter:
    """Leaves out what makes a terminal answer; for bytes of long ago, in any pieces."""

    def __init__(self) -> None:
        self._splitter = _Splitter()

    @property
    def held(self) -> int:
        """How many bytes are kept back."""
        return len(self._splitter.held)

    def feed(self, data: bytes) -> bytes:
        """Return *data* without queries; the beginning of a sequence is kept back until its end."""
        shown = b""
        for item in self._splitter.split(data):
            if isinstance(item, bytes):
                shown += item
            elif item[1] is not None and not is_query(item[1]):
                shown += item[0]
        return shown

    def rest(self) -> bytes:
        """Return what was kept back, as what follows is not of long ago."""
        return self._splitter.rest()


class AnswerSplitter:
    """Tells answers of a terminal from what is typed at it."""

    def __init__(self) -> None:
        self._splitter = _Splitter()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Give the pieces of *data*, each with: is it an answer? A lone ESC is a key."""
        typed = b""
        for item in self._splitter.split(data):
            if isinstance(item, bytes):
                typed += item
            elif item[1] is None or not is_answer(item[1]):
                typed += item[0]
            else:
                if typed:
                    yield typed, False
                    typed = b""
                yield item[0], True
        if self._splitter.held == b"\x1b":
            typed += self._splitter.rest()
        if typed:
            yield typed, False

    def rest(self) -> bytes:
        """Return what was kept back."""
        return self._splitter.rest()
