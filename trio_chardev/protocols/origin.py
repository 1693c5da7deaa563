"""Which web pages may connect (RFC 6455, 10.2).

A browser lets every page that is open in it connect to every WebSocket that the computer
reaches, and says only where the page has come from. Who is no browser does not say so.

That a page has come from the host that it connects to says nothing where its owner can have the
host's name lead here, after it was loaded (DNS rebinding). So only addresses and names that are
known to be this machine's count; for others the origins have to be listed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

ANY = "*"
_ORIGIN = re.compile(
    r"null|[a-z][a-z0-9+.-]*://(?:\[[^/?#@\s*\]]+\]|[^/?#@\s*:\[\]]+)(?::(?:[0-9]+|\*))?/?",
    re.ASCII | re.IGNORECASE,
)
_PORT = re.compile(r":(?:[0-9]+|\*)$")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def can_be_allowed(text: str) -> bool:
    """Is it an origin, or `ANY`? What is none, as a host without a scheme, allows nobody."""
    return text == ANY or _ORIGIN.fullmatch(text) is not None


def may_connect(
    origin: str, host: str, allowed: Sequence[str], names: Collection[str] = ()
) -> bool:
    """May a page of *origin* use what it calls *host* (a Host header)?

    *allowed* are origins, as ``https://console.example`` or, whatever its port,
    ``https://console.example:*``; or `ANY`. Without them the page must
    have come from the same host, by whatever port, and that host must be called by an address,
    ``localhost``, or one of *names*, which are in lower case. Loopback's are one host.
    """
    if allowed:
        return ANY in allowed or any(_is_meant(_normal(origin), _normal(one)) for one in allowed)
    theirs, ours = _host_of(origin), _host_of(f"//{host}")
    if theirs is None or ours is None or not _is_known(ours, names):
        return False
    return theirs == ours or (_is_loopback(theirs) and _is_loopback(ours))


def _is_meant(origin: str, one: str) -> bool:
    """Is *origin* the *one* that may connect? Both are as `_normal` makes them."""
    if one.endswith(":*"):
        return _PORT.sub("", origin) == one.removesuffix(":*")
    return origin == one


def _normal(origin: str) -> str:
    """As browsers write it (RFC 6454, 6.2): in lower case, without the port that goes unsaid."""
    origin = origin.rstrip("/").lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "") or "\0")


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an IPv6 address that is none
        return None


def _is_known(host: str, names: Collection[str]) -> bool:
    """Can nobody else have *host*, as it is in a URL, lead here?"""
    if host == "localhost" or host in names:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
