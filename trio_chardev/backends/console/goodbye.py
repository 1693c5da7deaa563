"""Why a client of a console is let go, and how it is told."""

from __future__ import annotations

import contextlib
from typing import Final, Literal

import attrs
import trio

from trio_chardev.backends.console.client import in_band
from trio_chardev.backends.socket.codec import RefusingCodec
from trio_chardev.backends.socket.connection import Take
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.link import Link

Reason = Literal[
    "left", "kicked", "idle", "slow", "full", "replaced", "stopping", "gone", "refused", "dead"
]

CODES: Final[dict[Reason, int]] = {
    "stopping": 1001,
    "kicked": 1008,
    "refused": 1008,
    "full": 1013,
    "idle": 4001,
    "slow": 4002,
    "replaced": 4003,
    "gone": 4004,
}
"""The codes of a WebSocket's Close (RFC 6455, 7.4); 4000 and above are for applications."""

TIMEOUT = 2.0  # seconds for a client to take its last bytes


@attrs.frozen
class Goodbye:
    """One reason, and its words."""

    reason: Reason
    text: str

    @property
    def is_told(self) -> bool:
        """Is there somebody to be told?"""
        return self.reason in CODES


LEFT = Goodbye("left", "")
DEAD = Goodbye("dead", "it acknowledges nothing")


def say_goodbye(link: Link, goodbye: Goodbye, *, is_person: bool) -> bytes:
    """Tell the client on *link* why it is let go; return what there was no room for now.

    That is for `see_off`. Never raises.
    """
    return _say(link, goodbye, in_band(goodbye.text) if is_person else b"")


def _say(link: Link, goodbye: Goodbye, text: bytes) -> bytes:
    """Send *text*, and behind all of it what the protocol has for that; return the rest."""
    try:
        while text:
            text = text[link.send(memoryview(text)) :]
    except BlockingIOError:
        return text
    except OSError:
        return b""
    with contextlib.suppress(OSError):
        while isinstance(link, Layer):
            if isinstance(link.codec, RefusingCodec):
                link.turn_away(goodbye.text, CODES[goodbye.reason])
                break
            link = link.lower
    return b""


async def see_off(
    link: Link, goodbye: Goodbye, unsaid: bytes, take: Take = lambda data: None
) -> None:
    """Wait until the client on *link* has its last bytes, for 2 s at most, and close it.

    *unsaid* is what `say_goodbye` has returned. What the client sends until it knows is given to
    *take*. It can't be Cancelled.
    """
    try:
        with trio.move_on_after(TIMEOUT, shield=True), contextlib.suppress(Exception):
            while unsaid:
                await link.wait_writable()
                with contextlib.suppress(BlockingIOError):
                    link.flush()
                    unsaid = _say(link, goodbye, unsaid)
            await link.finish(take)
    finally:
        link.close()
