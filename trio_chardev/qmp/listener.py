"""A listener that serves many QMP clients at once, each with a session of its own.

In QEMU the second client of a monitor waits without a word. Here each gets a monitor on a
chardev of its own, which is in no registry, so that there is one kind of monitor.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trio_chardev.backends.addresses import FdAddress
from trio_chardev.backends.guard import PRIVATE, Guard, peer_name
from trio_chardev.backends.listener import Listener, listen, listen_on
from trio_chardev.backends.passed import socket_from_fd
from trio_chardev.backends.socket import SocketOptions, open_accepted
from trio_chardev.backends.socket_options import check_options, find_credentials
from trio_chardev.core.backend import Backend, OpenRequest, number_as_fd
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.monitor import Monitor

log = logging.getLogger(__name__)

Run = Callable[..., Awaitable[None]]
"""Runs the monitor that it is given; for nursery.start()."""

MAX_CLIENTS = 256
"""Clients of one listener. More are let go at once, unless one of these has been silent too long."""


async def serve_clients(
    options: SocketOptions,
    monitor_of: Callable[[Chardev], Monitor],
    run: Run,
    objects: Mapping[str, object],
    *,
    insecure: bool = False,
    take_fd: Callable[[str], int] = number_as_fd,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen at the address of *options* until cancelled; started() gives its name.

    *run* is to run the monitor that *monitor_of* makes for a client's chardev. Unless it is
    *insecure* nobody else can drive the service, see `trio_chardev.backends.guard`. *take_fd*
    gives the socket, if it is open already. Raises OptionsError, BackendError.
    """
    if not options.server:
        raise OptionsError("a QMP listener needs server=on")
    if options.on_busy != "wait":
        raise OptionsError("a QMP listener serves many clients: 'on-busy' is for chardevs")
    if options.logfile is not None:
        raise OptionsError("a QMP listener has no log file")
    credentials = find_credentials(options, objects)
    check_options(options, credentials)
    if isinstance(options.addr, FdAddress):
        passed = socket_from_fd(take_fd(options.addr.str_), options.addr.str_)
        listener = listen_on(options.addr, passed)
    else:
        listener = await listen(options.addr, None, None if insecure else PRIVATE)
    try:
        if not insecure and not (credentials and credentials.verify_peer):
            listener.check_local()
        listener.activate()
        listener.set_backlog(MAX_CLIENTS)
        guard = None if insecure else Guard(listener.address.name)
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address.name)
            await _Crowd(options, objects, monitor_of, run, nursery).admit_all(listener, guard)
    finally:
        listener.close()


@attrs.define(eq=False)
class _Crowd:
    """The clients of a listener."""

    options: SocketOptions
    objects: Mapping[str, object]
    monitor_of: Callable[[Chardev], Monitor]
    run: Run
    nursery: trio.Nursery
    _clients: dict[Monitor, trio.CancelScope] = attrs.Factory(dict)  # who came first is first
    _number: int = 0

    async def admit_all(self, listener: Listener, guard: Guard | None) -> None:
        """Take client after client, for ever."""
        while True:
            await listener.wait()
            if (sock := listener.take()) is None:
                continue
            try:
                if guard is not None:
                    guard.check(sock)
            except OSError:
                sock.close()
                continue
            if len(self._clients) < MAX_CLIENTS or self._let_one_go():
                self._admit(sock, listener.address.name)
            else:
                log.warning("a QMP client is let go: there are %d", MAX_CLIENTS)
                sock.close()

    def _let_one_go(self) -> bool:
        """Make room for a newcomer; False if all clients use the service."""
        silent = next((monitor for monitor in self._clients if monitor.is_silent), None)
        if silent is None:
            return False
        log.warning("QMP client '%s' says nothing; another has its place", silent.chardev.id)
        self._clients.pop(silent).cancel()
        return True

    def _admit(self, sock: socket.socket, name: str) -> None:
        self._number += 1
        monitor = self.monitor_of(Chardev(f"{name}#{self._number}"))
        self._clients[monitor] = trio.CancelScope()
        self.nursery.start_soon(self._serve, sock, monitor, self._clients[monitor])

    async def _serve(self, sock: socket.socket, monitor: Monitor, scope: trio.CancelScope) -> None:
        """Run *monitor* for the client *sock* until that leaves."""
        chardev = monitor.chardev
        log.info("QMP client '%s' has come%s", chardev.id, peer_name(sock))
        try:
            with scope:
                async with open_background_nursery() as nursery:
                    await nursery.start(self.run, monitor)  # before there is anything to be read
                    nursery.start_soon(chardev.run)
                    await chardev.open(lambda request: self._open(request, sock))
                    await monitor.wait_left()
        except ChardevError as exc:
            log.warning("a QMP client is let go: %s", exc)
        finally:
            self._clients.pop(monitor, None)
            sock.close()  # if nobody took it
            log.info("QMP client '%s' has left", chardev.id)

    def _open(
        self, request: OpenRequest, sock: socket.socket
    ) -> AbstractAsyncContextManager[Backend]:
        return open_accepted(self.options, attrs.evolve(request, objects=self.objects), sock)
