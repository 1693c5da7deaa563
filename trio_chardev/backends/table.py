"""The table of the kinds of backend."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from trio_chardev.backends.foreign import FOREIGN as FOREIGN, ForeignOptions, refuse
from trio_chardev.backends.limit import check_limits
from trio_chardev.backends.taps.log_options import check_log
from trio_chardev.backends.taps.opened import with_taps
from trio_chardev.backends.taps.record_options import check_recording
from trio_chardev.core.backend import Opener, OpenerOf
from trio_chardev.core.kind import Kind as Kind
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import ChardevGrammar
from trio_chardev.options.lazy import LazyTable
from trio_chardev.options.members import TaggedUnion

KINDS: LazyTable[Kind[Any]] = LazyTable(
    {
        "console": "trio_chardev.backends.console.console:CONSOLE",
        "file": "trio_chardev.backends.file:FILE",
        "hub": "trio_chardev.backends.stacked.hub:HUB",
        "memory": "trio_chardev.backends.ringbuf.ringbuf:MEMORY",
        "mux": "trio_chardev.backends.stacked.mux:MUX",
        "null": "trio_chardev.backends.null:NULL",
        "parallel": "trio_chardev.backends.parallel:PARALLEL",
        "pipe": "trio_chardev.backends.pipe:PIPE",
        "pty": "trio_chardev.backends.pty.pty:PTY",
        "replay": "trio_chardev.backends.replay:REPLAY",
        "ringbuf": "trio_chardev.backends.ringbuf.ringbuf:RINGBUF",
        "serial": "trio_chardev.backends.serial.serial:SERIAL",
        "socket": "trio_chardev.backends.socket.socket:SOCKET",
        "stdio": "trio_chardev.backends.stdio:STDIO",
        "udp": "trio_chardev.backends.udp:UDP",
    }
)

NOT_IN_QEMU = frozenset({"console", "hub", "replay"})
"""Kinds that query-chardev-backends leaves out: its list is that of QEMU 7.2."""

OPTIONS = KINDS.column(lambda kind: kind.options)
"""Kind -> options class."""

BACKEND = TaggedUnion("ChardevBackend", KINDS.column(lambda kind: kind.options, FOREIGN))
"""``{"type": KIND, "data": {...}}``, for structuring."""


GRAMMAR = ChardevGrammar(OPTIONS, FOREIGN)
"""The grammar of ``--chardev``."""


def add_kind(name: str, kind: Kind[Any]) -> None:
    """Add a kind, before anything is structured. Raises ValueError if the name is taken."""
    if name in BACKEND.variants or any(row.options is kind.options for _, row in KINDS.imported()):
        raise ValueError(f"there is a kind '{name}', or one of its options, already")
    KINDS.add(name, kind)


def name_in_use(options: BackendOptions) -> str | None:
    """The kind of *options* that a chardev has; None if it is none of the table."""
    kinds = KINDS.imported()  # as it is in use
    return next((name for name, kind in kinds if kind.options is type(options)), None)


def openers_with(kinds: Iterable[Kind[Any]]) -> OpenerOf:
    """Make a function like `opener_of` that also knows *kinds*."""
    known: dict[type, Kind[Any]] = {kind.options: kind for kind in kinds}

    def opener_of(options: BackendOptions) -> Opener:
        if isinstance(options, ForeignOptions):
            return partial(refuse, options)
        cls = type(options)
        kind = known.get(cls)
        if kind is None:
            rows = KINDS.imported_first()
            kind = next((row for _, row in rows if row.options is cls), None)
            if kind is None:
                raise OptionsError(f"no kind of backend takes {options!r}")
            known[cls] = kind
        return _opener_of_kind(kind, options)

    return opener_of


opener_of = openers_with(())
"""Gives the opener for options; it also opens the log file and the recording, if there are any.

Raises OptionsError for options of no kind, or options about recording that contradict each other.
"""


def _opener_of_kind(kind: Kind[Any], options: BackendOptions) -> Opener:
    check_recording(options)
    check_limits(options)
    check_log(options)
    return with_taps(lambda request: kind.open(options, request), options)
