r"""asciicast v2 and v3, the formats of asciinema's recordings, without I/O.

The first line is a header, a JSON object; each line after it is one event, ``[TIME, CODE,
TEXT]``: ``o`` what a terminal shows, ``i`` what was typed, ``m`` a marker. Other codes, such as
``r`` (a new size) and ``x`` (the exit status), are for terminals; who reads them here has only
their time. In v2 TIME is since the beginning, in v3 since the event before; v3 has comments, lines
that begin with ``#``.

The text is made of Unicode characters, but a chardev's traffic is bytes. They are taken as
UTF-8. A byte 0x80 to 0xFF that belongs to no character of UTF-8 is written as the private
character U+10FE80 to U+10FEFF that ends in it; where one of these characters themselves is in
the traffic, each of its four bytes is written so. Thus reading back gives the very bytes, and
the file is well-formed for every player. (Lone surrogates, Python's own way, are refused by
asciinema 3, and by asciinema 2 outside of the C locale.)
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final, Literal

import attrs

MAX_LINE: Final = 1 << 20  # bytes; asciinema reads 128 KiB at once, and a byte takes up to six
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
    """They: the file is no recording, or is damaged; ``str()`` says where."""


@attrs.frozen
class Entry:
    """A line behind the header."""

    time: float
    """Seconds from the beginning; never before the entry before it."""

    code: str
    text: str

    data: bytes = attrs.field(default=b"", eq=False, repr=False)
    """The bytes that the text of an ``o`` or ``i`` stands for."""


def _data_of(text: str) -> bytes:
    """Raises UnicodeEncodeError for half a character."""
    if not text.isascii() and _ESCAPED.search(text):
        text = text.translate(_TO_SURROGATES)
    return text.encode("utf-8", "surrogateescape")


def header(title: str, timestamp: int, version: Version = 2) -> bytes:
    """The first line; *timestamp* is the time of the beginning, in seconds since 1970."""
    # The format wants a size; a chardev has none.
    size: dict[str, Any] = {"width": 80, "height": 24}
    if version == 3:
        size = {"term": {"cols": 80, "rows": 24}}
    title = title.translate(_TO_TEXT)
    return _line({"version": version, **size, "timestamp": timestamp, "title": title})


class Encoder:
    """Makes lines of bytes. A character that comes in two pieces is written as one.

    All times are since the beginning, in seconds, and never go back.
    """

    def __init__(self, version: Version = 2) -> None:
        self.version = version
        self.told = 0.0
        """In v3 the time of the last line; who does not use a line sets it back."""
        self._held = b""  # the beginning of a character
        self._held_time = 0.0
        self._held_code: Direction = "o"

    def data(self, time: float, code: Direction, data: bytes) -> bytes:
        """Lines for *data*, but for the beginning of a character that may go on."""
        lines = b"" if code == self._held_code else self.flush()
        data = self._held + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(data, "surrogateescape", False)
        self._held, self._held_time, self._held_code = data[used:], time, code
        return lines + self._event(time, code, text) if text else lines

    def marker(self, time: float, label: str) -> bytes:
        """A line for a marker."""
        return self._event(time, "m", label)

    def lose(self, lines: bytes | bytearray) -> None:
        """*lines*, the last ones but for those to come, have not come into the file."""
        if self.version == 3:
            events = (line for line in lines.splitlines() if line.startswith(b"["))
            self.told -= sum(float(line[1 : line.index(b",")]) for line in events)

    def flush(self) -> bytes:
        """A line for the beginning of a character that does not go on, if there is one."""
        held, self._held = self._held, b""
        if not held:
            return b""
        return self._event(
            self._held_time, self._held_code, held.decode("utf-8", "surrogateescape")
        )

    def _event(self, time: float, code: str, text: str) -> bytes:
        if not text.isascii() and _IN_TO_TEXT.search(text):  # to translate takes 80 ns a character
            text = text.translate(_TO_TEXT)
        if self.version == 3:
            time = max(0.0, time - self.told)
        shown = round(time, 6)
        self.told += shown  # in v3 what was rounded off is in the next
        return _line([shown, code, text])


def _line(value: object) -> bytes:
    # What is half a character in a title or a label becomes a JSON escape.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Decoder:
    """Reads a recording, of which it gets the bytes piece by piece."""

    def __init__(self) -> None:
        self.is_torn = False
        """The last line is not whole: the writer was ended in the midst of it."""
        self._rest = b""
        self._lines: list[bytes] = []  # whole ones, the next one last
        self._number = 0  # of lines taken
        self._time = 0.0
        self._version = 2
        self._is_at_end = False

    def receive_data(self, data: bytes) -> None:
        """The next bytes of the file; ``b""`` at its end. Once `next_entry` has given None."""
        if not data:
            self._is_at_end = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines = [*reversed(lines), *self._lines]
        if len(self._rest) > MAX_LINE:
            raise FormatError(f"line {self._number + len(lines) + 1} is too long")

    def next_entry(self) -> Entry | None:
        """The next one, None if that takes more data, or at the end. Raises FormatError."""
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
    """None if it is no JSON."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


def _is_json(line: bytes) -> bool:
    return _load(line) is not None
