"""The table of the kinds of backend."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, TypeVar

import attrs

from trio_chardev.backends.console.console import ConsoleOptions, open_console
from trio_chardev.backends.file import FileOptions, open_file
from trio_chardev.backends.foreign import FOREIGN as FOREIGN, ForeignOptions, refuse
from trio_chardev.backends.limit import check_limits
from trio_chardev.backends.null import NullOptions, open_null
from trio_chardev.backends.parallel import ParallelOptions, open_parallel
from trio_chardev.backends.pipe import PipeOptions, open_pipe
from trio_chardev.backends.pty.pty import PtyOptions, open_pty
from trio_chardev.backends.replay import ReplayOptions, open_replay
from trio_chardev.backends.ringbuf.ringbuf import MemoryOptions, RingbufOptions, open_ringbuf
from trio_chardev.backends.serial.serial import SerialOptions, open_serial
from trio_chardev.backends.socket.socket import SocketOptions, open_socket
from trio_chardev.backends.stacked.hub import HubOptions, open_hub
from trio_chardev.backends.stacked.mux import MuxOptions, open_mux
from trio_chardev.backends.stdio import StdioOptions, open_stdio
from trio_chardev.backends.taps.log_options import check_log
from trio_chardev.backends.taps.opened import with_taps
from trio_chardev.backends.taps.record import check_recording
from trio_chardev.backends.udp import UdpOptions, open_udp
from trio_chardev.core.backend import Backend, Opener, OpenerOf, OpenRequest
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.members import TaggedUnion

OptionsT = TypeVar("OptionsT", bound=BackendOptions)


@attrs.frozen
class Kind(Generic[OptionsT]):
    """A kind of backend: its options class, and its opener."""

    options: type[OptionsT]
    open: Callable[[OptionsT, OpenRequest], AbstractAsyncContextManager[Backend]]
    """Opens a backend from an instance of `options`."""


KINDS: dict[str, Kind[Any]] = {
    "console": Kind(ConsoleOptions, open_console),
    "file": Kind(FileOptions, open_file),
    "hub": Kind(HubOptions, open_hub),
    "memory": Kind(MemoryOptions, open_ringbuf),
    "mux": Kind(MuxOptions, open_mux),
    "null": Kind(NullOptions, open_null),
    "parallel": Kind(ParallelOptions, open_parallel),
    "pipe": Kind(PipeOptions, open_pipe),
    "pty": Kind(PtyOptions, open_pty),
    "replay": Kind(ReplayOptions, open_replay),
    "ringbuf": Kind(RingbufOptions, open_ringbuf),
    "serial": Kind(SerialOptions, open_serial),
    "socket": Kind(SocketOptions, open_socket),
    "stdio": Kind(StdioOptions, open_stdio),
    "udp": Kind(UdpOptions, open_udp),
}

NOT_IN_QEMU = frozenset({"console", "hub", "replay"})
"""Kinds that query-chardev-backends leaves out: its list is that of QEMU 7.2."""

_OWN: dict[str, type] = {name: kind.options for name, kind in KINDS.items()}

# A ChainMap lists the names of its last map first.
BACKEND = TaggedUnion("ChardevBackend", ChainMap(FOREIGN, _OWN))  # type: ignore[arg-type]
"""``{"type": KIND, "data": {...}}``, for structuring."""

_KIND_OF: dict[type[BackendOptions], Kind[Any]] = {kind.options: kind for kind in KINDS.values()}


def add_kind(name: str, kind: Kind[Any]) -> None:
    """Add a kind, before anything is structured. Raises ValueError if the name is taken."""
    if name in BACKEND.variants or kind.options in _KIND_OF:
        raise ValueError(f"there is a kind '{name}', or one of its options, already")
    KINDS[name] = kind
    _OWN[name] = kind.options
    _KIND_OF[kind.options] = kind


def openers_with(kinds: Iterable[Kind[Any]]) -> OpenerOf:
    """Make a function like `opener_of` that also knows *kinds*."""
    table = _KIND_OF | {kind.options: kind for kind in kinds}

    def opener_of(options: BackendOptions) -> Opener:
        if isinstance(options, ForeignOptions):
            return partial(refuse, options)
        try:
            kind = table[type(options)]
        except KeyError:
            raise OptionsError(f"no kind of backend takes {options!r}") from None
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
