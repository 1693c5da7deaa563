"""QEMU's kinds that belong to an emulated machine or its display.

Their names and options are known, so that a mistake in an option is reported as in QEMU; then they
are refused in the words of a QEMU that was built without them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import FOREIGN_HINT

_ENCODING = {"encoding": Literal["cp437", "utf8"] | None}
_PIXELS_OR_CHARACTERS = dict.fromkeys(("width", "height", "cols", "rows"), int | None)

_MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "msmouse": {},
    "wctablet": {},
    "braille": {},
    "testdev": {},
    "vc": _PIXELS_OR_CHARACTERS | _ENCODING,
    "spicevmc": {"type": str},
    "spiceport": {"fqdn": str},
    "qemu-vdagent": {"mouse": bool, "clipboard": bool},
    "dbus": {"name": str} | _ENCODING,
}
"""Each kind's members and their types, as in QAPI's schema; strings are required."""

_DEFAULTS: Mapping[Any, Any] = {bool: False, str: attrs.NOTHING}


def _options_class(kind: str, members: Mapping[str, Any]) -> type[BackendOptions]:
    fields = {
        name: attrs.field(type=kept, default=_DEFAULTS.get(kept)) for name, kept in members.items()
    }
    name = f"{kind.title().replace('-', '')}Options"
    made: type[BackendOptions] = attrs.make_class(
        name, fields, bases=(BackendOptions,), frozen=True, kw_only=True, slots=True
    )
    return made


FOREIGN: dict[str, type[BackendOptions]] = {
    kind: _options_class(kind, members) for kind, members in _MEMBERS.items()
}
_NAME_OF = {cls: name for name, cls in FOREIGN.items()}


@asynccontextmanager
async def refuse(options: BackendOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Refuse to open. Raises BackendError."""
    error = BackendError(f"'{_NAME_OF[type(options)]}' is not a valid char driver name")
    error.add_note(FOREIGN_HINT)
    raise error
    yield  # makes it a generator, as openers have to be
