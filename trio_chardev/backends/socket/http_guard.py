"""Recognizes web browsers, whose pages speak to what is not a web server.

A browser sends what any page says, by a plain POST, to every TCP port that the computer reaches:
first the lines of HTTP, then the page's own. A program that takes lines one by one, such as a
monitor or a shell, answers the first ones with errors and obeys the others. A program that was
meant to connect does not begin with a method of HTTP, so a peer that does is closed at once, as in
Redis.
"""

from __future__ import annotations

METHODS = (
    *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE "),
    *(b"PATCH ", b"PRI "),  # RFC 5789, and the preface of RFC 9113
)
TLS_HELLO = b"\x16\x03"
"""How TLS begins (RFC 8446, 5.1); a ClientHello of an https:// page can hold the page's lines."""

OPENINGS = (*METHODS, TLS_HELLO)


class HttpGuard:
    """Checks the first bytes of one peer."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: bytes | None = b""  # None once it is known to be no browser

    @property
    def is_done(self) -> bool:
        """Is it known that this is no browser?"""
        return self._begun is None

    def is_browser(self, data: bytes) -> bool:
        """Check *data*, which came next. Is the peer a browser?

        A peer may begin as a browser does, and go on differently, so earlier bytes may be used.
        """
        if self._begun is None:
            return False
        self._begun += data[: len(max(OPENINGS, key=len))]
        if self._begun.startswith(OPENINGS):
            return True
        if not any(opening.startswith(self._begun) for opening in OPENINGS):
            self._begun = None
        return False
