"""From addresses to endpoints, in the event loop."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import trio

from trio_chardev.backends.socket.addresses import (
    Endpoint,
    InetAddress,
    SocketAddress,
    fixed_endpoint,
)
from trio_chardev.backends.socket.lookup import (
    Query,
    endpoints_in,
    look_up_numbers,
    lookup_errors,
    query_of,
)
from trio_chardev.workers import limiter_of_run, run_in_worker

MAX_LOOKUPS = 64  # of names at the same time; a resolver that hangs may keep one for a minute

_lookups: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("lookups")


async def resolve(
    address: SocketAddress,
    *,
    passive: bool,
    kind: int = socket.SOCK_STREAM,
    family: int = socket.AF_UNSPEC,
) -> list[Endpoint]:
    """Return the endpoints of *address*: for listening if *passive*, else for connecting.

    Raises BackendError, with QEMU's texts. When Cancelled, nothing has happened.
    """
    if not isinstance(address, InetAddress):
        return [fixed_endpoint(address)]
    query = query_of(address, passive=passive, kind=kind, family=family)
    with lookup_errors(address):
        found = await _look_up(query)
    return endpoints_in(found, address)


async def _look_up(query: Query) -> Sequence[Any]:
    """Call getaddrinfo(3), in a thread if there are names in it. Raises OSError, ValueError.

    The thread can't be stopped when the resolver hangs, so it is abandoned; it counts among
    `MAX_LOOKUPS` until it ends, and not in the limit that others use, as it would with
    trio.socket.getaddrinfo.
    """
    await trio.lowlevel.checkpoint()
    if (found := look_up_numbers(query)) is not None:
        return found
    limiter = limiter_of_run(_lookups, MAX_LOOKUPS)
    return await run_in_worker(socket.getaddrinfo, *query, limiter=limiter)
