"""What a crowd sees and types, so that each byte says where it belongs. Without I/O.

What is printed are numbered lines of one size, so that each reader can say where in the output it
is. Each byte that is typed says who has typed it, as what several type comes mixed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random
from typing import Final

import attrs

from tests.soak.console import Flow, LostOrRepeatedError

LINE: Final = 80  # bytes of a line
NUMBER: Final = 11  # bytes of its beginning, an L and digits
BLOCK: Final = 256  # lines that are made at once
PRINTED_WINDOW: Final = 40_000  # bytes; with one piece less than the smallest history has
TYPED_WINDOW: Final = 1 << 16  # bytes
FILL: Final = ("caf\u00e9 \x1b[1mbold\x1b[0m " + "abcdefghijk" * 9).encode()
"""What lines are filled with: characters and sequences that must not be cut by a line for people."""
IN_BAND: Final = b"\r\n[trio-chardev: "
IN_BAND_END: Final = b"]\r\n"
MAX_IN_BAND: Final = 300  # bytes
SKIPPED: Final = re.compile(r"skipped (\d+) bytes")
SLOTS: Final = (4, 5, 6, 7, 10, 11, 12, 13, 14)
KEPT_SLOTS: Final = 3  # one is being released, its helper may be cut, and then another comes
"""The upper halves of bytes that no protocol and no terminal takes for its own."""
RUNS: Final = re.compile(
    b"|".join(
        b"[%s-%s]+" % (re.escape(bytes([s << 4])), re.escape(bytes([s << 4 | 15]))) for s in SLOTS
    ),
    re.DOTALL,
)


@lru_cache(maxsize=256)
def _block(number: int) -> bytes:
    lines = range(number * BLOCK, (number + 1) * BLOCK)
    room = LINE - NUMBER - 1
    return b"".join(b"L%010d%s\n" % (i, FILL[: room - i % 2] + b"." * (i % 2)) for i in lines)


def text(start: int, size: int) -> bytes:
    """Return what is printed from position *start* on."""
    first, offset = divmod(start, BLOCK * LINE)
    last = (start + size) // (BLOCK * LINE)
    return b"".join(map(_block, range(first, last + 1)))[offset : offset + size]


@attrs.define
class Printed(Flow):
    """What the device prints; `received` is how far the history was read by cursor."""

    def take(self, size: int) -> bytes:
        start = self.sent
        self.sent += size
        return text(start, size)

    def check(self, data: bytes) -> None:
        if data != text(self.received, len(data)) or self.received + len(data) > self.sent:
            raise LostOrRepeatedError(f"{self.name}: not what was printed at {self.received}")
        self.received += len(data)
        self.moved.unpark_all()

    @property
    def has_room(self) -> bool:
        return not self.is_paused and self.sent - self.received < PRINTED_WINDOW


@attrs.define(eq=False)
class View:
    """What one client sees: consecutive from its first line on, but for what it is told of."""

    name: str
    is_told: bool
    """Is it told in band what it has not got?"""
    may_skip: bool = True
    position: int | None = None
    """Where in the output it is; None until its first line has come."""
    skipped: int = 0
    """Bytes that it has not got, as it was told or has seen."""
    seen: int = 0
    """Bytes of the output that it has got, and that are right."""
    last_told: str = ""
    _buffer: bytes = b""
    _gap_from: int | None = None

    def feed(self, data: bytes) -> None:
        """Check what has come. Raises LostOrRepeatedError."""
        self._buffer += data
        while self._buffer and self._step():
            pass

    def _step(self) -> bool:
        """Check some; return False if more has to come first."""
        if self._buffer[:1] == b"\r":
            return self._hear()
        if self.position is None:
            return self._find_line()
        size = self._buffer.find(b"\r")
        piece = self._buffer if size < 0 else self._buffer[:size]
        expected = text(self.position, len(piece))
        if piece == expected:
            self._accept(len(piece))
        else:
            good = next(i for i, (a, b) in enumerate(zip(piece, expected, strict=True)) if a != b)
            self._accept(good)
            self._note_gap()
        return True

    def _accept(self, size: int) -> None:
        assert self.position is not None
        self.position += size
        self.seen += size
        self._buffer = self._buffer[size:]

    def _note_gap(self) -> None:
        """Look for the line that comes instead of what should."""
        assert self.position is not None
        if self.is_told or not self.may_skip:
            raise self._wrong("comes without a word")
        if self._buffer[:1] != b"L":  # the line is another, whose first digits are the same
            back = self.position % LINE
            if not 0 < back < NUMBER:
                raise self._wrong("comes, which is no line")
            self.position -= back
            self.seen -= back
            self._buffer = text(self.position, back) + self._buffer
        self._gap_from, self.position = self.position, None

    def _find_line(self) -> bool:
        if self._buffer[:1] == b"L":
            if len(self._buffer) < NUMBER:
                return False
            self.position = int(self._buffer[1:NUMBER]) * LINE
            if self._gap_from is not None:
                if self.position <= self._gap_from:
                    raise self._wrong(f"comes again, after {self._gap_from}")
                self.skipped += self.position - self._gap_from
                self._gap_from = None
            return True
        assert self._gap_from is None
        found = re.search(b"[\rL]", self._buffer)
        self._buffer = self._buffer[found.start() :] if found else b""
        return True

    def _hear(self) -> bool:
        """Take a line for people."""
        if not self.is_told:
            raise self._wrong("comes, to one who is told nothing")
        end = self._buffer.find(IN_BAND_END)
        if end < 0:
            if len(self._buffer) > MAX_IN_BAND or not _fits(self._buffer, IN_BAND):
                raise self._wrong("comes, which is no line for people")
            return False
        if not self._buffer.startswith(IN_BAND):
            raise self._wrong("comes, which is no line for people")
        self.last_told = self._buffer[len(IN_BAND) : end].decode()
        self._buffer = self._buffer[end + len(IN_BAND_END) :]
        if skipped := SKIPPED.fullmatch(self.last_told):
            self.skipped += int(skipped[1])
            if self.position is not None:
                self.position += int(skipped[1])
        return True

    def _wrong(self, what: str) -> LostOrRepeatedError:
        return LostOrRepeatedError(
            f"{self.name}: {self._buffer[:60]!r} {what}; it was at {self.position}, "
            f"{self.skipped} skipped, told last: {self.last_told}"
        )


def _fits(data: bytes, prefix: bytes) -> bool:
    size = min(len(data), len(prefix))
    return data[:size] == prefix[:size]


@attrs.define(eq=False)
class Typing:
    """What one client types while it may."""

    slot: int
    pattern: bytes
    sent: int = 0
    received: int = 0
    former: Typing | None = None
    """What was typed in this slot before."""
    is_cut: bool = False
    """May what was in transit be lost, as he was kicked, has left or may not type any more?"""

    def take(self, size: int) -> bytes:
        """Return the next bytes to type."""
        data = self._at(self.sent, size)
        self.sent += size
        return data

    def _at(self, start: int, size: int) -> bytes:
        start %= len(self.pattern)
        return (self.pattern * (2 + size // len(self.pattern)))[start : start + size]

    def explain(self, data: bytes) -> str:
        """Say what *data* is, if it is of this typing or of the one before in its slot."""
        at = (self.pattern * 2).find(data[:16])
        if at < 0:
            return "" if self.former is None else self.former.explain(data)
        due = (at - self.received) % len(self.pattern)
        return (
            f"; that is {due} bytes behind the last of one with {self.sent} typed, "
            f"{self.received} received, cut: {self.is_cut}"
        )

    def check(self, data: bytes) -> None:
        """Check what the device has got. Raises LostOrRepeatedError."""
        expected = self._at(self.received, len(data))
        if data != expected or self.received + len(data) > self.sent:
            raise LostOrRepeatedError(
                f"typist {self.slot}: {self.sent} typed, {self.received} received, "
                f"cut: {self.is_cut}, then {data[:32].hex()}, not {expected[:32].hex()}"
                f"{self.explain(data)}"
            )
        self.received += len(data)


@attrs.define
class Typed(Flow):
    """What all type; `sent` and `received` count what must come, so not what was cut."""

    typings: dict[int, Typing] = attrs.Factory(dict)
    former: dict[int, Typing] = attrs.Factory(dict)
    """What was typed in each slot before."""
    total: int = 0
    """Bytes that have come."""
    _typing_now: int = 0

    @property
    def has_room(self) -> bool:
        return not self.is_paused and self.sent - self.received < TYPED_WINDOW

    def begin(self, chance: Random, *, is_needed: bool = False) -> Typing | None:
        """Return a typing of a slot that is free, if there is one.

        Some are left for those that are needed, so that what was cut can be released.
        """
        free = [slot for slot in SLOTS if slot not in self.typings]
        if len(free) <= (0 if is_needed else KEPT_SLOTS):
            return None
        slot = chance.choice(free)
        pattern = bytes(slot << 4 | chance.randrange(16) for _ in range(1021))
        self.typings[slot] = Typing(slot, pattern, former=self.former.pop(slot, None))
        return self.typings[slot]

    def take_of(self, typing: Typing, size: int) -> bytes:
        """Return what is typed next, and count it as sent."""
        self.sent += size
        return typing.take(size)

    def note_busy(self, change: int) -> None:
        """Note that one more types, or one less."""
        self._typing_now += change
        self.is_busy = self._typing_now > 0
        self.moved.unpark_all()

    def cut(self, typing: Typing) -> None:
        """Have what *typing* has in transit no longer be missed."""
        typing.is_cut = True
        self.sent -= typing.sent
        self.received -= typing.received
        self.moved.unpark_all()

    def release(self, typing: Typing) -> None:
        """Forget *typing*: nothing more of it may come."""
        del self.typings[typing.slot]
        typing.former = None
        self.former[typing.slot] = typing

    def check(self, data: bytes) -> None:
        at = 0
        for run in RUNS.finditer(data):
            slot = data[run.start()] >> 4
            if run.start() != at or slot not in self.typings:
                break
            typing = self.typings[slot]
            typing.check(run[0])
            if not typing.is_cut:
                self.received += len(run[0])
            at = run.end()
        if at != len(data):
            raise LostOrRepeatedError(f"{self.name}: what nobody types: {data[at : at + 32].hex()}")
        self.total += len(data)
        self.moved.unpark_all()
