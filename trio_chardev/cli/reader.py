"""Reads the options of ``serve`` one after another, then the configuration."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.socket.addresses import FdAddress
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.table import BACKEND, GRAMMAR
from trio_chardev.cli.errors import saying
from trio_chardev.cli.inherited import Inherited
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import DeviceExistsError, OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import ChardevSpec, check_id
from trio_chardev.options.keyval import (
    HELP_WORDS,
    HelpRequested,
    parse_bool,
    structure_text,
)
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure
from trio_chardev.qmp.server.state import Table

if TYPE_CHECKING:
    from trio_chardev.config.configuration import Configuration
    from trio_chardev.config.nodes import Spot
    from trio_chardev.metrics.options import MetricsOptions


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


@attrs.frozen
class MetricsPage:
    """A ``--metrics``."""

    said: str
    options: MetricsOptions


@attrs.define(repr=False)
class Reader:
    """Parses one option after another. All methods raise OptionsError."""

    warn: Callable[[str], object]
    inherited: Inherited
    objects: dict[str, ObjectOptions] = attrs.Factory(dict)
    chardevs: dict[str, BackendOptions] = attrs.Factory(dict)
    devices: dict[str, DeviceOptions] = attrs.Factory(dict)
    said: dict[tuple[Table, str], str] = attrs.Factory(dict)
    monitors: list[Monitor] = attrs.Factory(list)
    listeners: list[QmpListener] = attrs.Factory(list)
    metrics: list[MetricsPage] = attrs.Factory(list)
    _numbers: Iterator[int] = attrs.Factory(itertools.count)

    def read_object(self, text: str) -> None:
        said = f"--object {_without_secrets(text)}"
        with saying(said):
            made = self._read_variant(OBJECT, "object", text)
            if made.id in self.objects:
                from trio_chardev.qmp.commands.object import duplicate_object

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
        with saying(said):
            self._add_monitor(said, text)

    def _add_monitor(self, said: str, text: str) -> None:
        with _only_qmp(), _help_is_about("monitor"):
            options = structure_text(MonitorOptions, text, "chardev", self.warn)
            if options.id is not None:
                check_id(options.id)
        self.monitors.append(Monitor(said, options))

    def read_qmp(self, text: str, id: str) -> None:
        said = f"--qmp {text}"
        if text in HELP_WORDS or text.endswith(tuple(f",{word}" for word in HELP_WORDS)):
            raise HelpRequested(option="qmp")
        with saying(said):
            self._add_qmp(said, text, id)

    def _add_qmp(self, said: str, text: str, id: str) -> None:
        from trio_chardev.options.legacy import parse_legacy

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

    def read_metrics(self, text: str) -> None:
        said = f"--metrics {text}"
        with saying(said):
            self._add_metrics(said, text)

    def _add_metrics(self, said: str, text: str) -> None:
        from trio_chardev.metrics.options import check_installed, parse_metrics

        options = parse_metrics(text)
        check_installed()
        if any(page.options == options for page in self.metrics):
            raise OptionsError("these metrics are there twice")
        self.metrics.append(MetricsPage(said, options))

    # ------------------------------------------------------------ files

    def add_configuration(self, configuration: Configuration) -> None:
        """Add what the files say. Raises ConfigError with all that is wrong there."""
        faults = configuration.faults
        tables: tuple[tuple[Table, dict[str, Any], Mapping[str, Any]], ...] = (
            ("objects", self.objects, configuration.objects),
            ("chardevs", self.chardevs, configuration.chardevs),
            ("devices", self.devices, configuration.devices),
        )
        for table, own, added in tables:
            for id, options in added.items():
                spot = configuration.spots[table, id]
                if id in own:
                    faults.add(spot, f"'{id}' is on the command line, too")
                own[id], self.said[table, id] = options, str(spot)
        for node in configuration.monitors:
            with faults.at(node.spot):
                self._add_monitor(str(node.spot), node.value)
        first = len(self.listeners)
        for number, node in enumerate(configuration.listeners, first):
            with faults.at(node.spot):
                self._add_qmp(str(node.spot), node.value, f"compat_monitor{number}")
        for node in configuration.metrics:
            with faults.at(node.spot):
                self._add_metrics(str(node.spot), node.value)
        self._check_names(configuration)
        faults.raise_any()

    def _check_names(self, configuration: Configuration) -> None:
        """Find names of chardevs that there are not."""
        named: list[tuple[Spot, Sequence[str]]] = [
            *(
                (configuration.spots["chardevs", id], options.stands_on)
                for id, options in configuration.chardevs.items()
            ),
            *(
                (configuration.spots["devices", id], options.chardevs)
                for id, options in configuration.devices.items()
            ),
        ]
        for spot, ids in named:
            for id in ids:
                if id not in self.chardevs and ("chardevs", id) not in configuration.spots:
                    configuration.faults.add(spot, f"there is no chardev '{id}'")

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


def _split_insecure(text: str) -> tuple[str, bool]:
    """Split off ``insecure=on``, which belongs to the monitor, not to the chardev."""
    insecure = False
    for match in re.finditer(r"(?<!,)(?:,,)*,insecure=([^,]*)", text):  # ",," is a comma
        insecure = parse_bool("insecure", match[1])
    return re.sub(r"(?<!,)((?:,,)*),insecure=[^,]*", r"\1", text), insecure


def _structure(spec: ChardevSpec) -> dict[str, BackendOptions]:
    """The chardevs that *spec* asks for, in the order in which to add them."""
    options: BackendOptions = structure(BACKEND, spec.backend, "backend")
    if not spec.mux:
        return {spec.id: options}
    from trio_chardev.backends.stacked.mux import MuxOptions

    base = f"{spec.id}-base"
    return {base: options, spec.id: MuxOptions(chardev=base)}
