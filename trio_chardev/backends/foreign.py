"""The kinds of QEMU that belong to an emulated machine or its display.

Their names and options are known, so that a mistake in an option is told as QEMU tells it;
then they are refused in the words of a QEMU that was built without them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options.grammar import FOREIGN_HINT
from trio_chardev.options.structure import BackendOptions


@attrs.frozen(kw_only=True)
class ConsoleOptions(BackendOptions):
    """A console window of Windows."""


@attrs.frozen(kw_only=True)
class MsmouseOptions(BackendOptions):
    """A serial mouse."""


@attrs.frozen(kw_only=True)
class WctabletOptions(BackendOptions):
    """A serial tablet."""


@attrs.frozen(kw_only=True)
class BrailleOptions(BackendOptions):
    """A braille display."""


@attrs.frozen(kw_only=True)
class TestdevOptions(BackendOptions):
    """A device for tests of guests."""

    __test__ = False  # pytest: its name only looks like a test's


@attrs.frozen(kw_only=True)
class VcOptions(BackendOptions):
    """A text console in QEMU's window."""

    width: int | None = None
    """Pixels."""
    height: int | None = None
    """Pixels."""
    cols: int | None = None
    """Characters."""
    rows: int | None = None
    """Characters."""
    encoding: Literal["cp437", "utf8"] | None = None
    """What the bytes stand for."""


@attrs.frozen(kw_only=True)
class SpicevmcOptions(BackendOptions):
    """A channel to a SPICE client."""

    type: str
    """The channel's type."""


@attrs.frozen(kw_only=True)
class SpiceportOptions(BackendOptions):
    """A named port of a SPICE server."""

    fqdn: str
    """The port's name."""


@attrs.frozen(kw_only=True)
class QemuVdagentOptions(BackendOptions):
    """The guest agent of a desktop."""

    mouse: bool = False
    """Pass the mouse."""
    clipboard: bool = False
    """Pass the clipboard."""


@attrs.frozen(kw_only=True)
class DbusOptions(BackendOptions):
    """A channel on D-Bus."""

    name: str
    """The channel's name."""
    encoding: Literal["cp437", "utf8"] | None = None
    """What the bytes stand for."""


FOREIGN: dict[str, type[BackendOptions]] = {
    "console": ConsoleOptions,
    "msmouse": MsmouseOptions,
    "wctablet": WctabletOptions,
    "braille": BrailleOptions,
    "testdev": TestdevOptions,
    "vc": VcOptions,
    "spicevmc": SpicevmcOptions,
    "spiceport": SpiceportOptions,
    "qemu-vdagent": QemuVdagentOptions,
    "dbus": DbusOptions,
}
_NAME_OF = {cls: name for name, cls in FOREIGN.items()}


@asynccontextmanager
async def refuse(options: BackendOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Raise BackendError."""
    error = BackendError(f"'{_NAME_OF[type(options)]}' is not a valid char driver name")
    error.add_note(FOREIGN_HINT)
    raise error
    yield  # makes it a generator, as an opener has to be
