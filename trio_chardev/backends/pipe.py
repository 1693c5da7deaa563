"""pipe: a pair of FIFOs, DEVICE.in and DEVICE.out, or DEVICE itself for both ways.

They are opened for reading and writing, as in QEMU: that never waits for a peer, gives no end of
file when writers leave (fifo(7)), and keeps in the FIFO what no reader has taken yet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.descriptor import (
    DRAIN_INTERVAL,
    DescriptorBackend,
    FdHolder,
    count_unread,
    mode_of,
    open_fd,
    slow_errors,
)
from trio_chardev.backends.holder import owned
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.leaving import Leaving
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text


@attrs.frozen(kw_only=True)
class PipeOptions(BackendOptions):
    """Reads from and writes to existing FIFOs."""

    open_timeout = math.inf  # `work_on_files` has a deadline of its own

    device: str = attrs.field(converter=path_text)
    """Path: input comes from DEVICE.in and output goes to DEVICE.out, or both use DEVICE."""


IS_NO_PAIR = (errno.ENOENT, errno.EINVAL)
"""Errors of opening DEVICE.in or DEVICE.out after which DEVICE itself is used; EINVAL comes from
paths in an fd set."""


class PipeBackend(DescriptorBackend):
    """Uses two FIFOs, or one for both directions."""

    @property
    def filename(self) -> str:
        return "pipe"

    @property
    def leaving(self) -> Leaving:
        return _FifoLeaving(self.sink) if self.source is not self.sink else super().leaving


class _FifoLeaving(Leaving):
    """Takes output back from a FIFO of its own; in a shared one it would mix with input."""

    def __init__(self, sink: FdHolder) -> None:
        self._sink = sink

    def take_back(self) -> bytes:
        """Read it by one read(2), so that nobody else's read can come in between."""
        with contextlib.suppress(BlockingIOError):
            return self._sink.read(fcntl.fcntl(self._sink.fd, fcntl.F_GETPIPE_SZ))
        return b""

    @property
    def is_drained(self) -> bool:
        return False  # checking costs as much as `drain`

    async def drain(self) -> None:
        """Wait until all was read: the kernel drops what is in a FIFO that nobody has open."""
        while count_unread(self._sink.fd):  # noqa: ASYNC110 - there is no event
            await trio.sleep(DRAIN_INTERVAL)


@asynccontextmanager
async def open_pipe(options: PipeOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open the FIFOs. Raises BackendError, ``Could not open 'PATH': strerror``."""
    with slow_errors(f"Could not open '{options.device}'"):
        ways = await work_on_files(
            _open_ways, options.device, request.files.open, discard=_close_ways
        )
    backend = PipeBackend(request, *ways)
    try:
        backend.set_open(True)
        yield backend
    finally:
        backend.close()


def _close_ways(ways: tuple[FdHolder, FdHolder]) -> None:
    for way in ways:
        way.close()


def _open_ways(device: str, opener: Callable[[str, int], int]) -> tuple[FdHolder, FdHolder]:
    """Open the ends for reading and writing; the same one for both if there is no pair."""
    try:
        source = _open_fifo(f"{device}.in", opener)
        try:
            return source, _open_fifo(f"{device}.out", opener)
        except BackendError:
            source.close()
            raise
    except BackendError as exc:
        if not _is_no_pair(exc.__cause__):
            raise
    both = _open_fifo(device, opener)
    return both, both


def _is_no_pair(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in IS_NO_PAIR


def _open_fifo(path: str, opener: Callable[[str, int], int]) -> FdHolder:
    """Open *path*, which need not be a FIFO, but must not be a regular file.

    Raises BackendError.
    """
    holder = open_fd(path, os.O_RDWR, opener)
    with owned(holder.close):
        if stat.S_ISREG(mode_of(holder, path)):
            raise BackendError(f"Could not open '{path}': it is not a FIFO")
        return holder


PIPE = Kind(PipeOptions, open_pipe)
