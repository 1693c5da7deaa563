"""A listener that serves many QMP clients at once, each with a session of its own.

In QEMU the second client of a monitor waits without a word. Here each gets a monitor on a
chardev of its own, which is in no registry, so that there is one kind of monitor.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trio_chardev.backends import opener_of
from trio_chardev.backends.addresses import FdAddress
from trio_chardev.backends.listener import listen
from trio_chardev.backends.socket import SocketOptions
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.monitor import Monitor

log = logging.getLogger(__name__)

Run = Callable[..., Awaitable[None]]
"""Runs the monitor that it is given; for nursery.start()."""

MAX_CLIENTS = 256  # of one listener; more are let go at once


async def serve_clients(
    options: SocketOptions,
    monitor_of: Callable[[Chardev], Monitor],
    run: Run,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen at the address of *options* until cancelled; started() gives its name.

    *run* is to run the monitor that *monitor_of* makes for a client's chardev. Raises
    OptionsError, BackendError.
    """
    if not options.server:
        raise OptionsError("a QMP listener needs server=on")
    listener = await listen(options.addr, None)
    try:
        listener.activate()
        listener.set_backlog(MAX_CLIENTS)
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address.name)
            number = 0
            while True:
                await listener.wait()
                client = listener.take()
                if client is None:
                    continue
                if len(nursery.child_tasks) >= MAX_CLIENTS:
                    log.warning("a QMP client is let go: there are %d", MAX_CLIENTS)
                    client.close()
                    continue
                number += 1
                chardev = Chardev(f"{listener.address.name}#{number}")
                nursery.start_soon(_serve, client, chardev, monitor_of(chardev), run)
    finally:
        listener.close()


async def _serve(client: socket.socket, chardev: Chardev, monitor: Monitor, run: Run) -> None:
    """Run *monitor* on *chardev* for *client* until that leaves."""
    options = SocketOptions(addr=FdAddress(chardev.id), server=False)

    def open_client(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        return opener_of(options)(attrs.evolve(request, take_fd=lambda name: client.detach()))

    try:
        async with open_background_nursery() as nursery:
            await nursery.start(run, monitor)  # before there is anything to be read
            nursery.start_soon(chardev.run)
            await chardev.open(open_client)
            await monitor.wait_left()
    except ChardevError as exc:
        log.warning("a QMP client is let go: %s", exc)
    finally:
        client.close()  # if nobody took it
