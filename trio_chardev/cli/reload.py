"""Applies the difference when configuration files have changed, all of it or nothing.

What is the same in the files as before is not touched, whatever QMP clients have made of it. What
they have changed is made as the files say now. Each step says how to undo it, before it is made;
when one fails, those that were made are undone, the last first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import attrs
import trio

from trio_chardev.access.objects import MonitorQmp
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.later import Later
from trio_chardev.cli.maker import RESTORE_TIMEOUT
from trio_chardev.cli.notify import Notifier
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.reader import MetricsPage
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import NOTICE, ChardevError, OptionsError
from trio_chardev.files import work_on_files
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.config import Reloaded
from trio_chardev.qmp.commands.object import drop_object
from trio_chardev.qmp.server.state import StateFile, Table
from trio_chardev.registry import Registry
from trio_chardev.service_log.options import LogOptions

log = logging.getLogger(__name__)

UNIONS: Final[dict[Table, TaggedUnion]] = {
    "objects": OBJECT,
    "chardevs": BACKEND,
    "devices": DEVICE,
}
Step = Callable[[], Awaitable[object]]
Key = tuple[Table, str]


@attrs.frozen
class Difference:
    """What the files say otherwise than before."""

    old: ServeOptions
    new: ServeOptions

    def of(self, table: Table) -> Iterator[tuple[str, Any, Any]]:
        """Each id that differs, with its options before and now; None where it is not there."""
        before, now = getattr(self.old, table), getattr(self.new, table)
        for id in (*(id for id in before if id not in now), *now):
            if before.get(id) != now.get(id):
                yield id, before.get(id), now.get(id)

    @property
    def keys(self) -> list[Key]:
        """All that differs."""
        return [(table, id) for table in UNIONS for id, _, _ in self.of(table)]

    @property
    def metrics(self) -> tuple[list[MetricsPage], list[MetricsPage]]:
        """The pages of metrics that are there no more, and those that are new."""
        old, new = self.old.metrics, self.new.metrics
        before, now = ({page.options for page in pages} for pages in (old, new))
        return (
            [page for page in old if page.options not in now],
            [page for page in new if page.options not in before],
        )

    def check(self) -> None:
        """Raise OptionsError for what can't be applied while the service runs."""
        for name in ("monitors", "listeners"):
            before, now = (
                [one.options for one in getattr(options, name)] for options in (self.old, self.new)
            )
            if before != now:
                key = {"monitors": "monitor", "listeners": "qmp"}[name]
                raise OptionsError(f"'{key}' has changed in the files: that takes a restart")

    @property
    def result(self) -> Reloaded:
        """What is told of it."""
        rows = [(id, before, now) for table in UNIONS for id, before, now in self.of(table)]
        return Reloaded(
            added=tuple(id for id, before, _ in rows if before is None),
            changed=(
                *(id for id, before, now in rows if None not in (before, now)),
                *(("metrics",) if any(self.metrics) else ()),
            ),
            removed=tuple(id for id, _, now in rows if now is None),
        )


