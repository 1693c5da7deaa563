"""Web pages that speak to what is no web server.

A browser sends what any page says, by a plain POST, to every TCP port that the computer reaches:
first the lines of HTTP, then the page's own. Who takes such lines one by one, as a monitor or a
shell does, answers the first ones with errors and obeys the others. A program that was meant to
connect begins with none of HTTP's methods, so who does is let go at once, as Redis does.
"""

from __future__ import annotations

METHODS = (
    *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE "),
    *(b"PATCH ", b"PRI "),  # RFC 5789, and the preface of RFC 9113
)
TLS_HELLO = b"\x16\x03"
"""How TLS begins (RFC 8446, 5.1): a page of https://, whose hello has room for a page's lines, too."""

OPENINGS = (*METHODS, TLS_HELLO)


class HttpGuard:
    """Looks at the first bytes of one peer."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: bytes | None = b""  # None: it is none

    @property
    def is_done(self) -> bool:
        """Is it known that this is no browser?"""
        return self._begun is None

    def is_browser(self, data: bytes) -> bool:
        """*data* is what has come next: is it a browser?

        It may begin as a browser's does, and go on otherwise; so what came before can be used.
        """
        if self._begun is None:
            return False
        self._begun += data[: len(max(OPENINGS, key=len))]
        if self._begun.startswith(OPENINGS):
            return True
        if not any(opening.startswith(self._begun) for opening in OPENINGS):
            self._begun = None
        return False
