"""What is told of a chardev."""

from __future__ import annotations

from typing import Literal

import attrs
import trio

from trio_chardev.core.parts import Parts
from trio_chardev.core.runner import Runner
from trio_chardev.core.wall_clock import since_1970


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


@attrs.frozen(kw_only=True)
class ChardevStatistics:
    """The result of `Chardev.statistics`."""

    received: int
    """Bytes that have come from the other end."""
    sent: int
    """Bytes that the other end was sent."""
    connects: int
    """How often somebody has come to the other end, by a change too."""
    failures: int
    """How often an attempt to reach the other end has failed, or a backend has ended by itself."""
    changes: int
    """How often the backend was replaced."""
    failed_changes: int
    """How often it could not be."""
    paused: float
    """Seconds in which changes have let nothing pass."""
    last_pause: float | None
    """Those of the last change."""
    change_error: str | None
    """Why the last change has failed; None if it has not."""
    queued: int
    """Bytes that have come and no user has taken; an event among them counts as 64."""
    unsent: int
    """Bytes that a change has carried over, and the other end has not taken yet."""
    lost: int
    """Bytes for it that a hub gave up, as it was too slow."""
    blocked_since: float | None
    """Since when somebody waits to send to the other end, in seconds since 1970."""


def statistics_of(parts: Parts) -> ChardevStatistics:
    """The statistics of the chardev with these *parts*."""
    counts = parts.counts
    return ChardevStatistics(
        received=counts.received,
        sent=counts.sent,
        connects=counts.connects,
        failures=counts.failures,
        changes=counts.changes,
        failed_changes=counts.failed_changes,
        paused=counts.paused,
        last_pause=counts.last_pause,
        change_error=counts.change_error,
        queued=sum(len(inbox.queue) for inbox in parts.users.inboxes),
        unsent=len(parts.runner.carried),
        lost=sum(frontend.relay.lost for frontend in parts.frontends),
        blocked_since=since_1970(parts.outbox.blocked_at),
    )
