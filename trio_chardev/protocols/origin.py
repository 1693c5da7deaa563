"""Which web pages may connect (RFC 6455, 10.2), and what they may ask for.

A browser lets every page that is open in it connect to every WebSocket that the computer can reach,
and only tells where the page comes from, in the Origin header. Other programs send none.

That a page comes from the host that it connects to proves nothing if the host's owner can point its
name here after the page was loaded (DNS rebinding). So only addresses, and names that are known to
be this machine's, count; other origins have to be listed.
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
_PATH = re.compile(r"/[!-\"$-~]*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def is_path(text: str, *, with_query: bool) -> bool:
    """Can *text* be the target of a request as it is?"""
    return _PATH.fullmatch(text) is not None and (with_query or "?" not in text)


def can_be_allowed(text: str) -> bool:
    """Is it an origin, or `ANY`? Anything else, as a host without a scheme, matches no page."""
    return text == ANY or _ORIGIN.fullmatch(text) is not None


def may_connect(
    origin: str, host: str, allowed: Sequence[str], names: Collection[str] = ()
) -> bool:
    """May a page of *origin* connect to what it calls *host* (its Host header)?

    *allowed* are origins such as ``https://console.example`` or, for any port,
    ``https://console.example:*``; or `ANY`. Without them the page must come from the same host, by
    any port, and that host must be an address, ``localhost``, or one of *names*, which are in
    lower case. All loopback addresses count as one host.
    """
    if allowed:
        return ANY in allowed or any(_is_meant(_normal(origin), _normal(one)) for one in allowed)
    theirs, ours = _host_of(origin), _host_of(f"//{host}")
    if theirs is None or ours is None or not _is_known(ours, names):
        return False
    return theirs == ours or (_is_loopback(theirs) and _is_loopback(ours))


def is_known_host(host: str) -> bool:
    """Is *host*, a Host header, an address or ``localhost``, which no page can make its own name?"""
    ours = _host_of(f"//{host}")
    return ours is not None and _is_known(ours, ())


def _is_meant(origin: str, one: str) -> bool:
    """Does *origin* match *one*, an allowed origin? Both were normalized by `_normal`."""
    if one.endswith(":*"):
        return _PORT.sub("", origin) == one.removesuffix(":*")
    return origin == one


def _normal(origin: str) -> str:
    """Write it as browsers do (RFC 6454, 6.2): in lower case, without a default port."""
    origin = origin.rstrip("/").lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "") or "\0")


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an invalid IPv6 address
        return None


def _is_known(host: str, names: Collection[str]) -> bool:
    """Is *host*, taken from a URL, one that nobody else can point here?"""
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
