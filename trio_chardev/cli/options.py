"""The options of ``trio-chardev serve``, checked as far as possible without opening anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from trio_chardev.access.objects import MonitorQmp, ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import GRAMMAR as GRAMMAR
from trio_chardev.cli.errors import saying
from trio_chardev.cli.inherited import Inherited
from trio_chardev.cli.reader import (
    MetricsPage,
    Monitor,
    MonitorOptions as MonitorOptions,
    QmpListener,
    Reader,
)
from trio_chardev.core.environment import DEFAULT_ESCAPE
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import help_text
from trio_chardev.options.keyval import (
    HelpRequested,
    parse_number,
)
from trio_chardev.qmp.server.state import Table
from trio_chardev.service_log.options import LogOptions

if TYPE_CHECKING:
    from trio_chardev.config.configuration import Configuration

QMP_HELP = """\
QMP listeners and monitors:
  unix:PATH[,OPTIONS]          A UNIX socket.
  tcp:HOST:PORT[,OPTIONS]      A TCP socket; without HOST, on all addresses.
  telnet:HOST:PORT[,OPTIONS]   The same with telnet.
  websocket:HOST:PORT[,OPTIONS]
                               The same with WebSocket.
  stdio, pty, pty:PATH, /dev/NAME, file:PATH, pipe:PATH, udp:HOST:PORT
                               A monitor on such a chardev.
  chardev:ID                   A monitor on a chardev of --chardev.
  none                         Nothing.
With server=on,wait=off a socket listens for many clients at a time, each with a
session of its own; without, it connects. insecure=on accepts any client: any
user of this machine, any machine without TLS. The other options are those that
'--chardev socket,help' lists, such as tls-creds."""


@attrs.frozen(kw_only=True, repr=False)
class ServeOptions:
    """The command line, structured and checked as far as possible without opening anything."""

    objects: Mapping[str, ObjectOptions]
    chardevs: Mapping[str, BackendOptions]
    """They are in the order in which to add them, as the objects and the devices are."""
    devices: Mapping[str, DeviceOptions]
    said: Mapping[tuple[Table, str], str]
    """The option of each object, chardev and device, or its place in a file, for error texts."""
    monitors: Sequence[Monitor]
    listeners: Sequence[QmpListener]
    metrics: Sequence[MetricsPage] = ()
    pidfile: str | None = None
    sandbox: Sandbox = EVERYWHERE
    """The paths that QMP clients may name."""
    escape: int = DEFAULT_ESCAPE
    state: str | None = None
    """The file that keeps what QMP clients set up."""
    files: tuple[Path, ...] = ()
    """The configuration's files."""
    configured: frozenset[tuple[Table, str]] = frozenset()
    """What comes from them."""
    inherited: Inherited = attrs.Factory(Inherited)
    """The descriptors that the command line may name."""
    log: LogOptions = attrs.Factory(LogOptions)
    """How the service's log is written."""
    qmp_trace: str | None = None
    """The file that QMP's messages are written to."""

    @property
    def has_monitor(self) -> bool:
        """Is there any way to control the service?"""
        objects = any(isinstance(options, MonitorQmp) for options in self.objects.values())
        return bool(self.monitors or self.listeners or objects)

    @classmethod
    def parse(
        cls,
        chardevs: Sequence[str],
        monitors: Sequence[str],
        listeners: Sequence[str],
        pidfile: str | None,
        warn: Callable[[str], object],
        objects: Sequence[str] = (),
        sandbox: Sequence[str] = (),
        devices: Sequence[str] = (),
        echr: str | None = None,
        state: str | None = None,
        inherited: Inherited | None = None,
        configuration: Configuration | None = None,
        log: LogOptions | None = None,
        qmp_trace: str | None = None,
        metrics: Sequence[str] = (),
    ) -> ServeOptions:
        """Parse the options, and add what *configuration* says.

        Raises OptionsError, which is a ConfigError with all that is wrong in the files, and
        HelpRequested (``--chardev help`` ...).
        """
        inherited = Inherited() if inherited is None else inherited
        reader = Reader(warn, inherited)
        for text in objects:
            reader.read_object(text)
        for text in devices:
            reader.read_device(text)
        for text in chardevs:
            reader.read_chardev(text)
        for text in monitors:
            reader.read_monitor(text)
        for number, text in enumerate(listeners):
            reader.read_qmp(text, f"compat_monitor{number}")
        for text in metrics:
            reader.read_metrics(text)
        if configuration is not None:
            reader.add_configuration(configuration)
            log = (log or LogOptions()).over(configuration.log)
        return cls(
            objects=reader.objects,
            chardevs=reader.chardevs,
            devices=reader.devices,
            said=reader.said,
            monitors=reader.monitors,
            listeners=reader.listeners,
            metrics=reader.metrics,
            pidfile=pidfile,
            sandbox=_sandbox(sandbox),
            escape=DEFAULT_ESCAPE if echr is None else _parse_echr(echr),
            state=state,
            inherited=inherited,
            log=log or LogOptions(),
            qmp_trace=qmp_trace,
            files=() if configuration is None else configuration.files,
            configured=frozenset(() if configuration is None else configuration.spots),
        )

    @staticmethod
    def help_text(request: HelpRequested) -> str:
        """The text for ``--chardev help``, ``--chardev KIND,help`` and the like."""
        match request.option:
            case "device":
                return help_text("Available devices:", DEVICE.variants, request.subject)
            case "object":
                return help_text(
                    "List of user creatable objects:", OBJECT.variants, request.subject
                )
            case "monitor":
                return help_text("", {"monitor": MonitorOptions}, "monitor")
            case "qmp":
                return QMP_HELP
            case "metrics":
                from trio_chardev.metrics.options import METRICS_HELP

                return METRICS_HELP
        return GRAMMAR.help_text(request.subject)


def _sandbox(folders: Sequence[str]) -> Sandbox:
    if not folders:
        return EVERYWHERE
    with saying("--sandbox"):
        return Sandbox(folders)


def _parse_echr(text: str) -> int:
    """Parse a character's number: decimal, 0x hexadecimal or 0 octal. Raises OptionsError."""
    try:
        number = parse_number("echr", text)
    except OptionsError:
        number = -1
    if not 0 <= number <= 255:
        raise OptionsError(f"--echr {text}: Bad argument to echr")
    return number
