r"""asciicast v2 and v3, the formats of asciinema's recordings, without I/O.

The first line is a header, a JSON object; each line after it is an event, ``[TIME, CODE, TEXT]``:
``o`` is output that a terminal shows, ``i`` is typed input, ``m`` a marker. Other codes, such as
``r`` (a new size) and ``x`` (the exit status), only matter to terminals; readers here use their
time alone. In v2 TIME counts from the beginning, in v3 from the previous event; v3 has comments,
lines that begin with ``#``.

Texts are Unicode, but a chardev's traffic is bytes, which are decoded as UTF-8. A byte 0x80 to
0xFF that belongs to no UTF-8 character is written as the private character U+10FE80 to U+10FEFF
with the same last byte; where the traffic itself has one of these characters, each of its four
bytes is written in that way. So reading gives back exactly the same bytes, and every player finds
the file well-formed. (asciinema 3 rejects lone surrogates, Python's way of doing this, and so
does asciinema 2 outside of the C locale.)
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final, Literal

import attrs

MAX_LINE: Final = 1 << 20  # bytes; asciinema reads 128 KiB at once, and a byte may become six
MAX_TIME: Final = 1e9  # seconds
ESCAPE: Final = 0x10FE00

_ESCAPES: Final = {0xDC00 + byte: chr(ESCAPE + byte) for byte in range(0x80, 0x100)}
_TO_TEXT: Final = _ESCAPES | {
    ord(char): "".join(chr(ESCAPE + byte) for byte in char.encode()) for char in _ESCAPES.values()
}
_IN_TO_TEXT: Final = re.compile("[\udc80-\udcff\U0010fe80-\U0010feff]")
_ESCAPED: Final = re.compile("[\U0010fe80-\U0010feff]")
_TO_SURROGATES: Final = {ord(char): surrogate for surrogate, char in _ESCAPES.items()}

Direction = Literal["o", "i"]
Version = Literal[2, 3]


class FormatError(ValueError):
    """They: the file is not a recording, or is damaged; ``str()`` says where."""


@attrs.frozen
class Entry:
    """A line after the header."""

    time: float
    """Seconds from the beginning; never less than in the entry before."""

    code: str
    text: str

    data: bytes = attrs.field(default=b"", eq=False, repr=False)
    """The bytes that the text of an ``o`` or ``i`` stands for."""


def _data_of(text: str) -> bytes:
    """Decode *text* to bytes. Raises UnicodeEncodeError if it has half a surrogate pair."""
    if not text.isascii() and _ESCAPED.search(text):
        text = text.translate(_TO_SURROGATES)
    return text.encode("utf-8", "surrogateescape")


def header(title: str, timestamp: int, version: Version = 2) -> bytes:
    """Make the first line; *timestamp* is when it began, in seconds since 1970."""
    # The format requires a size, though a chardev has none.
    size: dict[str, Any] = {"width": 80, "height": 24}
    if version == 3:
        size = {"term": {"cols": 80, "rows": 24}}
    title = title.translate(_TO_TEXT)
    return _line({"version": version, **size, "timestamp": timestamp, "title": title})


class Encoder:
    """Encodes bytes as lines. A character that comes in two pieces is written as one.

    All times are in seconds from the beginning, and never go back.
    """

    def __init__(self, version: Version = 2) -> None:
        self.version = version
        self.told = 0.0
        """In v3 the time of the last line; a caller that drops a line restores the value."""
        self._held = b""  # the beginning of an incomplete character
        self._held_time = 0.0
        self._held_code: Direction = "o"

    def data(self, time: float, code: Direction, data: bytes) -> bytes:
        """Make lines for *data*, holding back the beginning of an incomplete character."""
        lines = b"" if code == self._held_code else self.flush()
        data = self._held + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(data, "surrogateescape", False)
        self._held, self._held_time, self._held_code = data[used:], time, code
        return lines + self._event(time, code, text) if text else lines

    def marker(self, time: float, label: str) -> bytes:
        """Make a line for a marker."""
        return self._event(time, "m", label)

    def lose(self, lines: bytes | bytearray) -> None:
        """Take *lines* back, the last ones made: they were not written to the file."""
        if self.version == 3:
            events = (line for line in lines.splitlines() if line.startswith(b"["))
            self.told -= sum(float(line[1 : line.index(b",")]) for line in events)

    def flush(self) -> bytes:
        """Make a line for the incomplete character that is held back, if there is one."""
        held, self._held = self._held, b""
        if not held:
            return b""
        return self._event(
            self._held_time, self._held_code, held.decode("utf-8", "surrogateescape")
        )

    def _event(self, time: float, code: str, text: str) -> bytes:
        if not text.isascii() and _IN_TO_TEXT.search(text):  # translating costs 80 ns a character
            text = text.translate(_TO_TEXT)
        if self.version == 3:
            time = max(0.0, time - self.told)
        shown = round(time, 6)
        self.told += shown  # so in v3 rounding errors do not add up
        return _line([shown, code, text])


def _line(value: object) -> bytes:
    # Half a surrogate pair in a title or a label becomes a JSON escape.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Decoder:
    """Reads a recording, whose bytes it is given piece by piece."""

    def __init__(self) -> None:
        self.is_torn = False
        """Is the last line incomplete, because the writer was killed while writing it?"""
        self._rest = b""
        self._lines: list[bytes] = []  # complete lines, in reverse
        self._number = 0  # of the last line taken
        self._time = 0.0
        self._version = 2
        self._is_at_end = False

    def receive_data(self, data: bytes) -> None:
        """Give it more bytes, ``b""`` at the end of the file, after `next_entry` returned None."""
        if not data:
            self._is_at_end = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines = [*reversed(lines), *self._lines]
        if len(self._rest) > MAX_LINE:
            raise FormatError(f"line {self._number + len(lines) + 1} is too long")

    def next_entry(self) -> Entry | None:
        """The next entry; None if that takes more data, or at the end. Raises FormatError."""
        while self._lines or (self._is_at_end and self._rest):
            if self._lines:
                line = self._lines.pop()
            else:
                line, self._rest = self._rest, b""
                self.is_torn = self._number > 0 and not (self._is_comment(line) or _is_json(line))
                if self.is_torn:
                    break
            self._number += 1
            if self._number == 1:
                self._check_header(line)
            elif line.strip() and not self._is_comment(line):
                return self._parse(line)
        if self._is_at_end and self._number == 0:
            raise FormatError("it is empty")
        return None

    def _is_comment(self, line: bytes) -> bool:
        return self._version == 3 and line.startswith(b"#")

    def _check_header(self, line: bytes) -> None:
        match _load(line):
            case {"version": 2 | 3 as version}:
                self._version = version
            case _:
                raise FormatError("it is not in the format asciicast v2 or v3")

    def _parse(self, line: bytes) -> Entry:
        match _load(line):
            case [int() | float() as time, str() as code, str() as text] if 0 <= time <= MAX_TIME:
                self._advance(float(time))
            case _:
                raise FormatError(f"line {self._number} is damaged")
        try:
            data = _data_of(text) if code in ("o", "i") else b""
        except UnicodeEncodeError:
            raise FormatError(f"line {self._number} has half a character") from None
        return Entry(self._time, code, text, data)

    def _advance(self, time: float) -> None:
        if self._version == 3:
            time += self._time
            if time > MAX_TIME:
                raise FormatError(f"line {self._number} is damaged")
        self._time = max(self._time, time)


def _load(line: bytes) -> Any:
    """Parse *line*; None if it is not JSON."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


def _is_json(line: bytes) -> bool:
    return _load(line) is not None
