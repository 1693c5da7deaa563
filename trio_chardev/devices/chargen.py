"""chargen: sends lines without end while somebody is there (RFC 864), and discards its input.

The lines are RFC 864's, but numbered, so that a reader can tell what is missing or came
twice. Line N, counted from 0, is 74 bytes: N in 10 digits with leading zeros, a space, 61 of
the 95 printable ASCII characters, and CR LF. The characters are in ASCII's order, begin with
number N modulo 95 and go on with the space after the tilde. Line 10 000 000 000 is numbered
0 again.

There is one stream for all readers: after a change, or for the next client, it goes on with
the byte after the last one that was sent. `check_chargen` checks what was received.
"""

from __future__ import annotations

import logging
import re
from typing import Final

import attrs
import trio

from trio_chardev.core.handlers import stateless
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.registry import Driver
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event

log = logging.getLogger(__name__)

LINE_SIZE: Final = 74  # bytes
LINES_AT_ONCE: Final = 64
RETRY_INTERVAL = 1.0  # seconds, after an error of a backend that is open

_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_TEXTS: Final = [(_PRINTABLE * 2)[start : start + 61] for start in range(95)]


def chargen_line(number: int) -> bytes:
    """Make line *number* of the stream."""
    return b"%010d %b\r\n" % (number % 10**10, _TEXTS[number % 95])


def chargen_stream(offset: int, size: int) -> bytes:
    """Make *size* bytes of the stream, from *offset* on."""
    number, skipped = divmod(offset, LINE_SIZE)
    lines = range(number, number + (skipped + size) // LINE_SIZE + 1)
    return b"".join(map(chargen_line, lines))[skipped : skipped + size]


def check_chargen(data: bytes) -> int:
    """Check that *data* is one piece of the stream; returns the offset at which it begins.

    Raises ValueError, which says where something is missing, repeated or wrong, or that *data*
    has no end of a line with the next number after it, which tells the offset.
    """
    match = re.search(rb"\r\n([0-9]{10}) ", data)
    if match is None:
        raise ValueError("it has no number behind the end of a line")
    offset = int(match[1]) * LINE_SIZE - match.start(1)
    if offset < 0 or data != (expected := chargen_stream(offset, len(data))):
        at = 0 if offset < 0 else next(i for i, byte in enumerate(data) if byte != expected[i])
        raise ValueError(f"byte {at} is not what follows: {data[at : at + LINE_SIZE]!r}")
    return offset


@attrs.frozen(kw_only=True)
class ChargenOptions(DeviceOptions):
    """Sends numbered lines without end (RFC 864)."""

    chardev: str
    """Id of the chardev to use."""


@attrs.frozen(kw_only=True)
class ChargenInfo(DeviceInfo):
    """What query-devices shows of a chargen."""

    chardev: str
    bytes: int
    """Bytes that were sent."""


class Chargen(Device):
    """A device that sends a numbered stream."""

    options: ChargenOptions

    def __init__(self, options: ChargenOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        self._sent = 0
        self._opened = trio.Event()

    def start(self) -> None:
        self._frontend = self.attach(
            "chardev", be_change=stateless, on_event=self._on_event, on_receive=len
        )
        self._frontend.relay.keeps_refused = True

    def _on_event(self, event: BackendEvent) -> None:
        if event is Event.OPENED:
            self._opened.set()

    async def run(self) -> None:
        while True:
            self._opened = trio.Event()
            try:
                self._sent += await self._frontend.send_some(self._next())
            except BackendDisconnectedError:
                await self._opened.wait()
            except BackendError as exc:
                log.warning("chardev '%s': %s", self.options.chardev, exc)
                with trio.move_on_after(RETRY_INTERVAL):
                    await self._opened.wait()

    def _next(self) -> bytes:
        return chargen_stream(self._sent, LINES_AT_ONCE * LINE_SIZE)

    @property
    def info(self) -> ChargenInfo:
        return ChargenInfo(id=self.id, chardev=self.options.chardev, bytes=self._sent)


CHARGEN = Driver("chargen", ChargenOptions, Chargen, ChargenInfo)
