"""Sends events to the clients of all monitors, but to the one whose command has caused them."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import attrs
import trio

from trio_chardev.notices import ChardevClientTold, DeviceDeleted
from trio_chardev.qmp.server.event_log import log_event
from trio_chardev.qmp.server.events import (
    Shutdown,
    Throttle,
    message_of,
    outdated_keys,
    rate_key,
)
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.qmp.server.origin import Origin


@attrs.frozen(slots=False, repr=False)
class News:
    """An event to be sent, and which clients know of it already."""

    event: object
    time_ns: int
    origin: object
    """The dispatcher of the command that caused it."""

    id: str | None
    """The chardev that the event is about: clients on that chardev itself are not told."""

    def is_for(self, monitor: Monitor) -> bool:
        """Should the client of *monitor* be told?"""
        return monitor.dispatcher is not self.origin and monitor.chardev.id != self.id

    @functools.cached_property
    def message(self) -> dict[str, Any]:
        """The message; made only when somebody is there to be told, which is rare."""
        return message_of(self.event, self.time_ns)


@attrs.define(eq=False, repr=False)
class Broadcast:
    """What is told to all clients, some of it not too often."""

    monitors: set[Monitor] = attrs.Factory(set)
    """Those whose clients are told."""
    _throttle: Throttle[News] = attrs.Factory(Throttle)
    _throttled: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def emit(self, event: object) -> None:
        """Send an event, of a class in `EVENTS`, to every client that has negotiated.

        A client is not told of what its own command has caused, as it gets the reply (but it is
        told of SHUTDOWN, of CHARDEV_CLIENT_TOLD, as what is told is in no reply, and, as in QEMU,
        of DEVICE_DELETED), nor of what happens to its monitor's
        own chardev. So a client written for QEMU, which has none of these events, sees none that
        it caused itself. Some are rate-limited, see `Throttle`.
        """
        for_all = isinstance(event, Shutdown | DeviceDeleted | ChardevClientTold)
        origin = None if for_all else Origin.of_now()
        log_event(event)
        news = News(event, time.time_ns(), origin, getattr(event, "id", None))
        for key in outdated_keys(event):
            self._throttle.drop(key)
        if self._throttle.offer(rate_key(event), news, trio.current_time()):
            self._send(news)
        else:
            self._throttled.unpark_all()

    def _send(self, news: News) -> None:
        for monitor in list(self.monitors):
            if news.is_for(monitor):
                monitor.send_event(news.message)

    async def run(self) -> None:
        """Send the events that the rate limit has held back, when they are due."""
        while True:
            if math.isinf(self._throttle.next_deadline):
                await self._throttled.park()
            await trio.sleep_until(self._throttle.next_deadline)
            for news in self._throttle.take_due(trio.current_time()):
                self._send(news)
