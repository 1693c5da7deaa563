"""A service with a configuration, in this process."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from trio_chardev.cli.later import Later
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.reload import Reloader
from trio_chardev.cli.serve import add_all
from trio_chardev.config.absent import ABSENT
from trio_chardev.config.configuration import read_configuration
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.qmp.commands.config import Reloaded
from trio_chardev.qmp.server.state import StateFile
from trio_chardev.registry import Registry
from trio_chardev.service import Service, open_service


@attrs.frozen(eq=False)
class Served:
    """The service, and its file."""

    service: Service
    later: Later
    reloader: Reloader
    file: Path

    async def reload(self, text: str) -> Reloaded:
        """Reload with *text* in the file."""
        self.file.write_text(textwrap.dedent(text))
        return await self.reloader.reload()

    @property
    def registry(self) -> Registry:
        return self.service.registry


def options_of(file: Path) -> ServeOptions:
    """Read the file as ``serve --config`` does."""
    listener = f"unix:{file.parent}/q,server=on,wait=off"
    return ServeOptions.parse(
        [], [], [listener], None, print, configuration=read_configuration([str(file)])
    )


@asynccontextmanager
async def serving(folder: Path, text: str) -> AsyncIterator[Served]:
    """Serve the configuration *text*, which is in ``folder/x.toml``."""
    file = folder / "x.toml"
    file.write_text(textwrap.dedent(text))
    async with open_service(ABSENT) as service, open_background_nursery() as nursery:
        options = options_of(file)
        later = await add_all(service, options, StateFile(), nursery)
        reloader = Reloader(options, later, StateFile(), lambda: options_of(file), nursery)
        yield Served(service, later, reloader, file)
