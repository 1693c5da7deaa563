"""Makes what a configuration names, and tries again what could not be made.

One console that can't open does not keep the others from being served. A chardev is there all the
same, with a stand-in for its backend (`trio_chardev.config.absent`); an object or a device is made
when that becomes possible. What the command line names has to be made at the start, as in QEMU.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from trio_chardev.cli.maker import RESTORE_TIMEOUT, Maker
from trio_chardev.cli.restore import WHAT, Make
from trio_chardev.errors import NOTICE, ChardevError
from trio_chardev.qmp.server.state import Table

if TYPE_CHECKING:
    from trio_chardev.cli.endpoints import Endpoints
    from trio_chardev.config.absent import Attempts

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 1.0  # seconds; it doubles
MAX_DELAY: Final = 60.0


def _log_trouble(said: str, table: Table, id: str, text: str) -> None:
    template = "%s%s '%s' is tried again: %s"
    log.error(template, said, WHAT[table], id, text, extra=_fields(table, id))


def _fields(table: Table, id: str) -> dict[str, dict[str, str]]:
    return {"fields": {table.removesuffix("s"): id}}


@attrs.frozen(eq=False, repr=False)
class _Trying:
    """Something that is tried again."""

    make: Callable[[], Awaitable[bool]]
    """Returns whether it was made; if not, it is not wanted any more."""
    attempts: Attempts
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)


@attrs.define(eq=False, repr=False)
class Later:
    """Makes objects, chardevs and devices as `Maker` does; those of a configuration perhaps later."""

    maker: Maker
    configured: Container[tuple[Table, str]]
    """What comes from files."""
    _nursery: trio.Nursery
    _trying: dict[tuple[Table, str], _Trying] = attrs.Factory(dict)
    _endpoints: Endpoints | None = attrs.field(init=False, default=None)

    @property
    def endpoints(self) -> Endpoints:
        """The pages of metrics."""
        if self._endpoints is None:
            from trio_chardev.cli.endpoints import Endpoints

            maker = self.maker
            self._endpoints = Endpoints(maker.service.registry, maker.inherited, self._nursery)
        return self._endpoints

    @property
    def makes(self) -> Mapping[Table, Make]:
        """How to make one of each table."""
        return {
            "objects": self._make_object,
            "chardevs": self._make_chardev,
            "devices": self._make_device,
        }

    @property
    def status(self) -> str:
        """How much is served, in a few words."""
        registry = self.maker.service.registry
        text = f"{len(registry)} chardevs, {len(registry.devices)} devices"
        return f"{text}; {len(self._trying)} to be tried again" if self._trying else text

    async def _make_object(self, id: str, options: Any, by_client: bool) -> None:
        await self._make("objects", id, options, by_client)

    async def _make_device(self, id: str, options: Any, by_client: bool) -> None:
        await self._make("devices", id, options, by_client)

    async def _make_chardev(self, id: str, options: Any, by_client: bool) -> None:
        if by_client or ("chardevs", id) not in self.configured:
            await self.maker.make_chardev(id, options, by_client)
            return
        try:
            await self.maker.add_chardev(id, options, RESTORE_TIMEOUT)
        except ChardevError as exc:
            from trio_chardev.config.absent import AbsentOptions

            attempts = self._note("chardevs", id, exc)
            stand_in = AbsentOptions(wanted=options, attempts=attempts)
            await self.maker.service.registry.add(id, stand_in)

            async def make() -> bool:
                return await self.maker.put_in_place(id, options, stand_in)

            self.try_again("chardevs", id, make, attempts)

    async def _make(self, table: Table, id: str, options: Any, by_client: bool) -> None:
        if by_client or (table, id) not in self.configured:
            await self._make_now(table, id, options, by_client)
            return

        async def make() -> bool:
            registry = self.maker.service.registry
            if id in (registry.objects if table == "objects" else registry.devices):
                return False  # a client has made one
            await self._make_now(table, id, options, False)
            return True

        try:
            await make()
        except ChardevError as exc:
            self.try_again(table, id, make, self._note(table, id, exc))

    async def _make_now(self, table: Table, id: str, options: Any, by_client: bool) -> None:
        maker = self.maker  # after a reload it is another
        make = maker.make_object if table == "objects" else maker.make_device
        await make(id, options, by_client)

    def _note(self, table: Table, id: str, error: ChardevError) -> Attempts:
        said = f"{self.maker.said[table, id]}: "
        text = str(error).removeprefix(said)
        _log_trouble(said, table, id, text)
        from trio_chardev.config.absent import Attempts

        return Attempts(text)

    def try_again(
        self, table: Table, id: str, make: Callable[[], Awaitable[bool]], attempts: Attempts
    ) -> None:
        """Call *make* ever less often until it returns, in a task, unless `pause` ends that."""
        self._trying[table, id] = trying = _Trying(make, attempts)
        self._nursery.start_soon(self._run, (table, id), trying)

    async def _run(self, key: tuple[Table, str], trying: _Trying) -> None:
        table, id = key
        attempts, delay = trying.attempts, FIRST_DELAY
        with trying.scope:
            while True:
                await attempts.wait(delay)
                delay = min(2 * delay, MAX_DELAY)
                try:
                    if await trying.make():
                        said = self.maker.said[key]
                        text = "%s: %s '%s' has opened"
                        log.log(NOTICE, text, said, WHAT[table], id, extra=_fields(table, id))
                    break
                except ChardevError as exc:
                    said = f"{self.maker.said[key]}: "
                    text = str(exc).removeprefix(said)
                    if text != attempts.error:
                        _log_trouble(said, table, id, text)
                    attempts.error = text
        if self._trying.get(key) is trying:
            del self._trying[key]

    def pause(self, table: Table, id: str) -> Callable[[], None] | None:
        """Try this no more; the function that is returned does so again. None if it is made."""
        trying = self._trying.pop((table, id), None)
        if trying is None:
            return None
        trying.scope.cancel()
        return functools.partial(self.try_again, table, id, trying.make, trying.attempts)

    def is_trying(self, table: Table, id: str) -> bool:
        """Is it still to be made?"""
        return (table, id) in self._trying
