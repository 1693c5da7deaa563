"""How many log lines of one cause are printed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import attrs

from trio_chardev.service_log.entry import entry_of

LIMITED_LEVEL = logging.INFO
"""Records below it are not limited: whoever wants details wants all of them."""

BURST, INTERVAL = 50, 1.0  # lines of one cause at once; then seconds for each further line
BURST_OF_ONE, INTERVAL_OF_ONE = 10, 10.0  # the same for lines with the same first argument
TELL_INTERVAL = 10.0  # seconds until the number of lines left out is printed
MAX_BUCKETS = 1000
FULL_AFTER = max(BURST * INTERVAL, BURST_OF_ONE * INTERVAL_OF_ONE)
"""Seconds after which an unused bucket is full again."""


@attrs.define(repr=False)
class _Bucket:
    """A token bucket: how many lines may pass now."""

    tokens: float
    time: float

    def take(self, now: float, burst: int, interval: float) -> bool:
        self.tokens = min(burst, self.tokens + (now - self.time) / interval)
        self.time = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@attrs.define(repr=False)
class _LeftOut:
    """The lines of one cause that were left out since that was last printed."""

    since: float
    count: int
    last: logging.LogRecord


class RateLimit:
    """Decides which records are printed. The cause of a record is its place in the code.

    A record's first argument, usually a chardev, has a limit of its own, so that a noisy chardev
    does not hide others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, ...], _Bucket] = {}  # the last used comes last
        self._left_out: dict[tuple[str, ...], _LeftOut] = {}

    @property
    def has_left_out(self) -> bool:
        """Were lines left out and not reported yet?"""
        return bool(self._left_out)

    def filter(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return what to print: nothing, or *record*, perhaps after a report of lost lines."""
        if record.levelno < LIMITED_LEVEL:
            return [record]
        now = self._clock()
        cause, first = _cause_of(record)
        one = () if first is None else (*cause, first)
        if (one and not self._take(one, now, BURST_OF_ONE, INTERVAL_OF_ONE)) or not self._take(
            cause, now, BURST, INTERVAL
        ):
            left_out = self._left_out.setdefault(cause, _LeftOut(now, 0, record))
            left_out.count += 1
            left_out.last = record
            return []
        return [*self._tell(cause), record]

    def _take(self, key: tuple[str, ...], now: float, burst: int, interval: float) -> bool:
        bucket = self._buckets.pop(key, None) or _Bucket(burst, now)
        self._buckets[key] = bucket
        may_come = bucket.take(now, burst, interval)
        while len(self._buckets) > MAX_BUCKETS or self._is_oldest_full(now):
            del self._buckets[next(iter(self._buckets))]
        return may_come

    def _is_oldest_full(self, now: float) -> bool:
        """Is the oldest bucket full, and so equal to a new one? Its file may be long gone."""
        return next(iter(self._buckets.values())).time < now - FULL_AFTER

    def take_due(self, *, at_end: bool = False) -> list[logging.LogRecord]:
        """Reports about lines that were left out some time ago; *at_end* about all."""
        before = self._clock() - TELL_INTERVAL
        due = [cause for cause, some in self._left_out.items() if at_end or some.since <= before]
        return [record for cause in due for record in self._tell(cause)]

    def _tell(self, cause: tuple[str, ...]) -> Iterator[logging.LogRecord]:
        some = self._left_out.pop(cause, None)
        if some is not None:
            text = f"{some.count} more like this: {some.last.getMessage()}"
            fields = {**entry_of(some.last).fields, "more": some.count}
            changes = {"msg": text, "args": (), "exc_info": None, "exc_text": None}
            yield logging.makeLogRecord(some.last.__dict__ | changes | {"fields": fields})


def _cause_of(record: logging.LogRecord) -> tuple[tuple[str, str], str | None]:
    """The cause of *record*, and the one it is about; ``extra={"cause": (...)}`` says both."""
    msg, first = getattr(record, "cause", (record.msg, None))
    if first is None and isinstance(record.args, tuple) and record.args:
        first = str(record.args[0])
    return (record.name, str(msg)), first
