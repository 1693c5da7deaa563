"""What a console has printed: a ring that any number of readers read by position.

A position, or *cursor*, counts the bytes ever printed, so it only grows. A *mark* is a cursor with a
name. With a file both survive a crash.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping

import attrs

from trio_chardev.backends.console.lives import Lives
from trio_chardev.backends.ringbuf.file import MAX_NOTE
from trio_chardev.backends.ringbuf.ring import Ring
from trio_chardev.core.waiting import Waiters
from trio_chardev.errors import OptionsError

MAX_MARKS = 64
MAX_MARK_NAME = 48  # bytes, so that the marks fit in the file's header
MAX_CHARACTER = 4  # bytes, in UTF-8
LOOK_FOR_LINE = 4096  # bytes in which a newcomer's replay looks for a line's begin
LOOK_BACK = 1 << 24  # bytes in which the last lines are looked for
CHUNK = 1 << 14  # bytes of it at once
LINE = b"\n"
LIVES = ""  # the key in a ring's note that is no mark


@attrs.frozen
class Excerpt:
    """Some of a history."""

    data: bytes
    start: int
    """The cursor of its first byte: later than what was asked for if that is gone."""
    next: int
    """The cursor after its last byte."""
    lost: int
    """How many bytes between what was asked for and `start` are gone."""


class History:
    """The ring of a console, and its marks."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        note = _parse_note(ring.note)
        self._marks = _parse_marks(note)
        self.lives = Lives.parse(note.get(LIVES)).another(self.end)
        """Who was here before tells in which he was; a file keeps them."""
        self._grown = Waiters()
        self.written_at: float | None = None
        """When something was printed last, in seconds since 1970; None if that is not known."""

    @property
    def start(self) -> int:
        """The cursor of the oldest byte."""
        return self.ring.bounds[0]

    @property
    def end(self) -> int:
        """The cursor after the newest byte."""
        return self.ring.bounds[1]

    def write(self, data: bytes | memoryview) -> None:
        """Append what was printed."""
        self.ring.write(data)
        self.written_at = round(time.time(), 3)
        self.wake()

    def copy(self, begin: int, size: int) -> bytes:
        """Copy up to *size* bytes from cursor *begin* on, which must not be gone."""
        return self.ring.copy(begin, min(size, self.end - begin))

    def wake(self) -> None:
        """Let those that wait for more look again."""
        self._grown.wake()

    async def wait_grown(self) -> None:
        """Wait until more is written."""
        await self._grown.wait()

    # ------------------------------------------------------------ reading

    def read(self, start: int, max_bytes: float = math.inf, *, whole: bool = False) -> Excerpt:
        """Return up to *max_bytes* from cursor *start* on; a negative one counts from the end.

        If they are to be *whole*, no UTF-8 character is cut at either end: bytes in the middle of one
        are left out where it begins, and its beginning is left for the next call where it ends.
        Nothing is taken. Raises OptionsError if *start* is behind the end.
        """
        first, end = self.ring.bounds
        if start > end:
            raise OptionsError(f"'start' is {start}, and nothing was printed behind {end}")
        wanted = max(0, end + start) if start < 0 else start
        begin = max(wanted, first)
        lost = 0 if start < 0 else begin - wanted
        if whole and (begin > wanted or start < 0):
            skip = _count_continuation(self.copy(begin, MAX_CHARACTER - 1))
            begin, lost = begin + skip, lost + skip if lost else 0
        data = self.copy(begin, int(min(max_bytes, end - begin)))
        if whole:
            data = data[: count_whole(data)]
        return Excerpt(data, begin, begin + len(data), lost)

    def line_start(self, count: int) -> int:
        """The cursor where the last *count* lines begin; one that has no end yet counts, too."""
        first, end = self.ring.bounds
        if not count or first == end:
            return end
        wanted = count + (self.copy(end - 1, 1) == LINE)  # the end of the last line begins none
        at = end
        while at > max(first, end - LOOK_BACK):
            begin = max(first, at - CHUNK)
            chunk = self.copy(begin, at - begin)
            if chunk.count(LINE) >= wanted:
                for _ in range(wanted):
                    chunk = chunk[: chunk.rindex(LINE)]
                return begin + len(chunk) + 1
            wanted -= chunk.count(LINE)
            at = begin
        return self.safe_start(at)

    def last_lines(self, size: int) -> int:
        """The cursor where the first line begins that is within the last *size* bytes."""
        begin = max(self.start, self.end - size)
        return begin + self.copy(begin, size).find(LINE) + 1

    def safe_start(self, cursor: int) -> int:
        """The first cursor from *cursor* on that is still there, and cuts no line if more is gone.

        Whatever was cut, a control sequence for one, is not shown then.
        """
        first = self.start
        if cursor > first or first == 0:
            return cursor
        found = self.copy(first, LOOK_FOR_LINE).find(LINE)
        return first + found + 1

    # ------------------------------------------------------------ marks

    @property
    def marks(self) -> Mapping[str, int]:
        """The cursors that have names, the oldest first."""
        return self._marks

    def mark(self, name: str) -> int:
        """Give the end the *name*, which an older cursor has no longer. Raises OptionsError."""
        if not (0 < len(name.encode(errors="replace")) <= MAX_MARK_NAME and name.isprintable()):
            raise OptionsError(f"a mark's name has 1 to {MAX_MARK_NAME} bytes, all printable")
        if name.lstrip("-").isdigit() or name in ("on", "off"):
            raise OptionsError(f"a mark can't be called '{name}', which means something else")
        self._marks.pop(name, None)
        if len(self._marks) == MAX_MARKS:
            del self._marks[next(iter(self._marks))]
        self._marks[name] = self.end
        self._annotate()
        return self.end

    def _annotate(self) -> None:
        self.ring.annotate(_note_of(self._marks, self.lives))

    def cursor_of(self, name: str) -> int:
        """The cursor of the mark *name*. Raises OptionsError if there is none."""
        try:
            return self._marks[name]
        except KeyError:
            known = ", ".join(f"'{one}'" for one in self._marks) or "none"
            raise OptionsError(f"there is no mark '{name}'; there are: {known}") from None

    def go_on_from(self, other: History) -> bool:
        """Take over what *other* has, unless this one has something of its own; does it go on?"""
        if self.ring is other.ring:
            self._marks, self.lives = dict(other.marks), other.lives
            self.written_at = other.written_at
            return True
        if self.end > 0:
            return False
        self.ring.go_on_from(other.ring)
        self._marks, self.lives = dict(other.marks), other.lives
        self.written_at = other.written_at
        self._annotate()
        return True


def _note_of(marks: Mapping[str, int], lives: Lives) -> bytes:
    """Write both for the file; the oldest marks are left out if there is no room for all."""
    items: list[tuple[str, object]] = [(LIVES, lives.to_json()), *marks.items()]
    while len(note := json.dumps(dict(items), ensure_ascii=False).encode()) > MAX_NOTE:
        del items[1]
    return note


def _parse_note(note: bytes) -> dict[str, object]:
    """Read what `_note_of` has made; what is damaged is as if there were nothing."""
    try:
        parsed = json.loads(note or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _parse_marks(marks: Mapping[str, object]) -> dict[str, int]:
    return {
        name: cursor
        for name, cursor in marks.items()
        if name and type(cursor) is int and cursor >= 0
    }


def _count_continuation(data: bytes) -> int:
    """How many bytes at the beginning are the rest of a character?"""
    count = 0
    while count < len(data) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def count_whole(data: bytes) -> int:
    """How many bytes are there without the beginning of a character that is not all there?"""
    for back in range(1, min(len(data), MAX_CHARACTER) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back and byte >= 0xC0 else len(data)
    return len(data)
