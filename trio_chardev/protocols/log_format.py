"""The formats of a console's log: bytes, in two directions, and notes become lines.

``out`` is what is written to a backend, ``in`` what comes from it. A format may hold back what is
the beginning of a line; `LogFormat.due` tells since when, and `LogFormat.flush` gives it.
"""

from __future__ import annotations

import base64
import math
import re
from json.encoder import encode_basestring
from typing import Final, Literal

import attrs

from trio_chardev.protocols.control_sequences import Stripper

Direction = Literal["out", "in"]

MAX_LINE: Final = 4096  # bytes of a line that are held back
ROW: Final = 16  # bytes in a row of a hex dump
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_LINE_OF_BYTES: Final = re.compile(_LINE.pattern.encode())
_PRINTABLE: Final = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))
MARKS: Final[dict[Direction, str]] = {"out": ">", "in": "<"}


@attrs.frozen
class Moment:
    """A time, by two clocks."""

    at: float
    """By the clock that `LogFormat.due` is compared with."""
    text: str
    """As it is written, in ISO 8601."""


@attrs.define
class _Begun:
    """What one direction holds back, and since when."""

    moment: Moment
    data: bytearray


class LogFormat:
    """The format ``raw``, and the base of the others."""

    def __init__(self, *, strips: bool = False) -> None:
        """With *strips* control sequences are left out."""
        self.at_line_start = True
        """Does the log, as far as it was given, end with a whole line?"""
        self._begun: dict[Direction, _Begun] = {}
        self._strippers: dict[Direction, Stripper] = {}
        self._sequences: dict[Direction, Moment] = {}  # since when a stripper holds one back
        if strips:
            self._strippers = {"out": Stripper(), "in": Stripper()}

    @property
    def holds_back(self) -> bool:
        """Can it hold back anything?"""
        return bool(self._strippers)

    @property
    def due(self) -> float:
        """Since when something is held back; infinite if nothing is."""
        lines = (begun.moment for begun in self._begun.values())
        return min((moment.at for moment in (*lines, *self._sequences.values())), default=math.inf)

    @property
    def held(self) -> int:
        """How many bytes are held back."""
        in_strippers = sum(len(stripper.held) for stripper in self._strippers.values())
        return in_strippers + sum(len(begun.data) for begun in self._begun.values())

    def data(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        """What the log gets when *data* went in *direction*."""
        if stripper := self._strippers.get(direction):
            data = self._strip(direction, stripper, data, moment)
        return self._lay_out(direction, data, moment) if data else b""

    def flush(self, until: float = math.inf) -> bytes:
        """What was held back by *until*, as it is."""
        given = []
        for direction, moment in list(self._sequences.items()):
            if moment.at <= until:
                del self._sequences[direction]
                text = self._strippers[direction].flush()
                given.append(self._lay_out(direction, text, moment) if text else b"")
        return b"".join((*given, self._flush_lines(until)))

    def note(self, text: str, moment: Moment) -> bytes:
        """A line that tells *text*, ``TIME [trio-chardev: TEXT]``, after all lines that have begun."""
        begun = self._flush_lines(math.inf)
        gap = b"" if self.at_line_start else b"\n"
        return begun + self._give(gap + self.note_line(text, moment))

    def note_line(self, text: str, moment: Moment) -> bytes:
        """The line of `note`, as it is where a line begins; this changes no state."""
        return f"{moment.text} [trio-chardev: {text}]\n".encode()

    def _strip(
        self, direction: Direction, stripper: Stripper, data: bytes, moment: Moment
    ) -> bytes:
        whole = len(stripper.held) + len(data)
        text = stripper.feed(data)
        if not stripper.held:
            self._sequences.pop(direction, None)
        elif direction not in self._sequences or len(stripper.held) < whole:
            self._sequences[direction] = moment  # it is another sequence than before
        return text

    def _lay_out(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        """Do as `data` with *data*, which is not empty, and has no control sequences any more."""
        return self._give(data)

    def _flush_lines(self, until: float) -> bytes:
        """The lines that have begun by *until*."""
        return b""

    def _give(self, text: bytes) -> bytes:
        if text:
            self.at_line_start = text.endswith(b"\n")
        return text

    def _hold(self, direction: Direction, data: bytes, moment: Moment) -> _Begun:
        """Add *data* to what *direction* holds back."""
        if (begun := self._begun.get(direction)) is None:
            begun = self._begun[direction] = _Begun(moment, bytearray())
        begun.data += data
        return begun

    def _take_begun(self, until: float) -> list[tuple[Direction, _Begun]]:
        """Take what has begun by *until* and is held back, in order."""
        taken = [item for item in self._begun.items() if item[1].moment.at <= until]
        for direction, _ in taken:
            del self._begun[direction]
        return sorted(taken, key=lambda item: item[1].moment.at)


class Timestamps(LogFormat):
    """``timestamp`` of one direction: the bytes as they come, the time before each line."""

    def _lay_out(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        time = moment.text.encode() + b" "
        stamped = data[:-1].replace(b"\n", b"\n" + time) + data[-1:]
        return self._give(time + stamped if self.at_line_start else stamped)


class _Lines(LogFormat):
    """The base of formats that are made of whole lines, as far as that does not take too long."""

    @property
    def holds_back(self) -> bool:
        return True

    def _lay_out(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        given = []
        if end := data.find(b"\n") + 1:
            begun = self._hold(direction, data[:end], moment)
            del self._begun[direction]
            given.append(self._lines(direction, begun.moment, bytes(begun.data)))
            if last := data.rfind(b"\n", end) + 1:
                given.append(self._lines(direction, moment, data[end:last]))
                end = last
        if rest := data[end:]:
            given.append(self._begin(direction, rest, moment))
        return b"".join(given)

    def _begin(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        """Hold *data*, a part of a line, back; return what is too long for that."""
        given = []
        begun = self._hold(direction, data, moment)
        while len(begun.data) > MAX_LINE:
            cut = _character_start(begun.data, MAX_LINE)
            given.append(self._lines(direction, begun.moment, bytes(begun.data[:cut])))
            begun.moment, begun.data = moment, begun.data[cut:]
        return b"".join(given)

    def _flush_lines(self, until: float) -> bytes:
        return b"".join(
            self._lines(direction, begun.moment, bytes(begun.data))
            for direction, begun in self._take_begun(until)
        )

    def _lines(self, direction: Direction, moment: Moment, data: bytes) -> bytes:
        """Make the text of *data*: whole lines, or a part of a line."""
        raise NotImplementedError


def _character_start(data: bytearray, end: int) -> int:
    """Where the UTF-8 character begins that *end* may be within; *end* if there is none."""
    for at in range(end, end - 4, -1):
        if data[at] & 0xC0 != 0x80:
            return at
    return end


class MarkedTimestamps(_Lines):
    """``timestamp`` of both directions: ``TIME > out``, ``TIME < in``."""

    def __init__(self, *, strips: bool = False) -> None:
        super().__init__(strips=strips)
        self._last: Direction | None = None
        """The direction of the line at the end, if that is not whole."""

    def _lines(self, direction: Direction, moment: Moment, data: bytes) -> bytes:
        mark = f"{moment.text} {MARKS[direction]} ".encode()
        text = data[:-1].replace(b"\n", b"\n" + mark) + data[-1:]
        if self.at_line_start or direction != self._last:
            text = (b"" if self.at_line_start else b"\n") + mark + text
        self._last = direction
        return self._give(text)


class JsonLines(_Lines):
    """``json``: an object for each line; all texts of a direction, joined, are its bytes.

    Where they are not UTF-8, ``base64`` has them, and ``text`` what can be read of them.
    """

    def __init__(self, id: str, *, strips: bool = False) -> None:
        super().__init__(strips=strips)
        self._id = encode_basestring(id)

    def _lines(self, direction: Direction, moment: Moment, data: bytes) -> bytes:
        head = f'{self._head(moment)}, "direction": "{direction}", "text": '
        try:
            texts = _LINE.findall(data.decode())
        except UnicodeDecodeError:
            return b"".join(_json_of_bytes(head, line) for line in _LINE_OF_BYTES.findall(data))
        return "".join(f"{head}{encode_basestring(text)}}}\n" for text in texts).encode()

    def note_line(self, text: str, moment: Moment) -> bytes:
        return f'{self._head(moment)}, "note": {encode_basestring(text)}}}\n'.encode()

    def _head(self, moment: Moment) -> str:
        return f'{{"time": "{moment.text}", "id": {self._id}'


def _json_of_bytes(head: str, line: bytes) -> bytes:
    """An object for a *line* that may not be UTF-8."""
    try:
        return f"{head}{encode_basestring(line.decode())}}}\n".encode()
    except UnicodeDecodeError:
        text = encode_basestring(line.decode(errors="replace"))
        exact = base64.b64encode(line).decode()
        return f'{head}{text}, "base64": "{exact}"}}\n'.encode()


class HexDump(LogFormat):
    """``hexdump``: rows as of xxd(1), after the time; offsets count the bytes of a direction."""

    def __init__(self, *, is_marked: bool) -> None:
        """With *is_marked* the rows tell the direction."""
        super().__init__()
        self._is_marked = is_marked
        self._offsets: dict[Direction, int] = {"out": 0, "in": 0}

    @property
    def holds_back(self) -> bool:
        return True

    def _lay_out(self, direction: Direction, data: bytes, moment: Moment) -> bytes:
        begun = self._hold(direction, data, moment)
        whole = len(begun.data) - len(begun.data) % ROW
        rows = []
        for start in range(0, whole, ROW):
            rows.append(self._row(direction, begun.moment, begun.data[start : start + ROW]))
            begun.moment = moment
        del begun.data[:whole]
        if not begun.data:
            del self._begun[direction]
        return b"".join(rows)

    def _flush_lines(self, until: float) -> bytes:
        return b"".join(
            self._row(direction, begun.moment, begun.data)
            for direction, begun in self._take_begun(until)
        )

    def _row(self, direction: Direction, moment: Moment, data: bytearray) -> bytes:
        offset = self._offsets[direction]
        self._offsets[direction] += len(data)
        mark = f"{MARKS[direction]} " if self._is_marked else ""
        text = data.translate(_PRINTABLE).decode()
        return f"{moment.text} {mark}{offset:08x}: {data.hex(' ', -2):39}  {text}\n".encode()
