"""Makes what a service starts with, from the command line and from the state file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import attrs
import trio

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.cli.errors import saying
from trio_chardev.cli.inherited import Inherited
from trio_chardev.cli.output import announce, printable
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Files
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.errors import ChardevError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.server.descriptors import NamedFds
from trio_chardev.qmp.server.state import Table
from trio_chardev.service import Service

RESTORE_TIMEOUT = 5.0  # seconds to restore one chardev, while the others wait


def _announce_pty(chardev: Chardev) -> None:
    if chardev.pty is not None:
        announce(f"char device redirected to {chardev.pty} (label {printable(chardev.id)})")


@attrs.frozen(repr=False)
class Maker:
    """Makes single objects, chardevs and devices; see `make_all`."""

    service: Service
    sandbox: Sandbox
    said: Mapping[tuple[Table, str], str]
    """The options of the command line, for error texts."""
    inherited: Inherited
    """The descriptors that the command line may name, but no client."""

    async def make_object(self, id: str, options: ObjectOptions, by_client: bool) -> None:
        registry = self.service.registry
        await trio.lowlevel.checkpoint()
        from trio_chardev.qmp.commands.object import add_object, drop_object

        await drop_object(registry, id)
        with contextlib.nullcontext() if by_client else saying(self.said["objects", id]):
            await add_object(registry, options, self.sandbox if by_client else EVERYWHERE)

    async def make_chardev(self, id: str, options: BackendOptions, by_client: bool) -> None:
        registry = self.service.registry
        if by_client:
            change = registry.change if id in registry else registry.add
            chardev = await change(
                id,
                options.when_restored(),
                timeout=RESTORE_TIMEOUT,
                sandbox=self.sandbox,
                take_fd=NamedFds().take,  # descriptors that a client passed are gone
            )
        else:
            with saying(self.said["chardevs", id], f"Failed to add chardev '{id}': "):
                chardev = await registry.add(id, options.at_start(), take_fd=self.inherited.take)
        _announce_pty(chardev)

    async def add_chardev(self, id: str, options: BackendOptions, timeout: float) -> None:
        """Add a chardev that waits for nobody. Raises ChardevError."""
        with saying(self.said["chardevs", id], f"Failed to add chardev '{id}': "):
            chardev = await self.service.registry.add(
                id, options.when_restored(), timeout=timeout, take_fd=self.inherited.take
            )
        _announce_pty(chardev)

    async def put_in_place(
        self, id: str, options: BackendOptions, stand_in: BackendOptions | None = None
    ) -> bool:
        """Change a chardev that waits for nobody. Raises ChardevError.

        With *stand_in*, it returns False, and changes nothing, if another has taken its place.
        """
        registry = self.service.registry
        try:
            with saying(self.said["chardevs", id], f"Failed to change chardev '{id}': "):
                chardev = await registry.change(
                    id,
                    options.when_restored(),
                    timeout=RESTORE_TIMEOUT,
                    take_fd=self.inherited.take,
                    instead_of=stand_in,
                )
        except ChardevError:
            if stand_in is not None and (
                id not in registry or registry.options_of(id) is not stand_in
            ):
                return False
            raise
        _announce_pty(chardev)
        return True

    async def make_device(self, id: str, options: DeviceOptions, by_client: bool) -> None:
        from trio_chardev.qmp.commands.device import add_device

        devices = self.service.registry.devices
        await trio.lowlevel.checkpoint()
        if by_client and id in devices:  # made from the command line, see `make_all`
            await devices.remove(id)
        with contextlib.nullcontext() if by_client else saying(self.said["devices", id]):
            files = (
                Files(sandbox=self.sandbox, take_fd=NamedFds().take)
                if by_client
                else Files(take_fd=self.inherited.take)
            )
            await add_device(devices, options, id, files)
