"""The service: a registry of chardevs with the monitors that control it.

trio.run
 `- nursery of the registry   the chardevs; closed last
     `- nursery of the devices   bridges and other users of them
         `- nursery of the service   monitors, listeners, signals; stops first
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.table import Kind
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import DEFAULT_ESCAPE, number_as_fd
from trio_chardev.core.nursery import check_not_over, open_background_nursery
from trio_chardev.devices.base import AttachedMonitor
from trio_chardev.devices.registry import Driver
from trio_chardev.errors import ChardevError
from trio_chardev.importing import have_all
from trio_chardev.qmp.commands.context import Host, Tracer
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server.answers import AT_ONCE
from trio_chardev.qmp.server.broadcast import Broadcast
from trio_chardev.qmp.server.events import Shutdown, ShutdownReason
from trio_chardev.qmp.server.listener import serve_clients
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.qmp.server.origin import Origin
from trio_chardev.qmp.server.state import StateFile
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service_log.options import HasLevels

log = logging.getLogger(__name__)

QUIT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FAREWELL_TIMEOUT = 0.5  # seconds for clients to read the last replies and SHUTDOWN


@attrs.frozen(eq=False, repr=False)
class DeviceMonitor(AttachedMonitor):
    """A monitor that was made as a device."""

    _monitor: Monitor
    _monitors: set[Monitor]
    """The monitors that events are sent to."""

    @property
    def is_current(self) -> bool:
        return Origin.of_now() is self._monitor.dispatcher

    async def serve_session(self, object_id: str) -> None:
        """Serve one client. A crash ends its session for good: the state file forgets it."""
        host, id = self._monitor.host, self._monitor.chardev.id
        async with open_background_nursery() as nursery:
            nursery.start_soon(self.serve)
            await self._monitor.wait_client()
            host.state_file.forget("objects", object_id)
            host.state_file.forget("chardevs", id)
            await self._monitor.wait_left()
        self.detach()
        try:
            await host.registry.remove(id)
        except ChardevError as exc:  # a mux may have other users
            log.warning("chardev '%s' stays when its monitor is deleted: %s", id, exc)

    async def serve(self) -> None:
        self._monitors.add(self._monitor)
        try:
            await self._monitor.serve()
        finally:
            self._monitors.discard(self._monitor)

    def detach(self) -> None:
        self._monitor.detach()


@attrs.define(eq=False, repr=False)
class Service:
    """A registry with its monitors; made by `open_service`."""

    registry: Registry
    _nursery: trio.Nursery
    _sandbox: Sandbox = EVERYWHERE
    _state_file: StateFile = attrs.Factory(StateFile)
    _escape: int = DEFAULT_ESCAPE
    _log: HasLevels | None = None
    _trace: Tracer | None = None
    broadcast: Broadcast = attrs.Factory(Broadcast)
    """Sends events to the monitors' clients."""
    _quit: trio.Event = attrs.Factory(trio.Event)
    _host: Host = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._host = Host(
            self.registry,
            self._on_quit,
            sandbox=self._sandbox,
            state_file=self._state_file,
            client_chardevs=self._client_chardevs,
            log=self._log,
            trace=self._trace,
        )
        self.registry.on_notice = self.broadcast.emit
        self.registry.environment = attrs.evolve(
            self.registry.environment,
            open_path=self._host.fdsets.open_path,
            quit=functools.partial(self.quit, "host-ui"),
            escape=self._escape,
        )
        self.registry.devices.attach_monitor = self._attach_monitor
        self.registry.object_devices.attach_monitor = self._attach_monitor

    async def add_monitor(self, id: str, *, pretty: bool = False, insecure: bool = False) -> None:
        """Have a QMP monitor serve the clients of chardev *id*, one at a time, as in QEMU.

        Unless *insecure*, the chardev must lead to nobody else, see `Chardev.guard`.
        Raises ChardevNotFoundError, ChardevBusyError, BackendError.
        """
        check_not_over(self._nursery, "service")
        chardev = self.registry[id]
        if not insecure:
            chardev.guard()
        monitor = Monitor(chardev, COMMANDS, self._host, pretty)
        await self._nursery.start(self._run_monitor, monitor)

    async def listen_qmp(
        self,
        options: SocketOptions,
        *,
        pretty: bool = False,
        insecure: bool = False,
        take_fd: Callable[[str], int] = number_as_fd,
    ) -> str:
        """Listen for QMP clients, with a monitor for each; return the listener's file name.

        Unless *insecure*, other users can't connect; *take_fd* gives the socket of an
        `FdAddress`. Raises OptionsError, BackendError.
        """
        check_not_over(self._nursery, "service")
        serve = functools.partial(serve_clients, insecure=insecure, take_fd=take_fd)
        filename: str = await self._nursery.start(
            serve,
            options,
            lambda chardev: Monitor(chardev, COMMANDS, self._host, pretty),
            self._run_monitor,
            self.registry.objects,
        )
        return filename

    def emit(self, event: object) -> None:
        """Send an event, see `Broadcast.emit`."""
        self.broadcast.emit(event)

    async def settle(self) -> None:
        """See `Devices.settle`."""
        await self.registry.devices.settle()

    def close(self) -> None:
        """End the devices, and release what no task of the service owns."""
        self.registry.on_notice = lambda notice: None
        self.registry.devices.shut()
        self.registry.object_devices.shut()
        self._host.fdsets.close_all()

    def quit(self, reason: ShutdownReason) -> None:
        """Begin to stop. *reason* is a value of QAPI's ShutdownCause, such as host-signal."""
        self._host.quit(reason)

    async def wait_quit(self) -> None:
        """Wait until something calls `quit`."""
        await self._quit.wait()

    async def run_until_quit(self) -> None:
        """Wait until something calls `quit`, then give the clients time to hear of it."""
        await self.wait_quit()
        with trio.move_on_after(FAREWELL_TIMEOUT):
            await self._state_file.flush()
            for monitor in list(self.broadcast.monitors):
                await monitor.wait_drained()

    def reload_by(self, reload: Callable[[], Awaitable[Any]]) -> None:
        """Let the command config-reload call *reload*, which returns a `Reloaded`."""
        self._host.reload = reload

    async def quit_at(self, signalled: trio.Event) -> None:
        """Quit when *signalled* is set; see `catching_signals`."""
        await signalled.wait()
        self.quit("host-signal")

    async def reopen_logs_at(self, signalled: trio.MemoryReceiveChannel[int]) -> None:
        """Open all log files anew at each item; what fails is logged. See `catching_reopening`."""
        async for _ in signalled:
            try:
                await self._host.reopen_logs()
            except ChardevError as exc:
                log.warning("%s", exc)

    def _client_chardevs(self) -> list[Chardev]:
        """The chardevs of listeners' clients, which are not in the registry."""
        known = set(self.registry.values())
        return [m.chardev for m in self.broadcast.monitors if m.chardev not in known]

    def _on_quit(self, reason: ShutdownReason) -> None:
        self.emit(Shutdown(guest=False, reason=reason))
        self._quit.set()

    def _attach_monitor(self, chardev: Chardev, pretty: bool, insecure: bool) -> AttachedMonitor:
        if not insecure:
            chardev.guard()
        monitor = Monitor(chardev, COMMANDS, self._host, pretty)
        monitor.attach()
        return DeviceMonitor(monitor, self.broadcast.monitors)

    async def _run_monitor(  # noqa: ASYNC128 - Monitor.run() calls started()
        self, monitor: Monitor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.broadcast.monitors.add(monitor)
        try:
            await monitor.run(task_status=task_status)
        finally:
            self.broadcast.monitors.discard(monitor)


@asynccontextmanager
async def catching_signals(*, hangup: bool = True) -> AsyncIterator[trio.Event]:
    """Give an event for `Service.quit_at`, set at SIGINT, SIGTERM and SIGHUP.

    SIGHUP is not among them under nohup(1), and without *hangup*.

    Within the block these signals do nothing else. Put it around the service's block: a second
    signal must not end the process before terminals and files are restored.
    """
    numbers = set(QUIT_SIGNALS)
    if not hangup or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.discard(signal.SIGHUP)
    signalled = trio.Event()

    async def note(signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            signalled.set()

    with trio.open_signal_receiver(*numbers) as signals:
        async with open_background_nursery() as nursery:
            nursery.start_soon(note, signals)
            yield signalled


@asynccontextmanager
async def catching(number: signal.Signals) -> AsyncIterator[trio.MemoryReceiveChannel[int]]:
    """Give an item after signal *number*, as SIGUSR2 for `Service.reopen_logs_at`.

    Several signals may give one item.

    Within the block that signal does nothing else, also while the service starts or is closing.
    """
    send, receive = trio.open_memory_channel[int](1)

    async def note(signals: AsyncIterator[int]) -> None:
        async for number in signals:
            with contextlib.suppress(trio.WouldBlock):
                send.send_nowait(number)

    with trio.open_signal_receiver(number) as signals, receive:
        async with open_background_nursery() as nursery:
            nursery.start_soon(note, signals)
            yield receive


@asynccontextmanager
async def open_service(
    *rows: Kind[Any] | Driver[Any],
    sandbox: Sandbox = EVERYWHERE,
    state_file: StateFile | None = None,
    escape: int = DEFAULT_ESCAPE,
    log: HasLevels | None = None,
    trace: Tracer | None = None,
    imports_all: bool = True,
) -> AsyncIterator[Service]:
    """Open a service without chardevs; at the end of the block all of it is closed in order.

    *rows* are kinds and drivers of your own, for `Registry.add` and `Devices.add`. QMP clients
    may name paths in *sandbox*, and what they set up is kept in *state_file*.
    *escape* is the byte before a command to a mux. *log* is the log whose levels QMP clients may
    set, and *trace* is where each message of theirs is noted. First all of the package is imported,
    in a thread, unless *imports_all* is False.
    """
    if imports_all:
        await have_all()
    else:
        for name in AT_ONCE:
            _ = COMMANDS[name]  # imported now, while nobody waits
    async with open_registry(*rows) as registry, open_background_nursery() as nursery:
        service = Service(registry, nursery, sandbox, state_file or StateFile(), escape, log, trace)
        nursery.start_soon(service.broadcast.run)
        if state_file is not None:
            nursery.start_soon(state_file.run)
        try:
            yield service
            await service.settle()
        finally:
            service.close()