@attrs.define(eq=False, repr=False)
class Reloader:
    """Reads the files of a running service again."""

    _options: ServeOptions
    """Those in force."""
    _later: Later
    _state_file: StateFile
    _reread: Callable[[], ServeOptions]
    _nursery: trio.Nursery
    _notifier: Notifier = attrs.Factory(Notifier)
    apply_log: Callable[[LogOptions], object] = lambda options: None
    """Has the service's log written as its options say. Raises OptionsError."""
    _lock: trio.Lock = attrs.Factory(trio.Lock)

    async def reload(self) -> Reloaded:
        """Apply what the files say now. Raises ChardevError, and then nothing has changed.

        When Cancelled, it goes on by itself.
        """
        results: list[Reloaded | Exception] = []
        is_over = trio.Event()

        async def run() -> None:
            try:
                async with self._lock:
                    results.append(await self._try())
            finally:
                is_over.set()

        self._nursery.start_soon(run)
        await is_over.wait()
        (result,) = results or [ChardevError("the service stops")]
        if isinstance(result, Exception):
            raise result
        return result

    async def reload_at(self, signalled: trio.MemoryReceiveChannel[int]) -> None:
        """Do `reload` at each item."""
        async for _ in signalled:
            with contextlib.suppress(ChardevError):
                await self.reload()

    async def _try(self) -> Reloaded | Exception:
        """Reload, and tell the log and the service manager how that went."""
        await self._notifier.reloading()
        result: Reloaded | Exception
        failure = ""
        try:
            result = await self._reload()
            log.log(NOTICE, "reloaded: %s", result.text)
        except Exception as exc:
            result = exc
            failure = f"; not reloaded: {exc}"
            for text in (str(exc), *getattr(exc, "__notes__", ())):
                log.error("not reloaded: %s", text)
        await self._notifier.ready(self._later.status + failure)
        return result

    async def _reload(self) -> Reloaded:
        try:
            new = await work_on_files(self._reread)
        except OSError as exc:
            raise OptionsError(f"the files can't be read: {exc}") from exc
        difference = Difference(self._options, new)
        difference.check()
        maker = self._later.maker
        is_logged_otherwise = new.log != self._options.log
        if is_logged_otherwise:
            self.apply_log(new.log)
        self._later.maker = attrs.evolve(maker, said={**maker.said, **new.said})
        try:
            await _Change(self._later, difference).make()
        except BaseException:
            self._later.maker = maker
            if is_logged_otherwise:
                self.apply_log(self._options.log)
            raise
        for table, id in difference.keys:
            options = getattr(new, table).get(id)
            was = None if options is None else unstructure(options, UNIONS[table])
            self._state_file.set_base(table, id, was)
            self._state_file.forget(table, id)
        await self._state_file.flush()
        self._options = new
        self._later.maker = attrs.evolve(maker, said=new.said)
        self._later.configured = new.configured
        return difference.result


