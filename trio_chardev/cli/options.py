"""The options of ``trio-chardev serve``, checked as far as possible without opening anything."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from trio_chardev.access.objects import OBJECT, MonitorQmp, ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket.addresses import FdAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.table import BACKEND, FOREIGN, KINDS
from trio_chardev.cli.errors import saying
from trio_chardev.cli.inherited import Inherited
from trio_chardev.core.environment import DEFAULT_ESCAPE
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import DeviceExistsError, OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import ChardevGrammar, ChardevSpec, check_id, help_text
from trio_chardev.options.keyval import (
    HELP_WORDS,
    HelpRequested,
    parse_bool,
    parse_number,
    structure_text,
)
from trio_chardev.options.legacy import parse_legacy
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure
from trio_chardev.qmp.commands.object import duplicate_object
from trio_chardev.qmp.server.state import Table

GRAMMAR = ChardevGrammar({name: kind.options for name, kind in KINDS.items()}, FOREIGN)

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


@attrs.frozen(kw_only=True)
class MonitorOptions:
    """The options of ``--monitor``."""

    chardev: str
    """Id of the chardev to use."""

    id: str | None = None
    """Name of the monitor."""

    mode: Literal["control"] = "control"
    """QMP; there is no monitor for people."""

    pretty: bool = False
    """Indent the output."""

    insecure: bool = False
    """Accept any client: any user of this machine, any machine without TLS."""


@attrs.frozen
class Monitor:
    """A monitor on a chardev, from ``--monitor`` or ``--qmp``."""

    said: str
    """The option, for error texts."""

    options: MonitorOptions


@attrs.frozen
class QmpListener:
    """A ``--qmp`` that listens."""

    said: str
    options: SocketOptions
    insecure: bool = False
    """See `MonitorOptions`."""


@attrs.frozen(kw_only=True)
class ServeOptions:
    """The command line, structured and checked as far as possible without opening anything."""

    objects: Mapping[str, ObjectOptions]
    chardevs: Mapping[str, BackendOptions]
    """They are in the order in which to add them, as the objects and the devices are."""
    devices: Mapping[str, DeviceOptions]
    said: Mapping[tuple[Table, str], str]
    """The option of each object, chardev and device, for error texts."""
    monitors: Sequence[Monitor]
    listeners: Sequence[QmpListener]
    pidfile: str | None = None
    sandbox: Sandbox = EVERYWHERE
    """The paths that QMP clients may name."""
    escape: int = DEFAULT_ESCAPE
    state: str | None = None
    """The file that keeps what QMP clients set up."""
    inherited: Inherited = attrs.Factory(Inherited)
    """The descriptors that the command line may name."""

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
    ) -> ServeOptions:
        """Parse the options. Raises OptionsError, and HelpRequested (``--chardev help`` ...)."""
        inherited = Inherited() if inherited is None else inherited
        reader = _Reader(warn, inherited)
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
        return cls(
            objects=reader.objects,
            chardevs=reader.chardevs,
            devices=reader.devices,
            said=reader.said,
            monitors=reader.monitors,
            listeners=reader.listeners,
            pidfile=pidfile,
            sandbox=_sandbox(sandbox),
            escape=DEFAULT_ESCAPE if echr is None else _parse_echr(echr),
            state=state,
            inherited=inherited,
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
        return GRAMMAR.help_text(request.subject)


@attrs.define
class _Reader:
    """Parses one option after another. All methods raise OptionsError."""

    warn: Callable[[str], object]
    inherited: Inherited
    objects: dict[str, ObjectOptions] = attrs.Factory(dict)
    chardevs: dict[str, BackendOptions] = attrs.Factory(dict)
    devices: dict[str, DeviceOptions] = attrs.Factory(dict)
    said: dict[tuple[Table, str], str] = attrs.Factory(dict)
    monitors: list[Monitor] = attrs.Factory(list)
    listeners: list[QmpListener] = attrs.Factory(list)
    _numbers: Iterator[int] = attrs.Factory(itertools.count)

    def read_object(self, text: str) -> None:
        said = f"--object {_without_secrets(text)}"
        with saying(said):
            made = self._read_variant(OBJECT, "object", text)
            if made.id in self.objects:
                raise duplicate_object(made.id)
        self.objects[made.id] = made
        self.said["objects", made.id] = said

    def read_device(self, text: str) -> None:
        said = f"--device {text}"
        with saying(said):
            device = self._read_variant(DEVICE, "device", text)
            if device.id is not None:
                check_id(device.id)
            id = f"#device{next(self._numbers)}" if device.id is None else device.id
            if id in self.devices:
                raise DeviceExistsError(f"Duplicate device ID '{id}'")
        self.devices[id] = device
        self.said["devices", id] = said

    def _read_variant(self, union: TaggedUnion, option: str, text: str) -> Any:
        """Parse an option whose implied key is the tag of *union*."""
        try:
            return structure_text(union, text, union.tag, self.warn)
        except HelpRequested as request:
            if request.subject is not None and request.subject not in union.variants:
                structure(union, {union.tag: request.subject})  # raises: there is no such variant
            request.option = option
            raise

    def read_chardev(self, text: str) -> None:
        said = f"--chardev {text}"
        with saying(said):
            self._add(_structure(GRAMMAR.parse(text, self.warn)), said)

    def _add(self, chardevs: dict[str, BackendOptions], said: str) -> None:
        for id in chardevs:
            if id in self.chardevs:
                raise OptionsError(f"Duplicate ID '{id}' for chardev")
            self.said["chardevs", id] = said
        self.chardevs |= chardevs

    def read_monitor(self, text: str) -> None:
        said = f"--monitor {text}"
        with saying(said), _only_qmp(), _help_is_about("monitor"):
            options = structure_text(MonitorOptions, text, "chardev", self.warn)
            if options.id is not None:
                check_id(options.id)
        self.monitors.append(Monitor(said, options))

    def read_qmp(self, text: str, id: str) -> None:
        said = f"--qmp {text}"
        if text in HELP_WORDS or text.endswith(tuple(f",{word}" for word in HELP_WORDS)):
            raise HelpRequested(option="qmp")
        with saying(said):
            address, insecure = _split_insecure(text)
            legacy = parse_legacy(GRAMMAR, address, id)
            if legacy is None:
                return
            if legacy.spec is not None:
                chardevs = _structure(legacy.spec)
                options = chardevs[id]
                if isinstance(options, SocketOptions):
                    options = self._with_role(options)
                    if options.server:
                        self.listeners.append(QmpListener(said, options, insecure))
                        return
                self._add(chardevs, said)
            monitor = MonitorOptions(chardev=legacy.id, insecure=insecure)
            self.monitors.append(Monitor(said, monitor))

    def _with_role(self, options: SocketOptions) -> SocketOptions:
        """Make it a server without ``server=on`` if its socket listens already, as from systemd."""
        address = options.addr
        if isinstance(address, FdAddress) and self.inherited.is_listening(address.str_):
            return attrs.evolve(options, server=True)
        return options


def _without_secrets(text: str) -> str:
    """*text* for error texts, which may end up in a log."""
    if text.startswith("{"):
        return "{...}"
    return re.sub(r"(^|,)data=(?:[^,]|,,)*", r"\1data=...", text)


@contextlib.contextmanager
def _help_is_about(option: str) -> Iterator[None]:
    try:
        yield
    except HelpRequested:
        raise HelpRequested(option=option) from None


@contextlib.contextmanager
def _only_qmp() -> Iterator[None]:
    """Add a hint to an error about the ``mode``."""
    try:
        yield
    except OptionsError as exc:
        if "'mode'" in str(exc):
            exc.add_note("Only QMP is spoken here (mode=control): there is no monitor for people.")
        raise


def _sandbox(folders: Sequence[str]) -> Sandbox:
    if not folders:
        return EVERYWHERE
    with saying("--sandbox"):
        return Sandbox(folders)


def _split_insecure(text: str) -> tuple[str, bool]:
    """Split off ``insecure=on``, which belongs to the monitor, not to the chardev."""
    insecure = False
    for match in re.finditer(r"(?<!,)(?:,,)*,insecure=([^,]*)", text):  # ",," is a comma
        insecure = parse_bool("insecure", match[1])
    return re.sub(r"(?<!,)((?:,,)*),insecure=[^,]*", r"\1", text), insecure


def _parse_echr(text: str) -> int:
    """Parse a character's number: decimal, 0x hexadecimal or 0 octal. Raises OptionsError."""
    try:
        number = parse_number("echr", text)
    except OptionsError:
        number = -1
    if not 0 <= number <= 255:
        raise OptionsError(f"--echr {text}: Bad argument to echr")
    return number


def _structure(spec: ChardevSpec) -> dict[str, BackendOptions]:
    """The chardevs that *spec* asks for, in the order in which to add them."""
    options: BackendOptions = structure(BACKEND, spec.backend, "backend")
    if not spec.mux:
        return {spec.id: options}
    base = f"{spec.id}-base"
    return {base: options, spec.id: MuxOptions(chardev=base)}
