"""parallel: a parallel port of the host, through Linux's ppdev (what is written is printed).

The only way to claim a port in ppdev is to wait in the kernel until nobody else has it, and its
poll never reports a port as writable: hence a thread and a timer. While one ioctl waits, every
other ioctl on any port is blocked, so a port is released by closing it, not by PPRELEASE.

The claim belongs to the open file description (open(2)). A change of a chardev to the same port
shares that by dup(2), because the old backend releases the port only after the commit.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.descriptor import (
    DescriptorBackend,
    FdHolder,
    open_fd_in_worker,
    status_in_worker,
)
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text
from trio_chardev.workers import NoThreadError, run_in_worker

PPCLAIM = 0x708B  # <linux/ppdev.h>: claim the port
BUSY_POLL = 0.01  # seconds until a busy printer is tried again


@attrs.frozen(kw_only=True)
class ParallelOptions(BackendOptions):
    """Sends output to a parallel port."""

    device: str = attrs.field(converter=path_text)
    """Path of the port, such as /dev/parport0."""


class ParallelBackend(DescriptorBackend):
    """A claimed port. There is no input."""

    def __init__(self, request: OpenRequest, port: FdHolder) -> None:
        super().__init__(request, None, port)

    @property
    def filename(self) -> str:
        return "parallel"

    def has_open(self, device: os.stat_result) -> bool:
        """Is *device* the port that is open here?"""
        return os.path.samestat(os.fstat(self.sink.fd), device)

    async def wait_writable(self) -> None:
        await trio.sleep(BUSY_POLL)


@asynccontextmanager
async def open_parallel(options: ParallelOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open and claim the port. Raises BackendError, also if it is not a parallel port."""
    port = await _share(options.device, request)
    is_claimed = port is not None
    port = port or await open_fd_in_worker(options.device, os.O_RDWR, request.files.open)
    try:
        if not is_claimed:
            await _claim(port)
        backend = ParallelBackend(request, port)
        backend.set_open(True)
        yield backend
    finally:
        port.close()


async def _share(device: str, request: OpenRequest) -> FdHolder | None:
    """Share the claimed port of the replaced backend, if it is *device*. Raises BackendError."""
    replaced = request.replaces
    if not isinstance(replaced, ParallelBackend):
        return None
    status = await status_in_worker(device, request)
    try:
        if status is None or not replaced.has_open(status):
            return None
        return FdHolder(os.dup(replaced.sink.fd))
    except OSError as exc:
        raise BackendError.from_os_error(f"Could not open '{device}'", exc) from exc


async def _claim(port: FdHolder) -> None:
    """Claim *port*, however long that takes. Raises BackendError."""
    try:
        await run_in_worker(_wait_for_claim, port)
    except NoThreadError as exc:
        raise BackendError.from_os_error("Could not claim the parallel port", exc) from exc
    except OSError as exc:
        raise BackendError.from_os_error("not a parallel port", exc) from exc


def _wait_for_claim(port: FdHolder) -> None:
    """Claim *port*. For a thread. Raises OSError.

    If abandoned, it goes on with its own descriptor, and releases the port by closing that.
    """
    fd = os.dup(port.fd)
    try:
        fcntl.ioctl(fd, PPCLAIM)
    finally:
        os.close(fd)


PARALLEL = Kind(ParallelOptions, open_parallel)
