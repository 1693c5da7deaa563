"""Waiting for a pattern in what a chardev sends, as expect(1) does, without losing anything.

However the wait ends, what was read is put back in front of what came since, but for what is
returned.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from trio_chardev.errors import ChardevClosedError, ExpectError, ExpectTimeoutError

Pattern = bytes | str | re.Pattern[bytes]
"""Bytes, or text as UTF-8, to be found literally; or a compiled expression for bytes."""

MAX_LOOKED_AT = 1 << 20  # bytes before a match, which are kept in memory
MAX_MATCH = 1 << 13  # bytes; the longest match in pieces: else each byte costs a search of all
SHOWN = 200  # bytes of what came that an error shows


class Expected(NamedTuple):
    """The result of `Frontend.expect`."""

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
    """See `Frontend.expect`; *receive* gives ``b""`` when nothing more will come."""
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
        match = expression.search(bytes(came), start)  # on bytes that do not change any more
        assert match is not None
        kept = match.end()
        return Expected(match.string[: match.start()], match)
    except trio.TooSlowError:
        raise ExpectTimeoutError(f"no {pattern!r} in {timeout:g} seconds; {_tail(came)}") from None
    finally:
        put_back(bytes(came[kept:]))


def _compiled(pattern: Pattern) -> re.Pattern[bytes]:
    """Compile *pattern*. Raises TypeError."""
    if isinstance(pattern, str):
        pattern = pattern.encode()
    if isinstance(pattern, bytes):
        return re.compile(re.escape(pattern))
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, bytes):
        return pattern
    raise TypeError(f"a pattern is bytes, str, or re.compile(b'...'), not {pattern!r}")


def _tail(came: bytearray) -> str:
    """Show the last of what came, for an error."""
    if not came:
        return "nothing came"
    return f"came {'... ' if len(came) > SHOWN else ''}{bytes(came[-SHOWN:])!r}"