@attrs.define(eq=False, repr=False)
class _Change:
    """One application of a difference."""

    _later: Later
    _difference: Difference
    _undo: list[Step] = attrs.Factory(list)

    @property
    def _registry(self) -> Registry:
        return self._later.maker.service.registry

    async def make(self) -> None:
        """Make all steps, or undo those that were made. Raises ChardevError."""
        self._check_removals()
        for key in self._difference.keys:
            self._pause(key)
        error: Exception | None = None
        try:
            await self._make_steps()
        except Exception as exc:
            error = exc
        if error is not None:
            await self._undo_all(error)
            raise error

    def _check_removals(self) -> None:
        """Raise OptionsError if a client's device would keep a chardev from being removed.

        That would be found later, too, but by then devices would have been removed, and made again
        without their clients.
        """
        gone = {id for id, _, now in self._difference.of("chardevs") if now is None}
        ours = {id for _, id in self._difference.keys}
        users = self._registry.users
        for id in gone:
            for user in users.get(id, ()):
                if user not in ours:
                    where = self._later.maker.said["chardevs", id]
                    raise OptionsError(f"{where}: '{id}' can't be removed: '{user}' uses it")

    async def _undo_all(self, error: Exception) -> None:
        """Undo the steps that were made before *error*, which gets a note about what fails now."""
        for undo in reversed(self._undo):
            try:
                await undo()
            except ChardevError as failure:
                log.error("after a failed reload: %s", failure)
                error.add_note(f"and this could not be undone: {failure}")

    async def _make_steps(self) -> None:
        objects = [row for row in self._difference.of("objects") if not _is_monitor(row)]
        monitors = [row for row in self._difference.of("objects") if _is_monitor(row)]
        chardevs = list(self._difference.of("chardevs"))
        devices = list(self._difference.of("devices"))
        for id, before, now in objects:
            if now is not None:
                await self._put_object(id, before, now)
        later = []
        for id, _, now in chardevs:
            if now is None:
                continue
            if id in self._registry and all(base in self._registry for base in now.stands_on):
                await self._change(id, now)
            else:
                later.append((id, now))  # what it stands on comes first
        for id, before, _ in monitors:
            await self._drop_object(id, before)
        for id, _, _ in devices:
            await self._remove_device(id)
        for id, _, now in reversed(chardevs):
            if now is None:
                await self._remove(id)
        for id, now in later:
            await (self._change if id in self._registry else self._add)(id, now)
        for id, _, now in monitors:
            if now is not None:
                await self._put_object(id, None, now)
        for id, _, now in devices:
            if now is not None:
                await self._add_device(id, now)
        for id, before, now in objects:
            if now is None:
                await self._drop_object(id, before)
        gone, come = self._difference.metrics
        for page in gone:
            await self._close_metrics(page)
        for page in come:
            await self._open_metrics(page)

    def _pause(self, key: Key) -> None:
        """Try no more to make what the files say otherwise now."""
        resume = self._later.pause(*key)
        if resume is not None:

            async def undo() -> None:
                resume()

            self._undo.append(undo)

    # ------------------------------------------------------------ chardevs

    async def _change(self, id: str, options: Any) -> None:
        before = self._registry.options_of(id)

        async def undo() -> None:
            await self._registry.change(id, before, timeout=RESTORE_TIMEOUT)

        await self._later.maker.put_in_place(id, options)
        self._undo.append(undo)

    async def _add(self, id: str, options: Any) -> None:
        await self._later.maker.add_chardev(id, options, RESTORE_TIMEOUT)

        async def undo() -> None:
            await self._registry.remove(id)

        self._undo.append(undo)

    async def _remove(self, id: str) -> None:
        if id not in self._registry:
            return  # a client has removed it
        before = self._registry.options_of(id)
        await self._registry.remove(id)

        async def undo() -> None:
            await self._registry.add(id, before.when_restored(), timeout=RESTORE_TIMEOUT)

        self._undo.append(undo)

    # ------------------------------------------------------------ devices and objects

    async def _remove_device(self, id: str) -> None:
        device = self._registry.devices.get(id)
        if device is None:
            return

        async def undo() -> None:
            await self._later.maker.make_device(id, device.options, False)

        await self._registry.devices.remove(id)
        self._undo.append(undo)

    async def _add_device(self, id: str, options: Any) -> None:
        await self._later.maker.make_device(id, options, False)

        async def undo() -> None:
            await self._registry.devices.remove(id)

        self._undo.append(undo)

    async def _put_object(self, id: str, before: Any, options: Any) -> None:
        async def undo() -> None:
            await drop_object(self._registry, id)
            if before is not None:
                await self._later.maker.make_object(id, before, False)

        self._undo.append(undo)  # it begins with dropping the one that is there
        await self._later.maker.make_object(id, options, False)

    async def _drop_object(self, id: str, before: Any) -> None:
        if id not in self._registry.objects:
            return

        async def undo() -> None:
            await self._later.maker.make_object(id, before, False)

        await drop_object(self._registry, id)
        if before is not None:
            self._undo.append(undo)

    # ------------------------------------------------------------ metrics

    async def _close_metrics(self, page: MetricsPage) -> None:
        async def undo() -> None:
            await self._later.endpoints.open(page.options, page.said)

        await self._later.endpoints.close(page.options)
        self._undo.append(undo)

    async def _open_metrics(self, page: MetricsPage) -> None:
        async def undo() -> None:
            await self._later.endpoints.close(page.options)

        await self._later.endpoints.open(page.options, page.said)
        self._undo.append(undo)


def _is_monitor(row: tuple[str, Any, Any]) -> bool:
    return any(isinstance(options, MonitorQmp) for options in row[1:])
