"""QMP events: their table, their messages, and their rate limit.

QEMU's only event of a chardev is VSERPORT_CHANGE; the names here follow its pattern.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, Final, Generic, Literal, TypeVar

import attrs

from trio_chardev.notices import (
    ChardevAdded,
    ChardevBreak,
    ChardevChanged,
    ChardevClientAttached,
    ChardevClientDetached,
    ChardevClientTold,
    ChardevClosed,
    ChardevLent,
    ChardevMark,
    ChardevOpened,
    ChardevRemoved,
    ChardevReturned,
    ChardevWriterChanged,
    DeviceDeleted,
)
from trio_chardev.options.members import flat_json

ShutdownReason = Literal["host-qmp-quit", "host-signal", "host-ui", "host-error"]
T = TypeVar("T")
RATE_INTERVAL = 1.0  # seconds between two events of one key, as for QEMU's VSERPORT_CHANGE


@attrs.frozen(kw_only=True)
class Shutdown:
    """The service is stopping."""

    guest: bool
    """Always false: only QEMU has a guest that can stop itself."""

    reason: ShutdownReason
    """A ShutdownCause of QAPI."""

    def __str__(self) -> str:
        return f"stopping: {self.reason}"


EVENTS: Final[dict[str, type[Any]]] = {
    "SHUTDOWN": Shutdown,
    "CHARDEV_ADDED": ChardevAdded,
    "CHARDEV_CHANGED": ChardevChanged,
    "CHARDEV_REMOVED": ChardevRemoved,
    "CHARDEV_OPENED": ChardevOpened,
    "CHARDEV_CLOSED": ChardevClosed,
    "CHARDEV_BREAK": ChardevBreak,
    "CHARDEV_LENT": ChardevLent,
    "CHARDEV_RETURNED": ChardevReturned,
    "CHARDEV_CLIENT_ATTACHED": ChardevClientAttached,
    "CHARDEV_CLIENT_DETACHED": ChardevClientDetached,
    "CHARDEV_CLIENT_TOLD": ChardevClientTold,
    "CHARDEV_WRITER_CHANGED": ChardevWriterChanged,
    "CHARDEV_MARK": ChardevMark,
    "DEVICE_DELETED": DeviceDeleted,
}
_NAME_OF: Final = {cls: name for name, cls in EVENTS.items()}


def name_of(event: object) -> str:
    """The name of *event*, whose class is one of `EVENTS`."""
    return _NAME_OF[type(event)]


def message_of(event: object, time_ns: int | None = None) -> dict[str, Any]:
    """Make the QMP message for *event*, whose class is one of `EVENTS`.

    Its timestamp is *time_ns*, in nanoseconds since 1970, or now.
    """
    seconds, nanoseconds = divmod(time.time_ns() if time_ns is None else time_ns, 10**9)
    return {
        "timestamp": {"seconds": seconds, "microseconds": nanoseconds // 1000},
        "event": name_of(event),
        "data": flat_json(event),
    }


def rate_key(event: object) -> Hashable:
    """The key of *event*: events with the same key share a rate limit; None means no limit.

    OPENED and CLOSED of a chardev share a key, so that the last one sent is the truth.
    """
    match event:
        case ChardevOpened(id=id) | ChardevClosed(id=id):
            return "open", id
        case ChardevBreak(id=id):
            return "break", id
        case ChardevWriterChanged(id=id):
            return "writer", id
        case ChardevMark(id=id, name=name):
            return "mark", id, name
    return None


def outdated_keys(event: object) -> tuple[Hashable, ...]:
    """The keys of events that must not be sent after *event*, if they still wait."""
    match event:
        case ChardevRemoved(id=id):
            return ("open", id), ("break", id)
    return ()


@attrs.define(repr=False)
class Throttle(Generic[T]):
    """Lets one message for each key pass per interval, and keeps only the last that has to wait.

    Sans-IO: the caller gives the time, in seconds, and calls `take_due` at `next_deadline`.
    """

    interval: float = RATE_INTERVAL
    _deadlines: dict[Hashable, float] = attrs.Factory(dict)  # in order of time
    _waiting: dict[Hashable, T] = attrs.Factory(dict)

    def offer(self, key: Hashable, message: T, now: float) -> bool:
        """May *message* be sent now? If not, it waits, replacing an earlier one."""
        if key is None:
            return True
        self._forget_idle(now)
        if key in self._deadlines:
            self._waiting[key] = message
            return False
        self._deadlines[key] = now + self.interval
        return True

    def drop(self, key: Hashable) -> None:
        """Drop the message of *key* that waits, if there is one."""
        self._waiting.pop(key, None)

    def _forget_idle(self, now: float) -> None:
        """Forget keys whose interval is over, as `take_due` is called only while messages wait."""
        while self.next_deadline <= now:
            key = next(iter(self._deadlines))
            if key in self._waiting:
                return
            del self._deadlines[key]

    @property
    def next_deadline(self) -> float:
        """When to call `take_due`; infinity means never."""
        return next(iter(self._deadlines.values()), float("inf"))

    def take_due(self, now: float) -> list[T]:
        """Take the messages whose time has come."""
        due = []
        while self.next_deadline <= now:
            key = next(iter(self._deadlines))
            del self._deadlines[key]
            if key in self._waiting:
                due.append(self._waiting.pop(key))
                self._deadlines[key] = now + self.interval
        return due
