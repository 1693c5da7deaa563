"""parallel: a parallel port of the host, through Linux's ppdev (what is written is printed).

ppdev has no way to claim a port but to wait in the kernel until nobody else has it, and its
poll never says that a port is writable: hence a thread and a timer. While one waits every
other ioctl on any port is held up, so a port is released by closing it, not by PPRELEASE.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.descriptor import DescriptorBackend, FdHolder, open_fd
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options import BackendOptions

PPCLAIM = 0x708B  # <linux/ppdev.h>: have the port for oneself
BUSY_POLL = 0.01  # seconds until a printer that was busy is tried again


@attrs.frozen(kw_only=True)
class ParallelOptions(BackendOptions):
    """Sends output to a parallel port."""

    device: str
    """Path of the port, such as /dev/parport0."""


class ParallelBackend(DescriptorBackend):
    """A port that was claimed. There is no input."""

    def __init__(self, request: OpenRequest, port: FdHolder) -> None:
        super().__init__(request, None, port)

    @property
    def filename(self) -> str:
        return "parallel"

    async def wait_writable(self) -> None:
        await trio.sleep(BUSY_POLL)


@asynccontextmanager
async def open_parallel(options: ParallelOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open and claim the port. Raises BackendError, also for what is no parallel port."""
    port = open_fd(options.device, os.O_RDWR, request.open_path)
    try:
        try:
            await trio.to_thread.run_sync(_claim, port, abandon_on_cancel=True)
        except OSError as exc:
            raise BackendError.from_os_error("not a parallel port", exc) from exc
        backend = ParallelBackend(request, port)
        backend.set_open(True)
        yield backend
    finally:
        port.close()


def _claim(port: FdHolder) -> None:
    """Have *port* for oneself, however long that takes. Raises OSError.

    Abandoned, it goes on with its own descriptor, and closing that gives the port back.
    """
    fd = os.dup(port.fd)
    try:
        fcntl.ioctl(fd, PPCLAIM)
    finally:
        os.close(fd)
