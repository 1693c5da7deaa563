"""A listener that serves many QMP clients at once, each with its own session.

In QEMU the second client of a monitor waits without being told. Here each client has a monitor on
a chardev of its own, which is in no registry, so there is only one kind of monitor.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trio_chardev.backends.socket.access import PRIVATE, Access, peer_name
from trio_chardev.backends.socket.addresses import FdAddress, SocketAddress
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listening import listen, listen_on
from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.reception import Reception
from trio_chardev.backends.socket.socket import SocketOptions, open_accepted
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Environment, number_as_fd
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.server.monitor import Monitor

log = logging.getLogger(__name__)

Run = Callable[..., Awaitable[None]]
"""Runs a monitor that it is given, by nursery.start()."""

MAX_CLIENTS = 256
"""The clients of one listener. One more is refused, unless it can replace one that is silent."""


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
    """Listen at the address of *options* until cancelled; started() gives the address's name.

    *run* runs the monitor that *monitor_of* makes for a client's chardev. Unless *insecure*, other
    users can't connect, see `trio_chardev.backends.socket.access`. *take_fd* gives the socket of an
    `FdAddress`. Raises OptionsError, BackendError.
    """
    if not options.server:
        raise OptionsError("a QMP listener needs server=on")
    if options.on_busy != "wait":
        raise OptionsError("a QMP listener serves many clients: 'on-busy' is for chardevs")
    if options.logfile is not None:
        raise OptionsError("a QMP listener has no log file")
    stack = Stack(options, objects)
    if isinstance(options.addr, FdAddress):
        passed = socket_from_fd(take_fd(options.addr.str_), options.addr.str_)
        listener = listen_on(options.addr, passed)
    else:
        listener = await listen(options.addr, None, None if insecure else PRIVATE)
    try:
        if not insecure and not stack.proves_peers:
            listener.check_local()
        listener.let_pass_descriptors(stack.is_empty)
        listener.activate()
        listener.set_backlog(MAX_CLIENTS)
        guard = None if insecure else Access(f"QMP at '{listener.address.name}'")
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address.name)
            label = f"QMP at '{listener.address.name}'"
            reception = Reception(options, objects, listener, label, guard)
            crowd = _Crowd(options, objects, monitor_of, run, nursery, listener.address)
            try:
                while True:
                    await reception.wait()
                    crowd.admit(*reception.take())
            finally:
                reception.close()
    finally:
        await listener.remove_file()  # noqa: ASYNC102 - it shields itself, with a deadline
        listener.close()


@attrs.define(eq=False, repr=False)
class _Crowd:
    """The clients of a listener."""

    options: SocketOptions
    objects: Mapping[str, object]
    monitor_of: Callable[[Chardev], Monitor]
    run: Run
    nursery: trio.Nursery
    address: SocketAddress
    _clients: dict[Monitor, trio.CancelScope] = attrs.Factory(dict)  # the oldest comes first
    _number: int = 0

    def _let_one_go(self) -> bool:
        """Disconnect a silent client to make room; False if no client is silent."""
        silent = next((monitor for monitor in self._clients if monitor.is_silent), None)
        if silent is None:
            return False
        log.warning("QMP client '%s' says nothing; another has its place", silent.chardev.id)
        self._clients.pop(silent).cancel()
        return True

    def admit(self, link: Link, stack: Stack) -> None:
        """Make *link*, which has the protocols of *stack*, a client, if there is room for one more."""
        if len(self._clients) >= MAX_CLIENTS and not self._let_one_go():
            log.warning("a QMP client is let go: there are %d", MAX_CLIENTS)
            link.close()
            return
        self._number += 1
        monitor = self.monitor_of(Chardev(f"{self.address.name}#{self._number}"))
        self._clients[monitor] = trio.CancelScope()
        self.nursery.start_soon(self._serve, link, monitor, self._clients[monitor])

    async def _serve(self, link: Link, monitor: Monitor, scope: trio.CancelScope) -> None:
        """Run *monitor* for *link* until it leaves; an exception ends this client only."""
        chardev = monitor.chardev
        log.info("QMP client '%s' has come%s", chardev.id, peer_name(link.sock))
        try:
            with scope:
                async with open_background_nursery() as nursery:
                    await nursery.start(self.run, monitor)  # before there is anything to read
                    nursery.start_soon(chardev.run)
                    await chardev.open(lambda request: self._open(request, link))
                    await monitor.wait_left()
        except ChardevError as exc:
            log.warning("QMP client '%s' is let go: %s", chardev.id, exc)
        except Exception:
            log.exception("QMP client '%s' is let go", chardev.id)
        finally:
            self._clients.pop(monitor, None)
            link.close()  # does nothing if a backend has taken it
            log.info("QMP client '%s' has left", chardev.id)

    def _open(self, request: OpenRequest, link: Link) -> AbstractAsyncContextManager[Backend]:
        return open_accepted(
            self.options, attrs.evolve(request, environment=Environment(objects=self.objects)), link
        )
