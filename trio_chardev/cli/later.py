"""Makes what a configuration names, and tries again what could not be made.

One console that can't open does not keep the others from being served. A chardev is there all the
same, with a stand-in for its backend (`trio_chardev.config.absent`); an object or a device is made
when that becomes possible. What the command line names has to be made at the start, as in QEMU.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from typing import Any, Final

import attrs
import trio

from trio_chardev.cli.maker import RESTORE_TIMEOUT, Maker
from trio_chardev.cli.restore import WHAT, Make
from trio_chardev.config.absent import AbsentOptions, Attempts
from trio_chardev.errors import ChardevError
from trio_chardev.qmp.server.state import Table

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 1.0  # seconds; it doubles
MAX_DELAY: Final = 60.0


@attrs.define(eq=False)
class Later:
    """Makes objects, chardevs and devices as `Maker` does; those of a configuration perhaps later."""

    maker: Maker
    configured: Container[tuple[Table, str]]
    """What comes from files."""
    _nursery: trio.Nursery
    _trying: dict[tuple[Table, str], trio.CancelScope] = attrs.Factory(dict)

    @property
    def makes(self) -> Mapping[Table, Make]:
        """How to make one of each table."""
        return {
            "objects": self._make_object,
            "chardevs": self._make_chardev,
            "devices": self._make_device,
        }

    async def _make_object(self, id: str, options: Any, by_client: bool) -> None:
        await self._make("objects", self.maker.make_object, id, options, by_client)

    async def _make_device(self, id: str, options: Any, by_client: bool) -> None:
        await self._make("devices", self.maker.make_device, id, options, by_client)

    async def _make_chardev(self, id: str, options: Any, by_client: bool) -> None:
        if by_client or ("chardevs", id) not in self.configured:
            await self.maker.make_chardev(id, options, by_client)
            return
        try:
            await self.maker.add_chardev(id, options, RESTORE_TIMEOUT)
        except ChardevError as exc:
            attempts = self._note("chardevs", id, exc)
            stand_in = AbsentOptions(wanted=options, attempts=attempts)
            await self.maker.service.registry.add(id, stand_in)

            async def make() -> bool:
                return await self.maker.put_in_place(id, options, stand_in)

            self._nursery.start_soon(self._try_again, ("chardevs", id), make, attempts)

    async def _make(self, table: Table, make: Make, id: str, options: Any, by_client: bool) -> None:
        if by_client or (table, id) not in self.configured:
            await make(id, options, by_client)
            return
        try:
            await make(id, options, False)
        except ChardevError as exc:

            async def make_it() -> bool:
                registry = self.maker.service.registry
                if id in (registry.devices if table == "devices" else registry.objects):
                    return False  # a client has made one
                await make(id, options, False)
                return True

            attempts = self._note(table, id, exc)
            self._nursery.start_soon(self._try_again, (table, id), make_it, attempts)

    def _note(self, table: Table, id: str, error: ChardevError) -> Attempts:
        said = f"{self.maker.said[table, id]}: "
        text = str(error).removeprefix(said)
        log.error("%s%s '%s' is tried again: %s", said, WHAT[table], id, text)
        return Attempts(text)

    async def _try_again(self, key: tuple[Table, str], make: Any, attempts: Attempts) -> None:
        table, id = key
        said = f"{self.maker.said[key]}: "
        delay = FIRST_DELAY
        with trio.CancelScope() as scope:
            self._trying[key] = scope
            while True:
                await attempts.wait(delay)
                delay = min(2 * delay, MAX_DELAY)
                try:
                    if await make():
                        log.warning("%s%s '%s' has opened", said, WHAT[table], id)
                    break
                except ChardevError as exc:
                    text = str(exc).removeprefix(said)
                    if text != attempts.error:
                        log.error("%s%s '%s' is tried again: %s", said, WHAT[table], id, text)
                    attempts.error = text
        if self._trying.get(key) is scope:
            del self._trying[key]

    def forget(self, table: Table, id: str) -> None:
        """Try this no more."""
        if (scope := self._trying.pop((table, id), None)) is not None:
            scope.cancel()

    def is_trying(self, table: Table, id: str) -> bool:
        """Is it still to be made?"""
        return (table, id) in self._trying
