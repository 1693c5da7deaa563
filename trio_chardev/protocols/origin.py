"""Which web pages may connect (RFC 6455, 10.2).

A browser lets every page that is open in it connect to every WebSocket that the computer
reaches, and says only where the page has come from. Who is no browser does not say so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

ANY = "*"
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@\s]+/?", re.ASCII | re.IGNORECASE)


def can_be_allowed(text: str) -> bool:
    """Is it an origin, or `ANY`? What is none, as a host without a scheme, allows nobody."""
    return text == ANY or _ORIGIN.fullmatch(text) is not None


def may_connect(origin: str, host: str, allowed: Sequence[str]) -> bool:
    """May a page of *origin* use what it calls *host* (a Host header)?

    *allowed* are origins, as ``https://console.example``, or `ANY`. Without them the page must
    have come from the same host, by whatever port; names of the own computer are one host.
    """
    if allowed:
        return ANY in allowed or _normal(origin) in map(_normal, allowed)
    theirs, ours = _host_of(origin), _host_of(f"//{host}")
    if theirs is None or ours is None:
        return False
    return theirs == ours or (_is_loopback(theirs) and _is_loopback(ours))


def _normal(origin: str) -> str:
    return origin.rstrip("/").lower()


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an IPv6 address that is none
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
