"""The registry maps ids to chardevs: add, change, remove, query. Only it knows all chardevs."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, ValuesView
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.table import Kind, openers_with
from trio_chardev.backends.taps.reopening import reopen_logs
from trio_chardev.core.backend import Backend, Opener, OpenerOf, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Environment, Files, number_as_fd
from trio_chardev.core.info import ChardevInfo
from trio_chardev.core.nursery import check_not_over, open_background_nursery
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.devices.base import Device
from trio_chardev.devices.registry import Devices, Driver, DriverOf, no_drivers
from trio_chardev.devices.table import drivers_with
from trio_chardev.errors import (
    BackendError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevExistsError,
    ChardevNotFoundError,
    failed_to,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.lending import Lending, checked, no_fd
from trio_chardev.notices import (
    ChardevAdded,
    ChardevBreak,
    ChardevChanged,
    ChardevClosed,
    ChardevOpened,
    ChardevRemoved,
    DeviceDeleted,
    Notice,
)
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import check_types

log = logging.getLogger(__name__)

RESERVED_ID = "type"
"""QEMU's container of chardevs is an object that has a property of this name itself."""


@attrs.define(eq=False, repr=False)
class Registry(Mapping[str, Chardev]):
    """The chardevs of one service, by id; made by `open_registry`."""

    _nursery: trio.Nursery
    _opener_of: OpenerOf
    on_notice: Callable[[Notice], None] = lambda notice: None
    """Called with each `Notice` about the chardevs; an exception that it raises is logged."""
    objects: dict[str, object] = attrs.Factory(dict)
    """Objects that options refer to by id, such as TLS credentials."""
    environment: Environment = attrs.field(init=False)
    """What every backend is given, see OpenRequest; what is put here holds for later openings."""
    devices: Devices = attrs.field(init=False)
    """The devices that use the chardevs, such as bridges."""
    object_devices: Devices = attrs.field(init=False)
    """Those of *objects* that use chardevs, as monitors do: devices whose ids are object ids."""
    _chardevs: dict[str, Chardev] = attrs.Factory(dict)
    _options: dict[str, BackendOptions] = attrs.Factory(dict)
    _sandboxes: dict[str, Sandbox] = attrs.Factory(dict)  # those in which the options are opened
    _adding: set[str] = attrs.Factory(set)  # ids whose first backend is being opened
    _lending: Lending = attrs.field(init=False)
    _told: dict[Chardev, Backend] = attrs.Factory(dict)  # last reported to `on_notice`

    def __attrs_post_init__(self) -> None:
        self.environment = Environment(
            chardevs=self._chardevs, objects=self.objects, tell=self.tell
        )
        self._lending = Lending(
            self._nursery, self._opener_again, self._with_environment, self._note_change, self.tell
        )

    def __getitem__(self, id: str) -> Chardev:
        try:
            return self._chardevs[id]
        except KeyError:
            raise ChardevNotFoundError(f"Chardev '{id}' not found") from None

    def __contains__(self, id: object) -> bool:
        return id in self._chardevs

    def __iter__(self) -> Iterator[str]:
        return iter(self._chardevs)

    def __len__(self) -> int:
        return len(self._chardevs)

    def values(self) -> ValuesView[Chardev]:
        """The chardevs, in the order in which they were added."""
        return self._chardevs.values()

    def query(self) -> list[ChardevInfo]:
        """The state of all chardevs, in the order in which they were added."""
        return [chardev.info for chardev in self._chardevs.values()]

    def options_of(self, id: str) -> BackendOptions:
        """The options that the backend of chardev *id* was opened with.

        Raises ChardevNotFoundError.
        """
        return self._options[self[id].id]

    @property
    def users(self) -> dict[str, list[str]]:
        """By id of a chardev, the ids of the devices, muxes and hubs that use it, if any do."""
        users: dict[str, list[str]] = defaultdict(list)
        for device in self.devices.values():
            for id in device.options.chardevs:
                users[id].append(device.id)
        for other, options in self._options.items():
            for id in options.stands_on:
                users[id].append(other)
        return dict(users)

    def users_of(self, id: str) -> list[str]:
        """The ids of the devices, muxes and hubs that use chardev *id*."""
        return self.users.get(id, [])

    async def add(
        self,
        id: str,
        options: BackendOptions,
        *,
        timeout: float | None = None,
        is_replayed: bool = False,
        take_fd: Callable[[str], int] = number_as_fd,
        sandbox: Sandbox = EVERYWHERE,
    ) -> Chardev:
        """Open a backend under a new id, and return its chardev.

        *timeout* is in seconds; None means that of the options.

        Raises ChardevExistsError, OptionsError if the options make no sense, BackendError if
        the backend can't be opened, ChardevClosedError when the registry's block is over. If it
        raises, nothing was added.
        """
        check_not_over(self._nursery, "registry")
        if id in self._chardevs or id in self._adding:
            raise ChardevExistsError(f"Chardev with id '{id}' already exists")
        if id == RESERVED_ID:
            raise ChardevExistsError(
                f"Failed to add chardev '{id}': attempt to add duplicate property '{id}' "
                "to object (type 'container')"
            )
        is_replayed = is_replayed or options.rr is not None
        chardev = Chardev(id, is_replayed=is_replayed, on_event=self._note_event)
        self._adding.add(id)
        try:
            with failed_to("add", id):
                check_types(options)
                opener = self._opener(options, take_fd, sandbox)
                await self._open(chardev, opener, _or_default(timeout, options))
            self._chardevs[id] = chardev
        finally:
            self._adding.discard(id)
        self._told[chardev] = chardev.backend
        self._options[id], self._sandboxes[id] = options, sandbox
        self.tell(ChardevAdded(id, chardev.backend.filename))
        if chardev.is_open:
            self._note_event(chardev, Event.OPENED, chardev.backend)
        return chardev

    async def _open(self, chardev: Chardev, opener: Opener, timeout: float) -> None:
        self._nursery.start_soon(chardev.run)
        try:
            await chardev.open(opener, timeout=timeout)
        except BaseException:
            await chardev.aclose()
            raise

    async def change(
        self,
        id: str,
        options: BackendOptions,
        *,
        timeout: float | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
        carry: bool = False,
        keep_peer: bool = False,
        take_fd: Callable[[str], int] = number_as_fd,
        sandbox: Sandbox = EVERYWHERE,
        instead_of: BackendOptions | None = None,
    ) -> Chardev:
        """Replace the backend of chardev *id*, and return the chardev; see `Chardev.change`.

        If its device is lent, it is so no more. With *instead_of*, the change is refused unless
        these very options are in force when its turn comes. Raises ChardevNotFoundError and what
        `Chardev.change` raises; then nothing has changed.
        """
        if id not in self._chardevs:
            raise ChardevNotFoundError(f"Chardev '{id}' does not exist")
        chardev = self._chardevs[id]

        def check() -> None:
            if instead_of is not None and self._options.get(id) is not instead_of:
                raise ChangeRefusedError(f"Chardev '{id}' has been changed meanwhile")

        # If the chardev has a user, QEMU does not put "Failed to change" in front of the reason.
        with contextlib.nullcontext() if chardev.frontends else failed_to("change", id):
            check_types(options)
            opener = self._opener(options, take_fd, sandbox)
            await chardev.change(
                checked(check, opener),
                timeout=_or_default(timeout, options),
                drain_timeout=drain_timeout,
                carry=carry,
                keep_peer=keep_peer,
            )
        self._options[id], self._sandboxes[id] = options, sandbox
        chardev.is_replayed = options.rr is not None
        self._note_change(chardev)
        self._lending.end(chardev)
        return chardev

    # ------------------------------------------------------------ lending

    def is_lent(self, id: str) -> bool:
        """Is the device of chardev *id* lent? Raises ChardevNotFoundError."""
        return self[id] in self._lending

    async def lend(self, id: str, to: str | None = None) -> Chardev:
        """Give the device of chardev *id* away, until `take_back`; return the chardev.

        It is closed, for another program to use. With *to* "pty" it stays open, and the user of a
        PTY, whose path is `Chardev.pty`, has it, until half a second after the PTY's last close. The
        chardev's users stay, and find nobody there. This is a change: when it raises anything,
        Cancelled included, nothing has changed.

        Raises ChardevNotFoundError, OptionsError, BackendError, ChangeRefusedError,
        ChangeFailedError, ChardevClosedError.
        """
        chardev = self[id]
        with failed_to("lend", id):
            await self._lending.lend(chardev, self._options[id], self._sandboxes[id], to)
        return chardev

    async def take_back(self, id: str) -> Chardev:
        """Open the device of chardev *id*, which was lent, again; return the chardev.

        This is a change: when it raises, for example because another program still has the device,
        it stays lent, and this can be tried again. Raises as `lend`.
        """
        chardev = self[id]
        with failed_to("take back", id):
            await self._lending.take_back(chardev)
        return chardev

    async def remove(self, id: str) -> None:
        """Close chardev *id* and forget it. This ends a change that is under way.

        Raises ChardevNotFoundError, ChardevBusyError, ChangeRefusedError. It is removed even if
        this call is cancelled.
        """
        chardev = self[id]
        if chardev.frontends or self.users_of(id):
            raise ChardevBusyError(f"Chardev '{id}' is busy")
        if chardev.is_replayed:
            raise ChangeRefusedError(f"Chardev '{id}' cannot be unplugged in record/replay mode")
        del self._chardevs[id], self._told[chardev], self._options[id], self._sandboxes[id]
        self._lending.forget(chardev)
        self.tell(ChardevRemoved(id))
        await chardev.aclose()

    async def reopen_logs(self, id: str | None = None) -> None:
        """Open the log file of chardev *id*, or all, anew: another file may have the name by now.

        Raises ChardevNotFoundError, and BackendError if a file can't be opened, or if chardev *id*
        has none; the others are opened all the same, see `reopen_logs`.
        """
        if not await reopen_logs(self.values() if id is None else [self[id]]) and id is not None:
            raise BackendError(f"Chardev '{id}' has no log file")

    def shut(self) -> None:
        """Make every chardev refuse new calls, before their tasks are cancelled."""
        for chardev in self._chardevs.values():
            chardev.shut()

    def send_break(self, id: str) -> None:
        """Deliver a break to the user of chardev *id*. Raises ChardevNotFoundError."""
        self[id].send_event(Event.BREAK)
        self.tell(ChardevBreak(id))

    def tell(self, notice: Notice) -> None:
        """Call `on_notice`, which may be foreign code: an exception that it raises is only logged."""
        try:
            self.on_notice(notice)
        except Exception:
            log.exception("on_notice failed: %r", notice)

    def note_device_end(self, device: Device) -> None:
        """Give notice that *device* is gone."""
        self.tell(DeviceDeleted(device.id, f"/machine/peripheral/{device.id}"))

    def forget_object(self, device: Device) -> None:
        """Forget the object that *device* was, now that it has ended."""
        if self.objects.get(device.id) is device:
            del self.objects[device.id]

    def _note_change(self, chardev: Chardev) -> None:
        """Give notice of the backend in place, unless that was done already."""
        before = self._told.get(chardev)
        if before is not None and before is not chardev.backend:
            self._told[chardev] = chardev.backend
            self.tell(ChardevChanged(chardev.id, before.filename, chardev.backend.filename))

    def _note_event(self, chardev: Chardev, event: BackendEvent, backend: Backend) -> None:
        """Give notice of *event*: after ADDED, after CHANGED of the same commit, before REMOVED."""
        if chardev not in self._told:
            return
        if backend is chardev.backend:
            self._note_change(chardev)
        match event:
            case Event.OPENED:
                self.tell(ChardevOpened(chardev.id, backend.filename))
            case Event.CLOSED:
                self.tell(ChardevClosed(chardev.id, backend.filename))
            case Event.BREAK:
                self.tell(ChardevBreak(chardev.id))

    def _opener(
        self, options: BackendOptions, take_fd: Callable[[str], int], sandbox: Sandbox
    ) -> Opener:
        return self._with_environment(self._opener_of(options), sandbox, take_fd)

    def _opener_again(self, options: BackendOptions, sandbox: Sandbox) -> Opener:
        return self._opener(options, no_fd, sandbox)

    def _with_environment(
        self, opener: Opener, sandbox: Sandbox, take_fd: Callable[[str], int] = no_fd
    ) -> Opener:
        def open_in_registry(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
            environment = self.environment
            request.environment = environment
            request.files = Files(sandbox=sandbox, take_fd=take_fd, open_path=environment.open_path)
            return opener(request)

        return open_in_registry


def open_registry(*rows: Kind[Any] | Driver[Any]) -> AbstractAsyncContextManager[Registry]:
    """Open a registry with all kinds and drivers of this package, and with your own *rows*.

    Its chardevs and devices end with the block. Raises TypeError for a row that is neither a Kind
    nor a Driver.
    """
    kinds = [row for row in rows if isinstance(row, Kind)]
    drivers = [row for row in rows if isinstance(row, Driver)]
    if len(kinds) + len(drivers) < len(rows):
        raise TypeError(f"each of {rows!r} must be a Kind or a Driver")
    return open_registry_with(openers_with(kinds), drivers_with(drivers))


@asynccontextmanager
async def open_registry_with(
    opener_of: OpenerOf, driver_of: DriverOf = no_drivers
) -> AsyncIterator[Registry]:
    """Open a registry. At the end of the block its devices end first, then its chardevs close."""
    async with open_background_nursery() as nursery:
        registry = Registry(nursery, opener_of)
        try:
            async with open_background_nursery() as users:
                registry.devices = Devices(registry, users, driver_of)
                registry.devices.objects = registry.objects
                registry.devices.on_end = registry.note_device_end
                registry.object_devices = Devices(registry, users, driver_of)
                registry.object_devices.on_end = registry.forget_object
                try:
                    yield registry
                    await registry.devices.settle()
                finally:
                    registry.devices.shut()
                    registry.object_devices.shut()
        finally:
            registry.shut()


def _or_default(timeout: float | None, options: BackendOptions) -> float:
    return options.open_timeout if timeout is None else timeout
