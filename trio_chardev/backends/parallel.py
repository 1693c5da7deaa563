"""parallel: a parallel port of the host, through Linux's ppdev (what is written is printed)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from trio_chardev.backends.descriptor import DescriptorBackend, FdHolder, open_fd
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options import BackendOptions

PPCLAIM = 0x708B  # <linux/ppdev.h>: have the port for oneself
PPRELEASE = 0x708C


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


@asynccontextmanager
async def open_parallel(options: ParallelOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open and claim the port. Raises BackendError, also for what is no parallel port."""
    port = open_fd(options.device, os.O_RDWR, request.open_path)
    try:
        try:
            fcntl.ioctl(port.fd, PPCLAIM)
        except OSError as exc:
            raise BackendError.from_os_error("not a parallel port", exc) from exc
        backend = ParallelBackend(request, port)
        backend.set_open(True)
        try:
            yield backend
        finally:
            with contextlib.suppress(OSError):
                fcntl.ioctl(port.fd, PPRELEASE)
    finally:
        port.close()
