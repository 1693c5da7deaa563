"""``trio-chardev serve``: from options to a running service."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import trio

from trio_chardev.access.table import OBJECT
from trio_chardev.backends.socket.addresses import FdAddress, UnixAddress
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.address import default_monitor_path
from trio_chardev.cli.errors import saying
from trio_chardev.cli.later import Later
from trio_chardev.cli.maker import Maker
from trio_chardev.cli.notify import Notifier
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.output import announce, complain, printable
from trio_chardev.cli.restore import Wanted, is_monitor, make_all, plan
from trio_chardev.cli.service_log import ServiceLog
from trio_chardev.cli.warm_up import warm_up
from trio_chardev.core.kind import Kind
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import ChardevError
from trio_chardev.garbage import collect_in_portions
from trio_chardev.qmp.commands.context import Tracer
from trio_chardev.qmp.server.state import StateFile, open_state_file
from trio_chardev.service import Service, catching, catching_signals, open_service

ACTIVATED = "qmp"  # systemd's name of a socket where QMP is served unless another place is given


async def serve(
    options: ServeOptions,
    reread: Callable[[], ServeOptions] | None = None,
    service_log: ServiceLog | None = None,
) -> None:
    """Run a service until a signal or ``quit``. Raises ChardevError if it can't start.

    *reread* parses the options anew, with the configuration as it is then, in a thread; with it,
    SIGHUP applies the difference, instead of ending the service.
    """
    collect_in_portions()
    errors: list[ChardevError] = []
    notifier = Notifier.found()
    pid = contextlib.nullcontext() if options.pidfile is None else _pidfile(options.pidfile)
    async with (
        catching_signals(hangup=reread is None) as signalled,
        catching(signal.SIGUSR2) as reopening,
        contextlib.AsyncExitStack() as stack,
    ):
        reloading = None
        if reread is not None and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            reloading = await stack.enter_async_context(catching(signal.SIGHUP))
        with pid, _state_file(options.state) as state_file:
            async with (
                _trace(options.qmp_trace) as trace,
                open_service(
                    *_stand_ins(options, reread),
                    sandbox=options.sandbox,
                    state_file=state_file,
                    escape=options.escape,
                    log=service_log,
                    trace=trace,
                    imports_all=False,  # but as soon as it listens
                ) as service,
                open_background_nursery() as nursery,
            ):
                nursery.start_soon(notifier.keep_alive)
                nursery.start_soon(service.quit_at, signalled)
                nursery.start_soon(service.reopen_logs_at, reopening)

                async def begin() -> None:
                    later = await add_all(service, options, state_file, nursery)
                    if reread is not None:
                        from trio_chardev.cli.reload import Reloader

                        reloader = Reloader(options, later, state_file, reread, nursery, notifier)
                        if service_log is not None:
                            reloader.apply_log = service_log.apply
                        service.reload_by(reloader.reload)
                        if reloading is not None:
                            nursery.start_soon(reloader.reload_at, reloading)
                    await notifier.ready(later.status)
                    nursery.start_soon(warm_up)

                nursery.start_soon(_noting, begin, service, errors)
                await service.wait_quit()
                await notifier.stopping(str(errors[0]) if errors else "it stops")
                await service.run_until_quit()
    if errors:
        raise errors[0]


def _stand_ins(options: ServeOptions, reread: Callable[[], ServeOptions] | None) -> list[Kind[Any]]:
    """The kind that stands in for chardevs of a configuration, if there is one."""
    if reread is None and not options.configured:
        return []
    from trio_chardev.config.absent import ABSENT

    return [ABSENT]


async def _noting(
    begin: Callable[[], Awaitable[None]], service: Service, errors: list[ChardevError]
) -> None:
    """Run *begin*, in a task, as a chardev may wait for a client for long; quit if it fails."""
    try:
        await begin()
    except ChardevError as exc:
        errors.append(exc)
        service.quit("host-error")


async def add_all(
    service: Service, options: ServeOptions, state_file: StateFile, nursery: trio.Nursery
) -> Later:
    """Make all that the command line, the configuration and the state file name.

    What can't be made of the configuration is tried again in *nursery*. Raises ChardevError.
    """
    maker = Maker(service, options.sandbox, options.said, options.inherited)
    later = Later(maker, options.configured, nursery)
    makes = later.makes
    objects = list(plan(state_file, "objects", options.objects, OBJECT, _say_of_state))
    wanted: Iterable[Wanted] = [item for item in objects if not is_monitor(item)]
    await make_all("objects", wanted, OBJECT, makes["objects"], _say_of_state)
    wanted = plan(state_file, "chardevs", options.chardevs, BACKEND, _say_of_state)
    await make_all("chardevs", wanted, BACKEND, makes["chardevs"], _say_of_state)
    for monitor in options.monitors:
        with saying(monitor.said):
            await service.add_monitor(
                monitor.options.chardev,
                pretty=monitor.options.pretty,
                insecure=monitor.options.insecure,
            )
    wanted = _later(filter(is_monitor, objects))
    await make_all("objects", wanted, OBJECT, makes["objects"], _say_of_state)
    wanted = _later(plan(state_file, "devices", options.devices, DEVICE, _say_of_state))
    await make_all("devices", wanted, DEVICE, makes["devices"], _say_of_state)
    inherited = options.inherited
    for listener in options.listeners:
        with saying(listener.said):
            await service.listen_qmp(
                listener.options, insecure=listener.insecure, take_fd=inherited.take
            )
    if not options.has_monitor and inherited.is_listening(ACTIVATED):
        await service.listen_qmp(SocketOptions(addr=FdAddress(ACTIVATED)), take_fd=inherited.take)
    elif not options.has_monitor:
        path = default_monitor_path()
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(path))))
        announce(f"QMP at {path}")
    for page in options.metrics:
        await later.endpoints.open(page.options, page.said)
    return later


def _later(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Sort users of chardevs: those of the command line get the chardevs first."""
    return sorted(wanted, key=lambda item: item.is_restored)


def _say_of_state(text: str) -> None:
    complain(f"trio-chardev: --state: {printable(text)}")


@contextlib.asynccontextmanager
async def _trace(path: str | None) -> AsyncIterator[Tracer | None]:
    if path is None:
        yield None
        return
    from trio_chardev.qmp.server.trace import open_trace

    async with contextlib.AsyncExitStack() as stack:
        with saying(f"--qmp-trace {path}"):
            trace = await stack.enter_async_context(open_trace(path))
        yield trace


def _pidfile(path: str) -> contextlib.AbstractContextManager[None]:
    from trio_chardev.cli.pidfile import keeping_pid

    return keeping_pid(path)


@contextlib.contextmanager
def _state_file(path: str | None) -> Iterator[StateFile]:
    if path is None:
        yield StateFile()
        return
    with contextlib.ExitStack() as stack:
        with saying(f"--state {path}"):
            state_file = stack.enter_context(open_state_file(path))
        yield state_file
