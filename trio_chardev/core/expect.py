"""Waiting for words in what a chardev says, as expect(1) does, with nothing lost.

What has been looked at is put back in front of what came since, however the wait ends, but for
what is returned.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from trio_chardev.errors import ChardevClosedError, ExpectError, ExpectTimeoutError

Pattern = bytes | str | re.Pattern[bytes]
"""Bytes, or text as UTF-8, that are to come as they are; or a compiled expression for bytes."""

MAX_LOOKED_AT = 1 << 20  # bytes; what comes before a match is in memory
MAX_MATCH = 1 << 13  # bytes; so far back a match may begin: else each byte costs a search of all
SHOWN = 200  # bytes of what came that an error shows


class Expected(NamedTuple):
    """What `Frontend.expect` has found."""

    before: bytes
    """What came before the match."""
    match: re.Match[bytes]
    """The match; ``match[0]`` are its bytes, ``match[1]`` those of the first group."""


async def expect(
    pattern: Pattern,
    timeout: float,
    receive: Callable[[int], Awaitable[bytes]],
    put_back: Callable[[bytes], None],
) -> Expected:
    """See `Frontend.expect`; *receive* gives ``b""`` when nothing will come any more."""
    expression = _compiled(pattern)
    came = bytearray()
    kept = start = 0
    try:
        with trio.fail_after(timeout):
            while not expression.search(came, start):
                if len(came) >= MAX_LOOKED_AT:
                    raise ExpectError(f"no {pattern!r} in {len(came)} bytes; {_tail(came)}")
                start = max(0, len(came) - MAX_MATCH)
                if not (data := await receive(MAX_LOOKED_AT - len(came))):
                    raise ChardevClosedError(f"it is closed: no {pattern!r}; {_tail(came)}")
                came += data
        match = expression.search(bytes(came), start)  # bytes that nobody changes any more
        assert match is not None
        kept = match.end()
        return Expected(match.string[: match.start()], match)
    except trio.TooSlowError:
        raise ExpectTimeoutError(f"no {pattern!r} in {timeout:g} seconds; {_tail(came)}") from None
    finally:
        put_back(bytes(came[kept:]))


def _compiled(pattern: Pattern) -> re.Pattern[bytes]:
    """The expression for *pattern*. Raises TypeError."""
    if isinstance(pattern, str):
        pattern = pattern.encode()
    if isinstance(pattern, bytes):
        return re.compile(re.escape(pattern))
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, bytes):
        return pattern
    raise TypeError(f"a pattern is bytes, str, or re.compile(b'...'), not {pattern!r}")


def _tail(came: bytearray) -> str:
    """The last of what came, for an error."""
    if not came:
        return "nothing came"
    return f"came {'... ' if len(came) > SHOWN else ''}{bytes(came[-SHOWN:])!r}"
