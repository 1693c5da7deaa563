"""What is told of a chardev."""

from __future__ import annotations

from typing import Literal

import attrs
import trio

from trio_chardev.core.runner import Runner


@attrs.frozen
class ChardevInfo:
    """What query-chardev shows of a chardev."""

    label: str
    filename: str
    frontend_open: bool
    """Has its user opened it?"""
    lost: int = 0
    """Bytes that a hub did not send to it, because it was too slow or failed."""
    waiting: int = 0
    """Clients that wait until a server's client leaves."""


@attrs.frozen(kw_only=True)
class ChardevState:
    """Is somebody at a chardev's other end? If not, why, and how may that change?"""

    state: Literal["open", "waiting", "closed", "failed"]
    """open: somebody is there; waiting: somebody may come, or is looked for; closed: nobody will
    come without a change; failed: the backend has ended, and only a change helps."""
    since: float
    """When somebody came or nobody was left, in seconds since 1970."""
    last_error: str | None = None
    """Why nobody is there, if an attempt, a connection or the backend has ended with a reason."""
    next_try: float | None = None
    """In how many seconds it is tried again; None if it is being tried, or never is."""


def state_of(runner: Runner, since: float) -> ChardevState:
    """The state of a chardev with *runner* in place, which is so *since* that time."""
    if runner.closed.is_set():
        error = None if runner.error is None else str(runner.error)
        return ChardevState(state="failed", since=since, last_error=error)
    if runner.backend.is_open:
        return ChardevState(state="open", since=since)
    outlook = runner.backend.peer.outlook
    return ChardevState(
        state="waiting" if outlook.may_come else "closed",
        since=since,
        last_error=outlook.last_error,
        next_try=None
        if outlook.next_try is None
        else max(0.0, outlook.next_try - trio.current_time()),
    )
