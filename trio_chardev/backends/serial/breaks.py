"""Decodes the breaks among the bytes that a serial line receives."""

from __future__ import annotations

from collections.abc import Iterator

from trio_chardev.events import Event


class BreakDecoder:
    """Undoes PARMRK (termios(3)): a byte 0xff comes doubled, and a break comes as ff 00 00.

    So a break keeps its place among the bytes; without PARMRK it would be a NUL like any other.
    """

    def __init__(self) -> None:
        self.items: list[bytes | Event] = []
        """Decoded bytes and breaks that were not taken yet; what was received first is the last."""

        self.tail = b""
        """The first one or two bytes of a mark, which were read; with none of them, and without a
        0xff, what is read next needs no decoding."""

    def take(self, max_bytes: int) -> bytes | Event | None:
        """Take the next break, or up to *max_bytes* of the next bytes; None if there is neither."""
        if not self.items:
            return None
        item = self.items.pop()
        if isinstance(item, bytes) and len(item) > max_bytes:
            self.items.append(item[max_bytes:])
            return item[:max_bytes]
        return item

    def feed(self, raw: bytes) -> None:
        """Decode what was read."""
        raw = self.tail + raw
        self.tail = b""
        pieces = raw.split(b"\xff\xff")
        if raw.count(b"\xff") == 2 * (len(pieces) - 1):  # each one is doubled
            self._put([b"\xff".join(pieces)])
        else:
            self._put(list(self._decode(raw)))

    def _decode(self, raw: bytes) -> Iterator[bytes | Event]:
        data = bytearray()
        start = 0
        while (at := raw.find(b"\xff", start)) >= 0:
            data += raw[start:at]
            mark = raw[at : at + 3]
            if mark in (b"\xff", b"\xff\x00"):
                self.tail = mark
                start = len(raw)
            elif mark == b"\xff\x00\x00":
                yield bytes(data)
                yield Event.BREAK
                data = bytearray()
                start = at + 3
            else:  # doubled; or a single 0xff, which came with a framing error
                data += b"\xff"
                start = at + (2 if mark[1:2] == b"\xff" else 1)
        yield bytes(data + raw[start:])

    def feed_unmarked(self, raw: bytes) -> None:
        """Take what was read while PARMRK was off."""
        self._put([self.tail + raw])
        self.tail = b""

    def _put(self, items: list[bytes | Event]) -> None:
        self.items[:0] = [item for item in reversed(items) if item]
