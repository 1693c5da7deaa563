"""Makes what a service begins with, from the command line and from its state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs
import click
import trio

from trio_chardev.backends.socket import SocketOptions
from trio_chardev.core.device import DeviceOptions
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.frontends import driver_of
from trio_chardev.objects import ObjectOptions
from trio_chardev.options import BackendOptions
from trio_chardev.qmp.device_commands import add_device
from trio_chardev.qmp.object_commands import add_object
from trio_chardev.sandbox import EVERYWHERE, Sandbox
from trio_chardev.service import Service

RESTORE_TIMEOUT = 5.0  # seconds for each chardev of --state; the others wait meanwhile


@attrs.frozen
class Maker:
    """Makes what a service begins with; see `make_all`."""

    service: Service
    sandbox: Sandbox

    async def make_object(self, id: str, options: ObjectOptions, by_client: bool) -> None:
        objects = self.service.registry.objects
        await trio.lowlevel.checkpoint()
        with contextlib.nullcontext() if by_client else saying(f"--object id={id}"):
            objects.pop(id, None)
            add_object(objects, options, self.sandbox if by_client else EVERYWHERE)

    async def make_chardev(self, id: str, options: BackendOptions, by_client: bool) -> None:
        registry = self.service.registry
        if by_client:
            if isinstance(options, SocketOptions) and options.wait:
                options = attrs.evolve(options, wait=False)  # or the others would wait too
            change = registry.change if id in registry else registry.add
            result = await change(id, options, timeout=RESTORE_TIMEOUT, sandbox=self.sandbox)
        else:
            with saying(f"--chardev id={id}"):
                result = await registry.add(id, options)
        if result.pty is not None:
            click.echo(f"char device redirected to {result.pty} (label {id})")

    async def make_device(self, id: str, options: DeviceOptions, by_client: bool) -> None:
        devices = self.service.registry.devices
        await trio.lowlevel.checkpoint()
        if by_client and id in devices:  # the command line's, see `make_all`
            await devices.remove(id)
        with contextlib.nullcontext() if by_client else saying(f"--device {name_of(options)}"):
            add_device(devices, options, id)


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Begin the error's line with the option that is to blame."""
    try:
        yield
    except ChardevError as exc:
        error = OptionsError(f"{what}: {exc}")
        error.__notes__ = getattr(exc, "__notes__", [])
        raise error from exc


def name_of(device: DeviceOptions) -> str:
    """What an error calls it."""
    driver = driver_of(device).name
    return driver if device.id is None else f"{driver},id={device.id}"
