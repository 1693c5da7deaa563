"""QEMU's kinds that belong to an emulated machine or its display.

Their names and options are known, so that a mistake in an option is reported as in QEMU; then they
are refused in the words of a QEMU that was built without them.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping
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


class ForeignOptions(BackendOptions):
    """Options of a kind that only QEMU has."""

    __slots__ = ()


class _Foreign(Mapping[str, type[ForeignOptions]]):
    """Each kind's options class, which is made when it is asked for: making one takes a millisecond."""

    def __getitem__(self, kind: str) -> type[ForeignOptions]:
        return _options_class(kind)

    def __iter__(self) -> Iterator[str]:
        return iter(_MEMBERS)

    def __len__(self) -> int:
        return len(_MEMBERS)

    def __contains__(self, kind: object) -> bool:
        return kind in _MEMBERS


@functools.cache
def _options_class(kind: str) -> type[ForeignOptions]:
    fields = {
        name: attrs.field(type=kept, default=_DEFAULTS.get(kept))
        for name, kept in _MEMBERS[kind].items()
    }
    name = f"{kind.title().replace('-', '')}Options"
    made: type[ForeignOptions] = attrs.make_class(
        name, fields, bases=(ForeignOptions,), frozen=True, kw_only=True, slots=True
    )
    return made


FOREIGN: Mapping[str, type[ForeignOptions]] = _Foreign()


@asynccontextmanager
async def refuse(options: ForeignOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Refuse to open. Raises BackendError."""
    kind = next(kind for kind in FOREIGN if FOREIGN[kind] is type(options))
    error = BackendError(f"'{kind}' is not a valid char driver name")
    error.add_note(FOREIGN_HINT)
    raise error
    yield  # makes it a generator, as openers have to be
