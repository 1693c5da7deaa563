"""A whole configuration: what all its files say, checked, in the order in which to make it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

import attrs

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.table import OBJECT
from trio_chardev.config.console import check_keys, parts_of
from trio_chardev.config.files import find_files, read_node
from trio_chardev.config.nodes import Faults, Node, Spot
from trio_chardev.config.structured import read_chardev, read_variant, table_of
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.table import DEVICE
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import check_id
from trio_chardev.qmp.server.state import Table
from trio_chardev.service_log.options import LogOptions

TABLES: Final[Mapping[str, str]] = {
    "chardev": "a chardev, as `--chardev KIND,id=ID,...`: `kind`, and the options of that kind",
    "device": "a device, as `--device DRIVER,id=ID,...`: `driver`, and its options",
    "object": "an object, as `--object TYPE,id=ID,...`: `qom-type`, and its options",
    "console": "a device with the console that many share",
    "template": "the same keys, as defaults for consoles",
}
"""Tables of tables with ids, and what those are."""
LISTS: Final[Mapping[str, str]] = {
    "qmp": "an array of what `--qmp` takes, or one string",
    "monitor": "an array of what `--monitor` takes, or one string",
    "metrics": "an array of what `--metrics` takes, or one string",
}
"""Keys that are no tables, and what they are."""
LOG: Final[Mapping[str, str]] = {
    "level": "as `--log-level`",
    "format": "as `--log-format`",
}
"""Keys of the table ``log``, and what they are."""


@attrs.frozen
class Configuration:
    """What the files say."""

    files: tuple[Path, ...] = ()
    faults: Faults = attrs.Factory(Faults)
    """What is wrong with them."""
    objects: Mapping[str, ObjectOptions] = attrs.Factory(dict)
    chardevs: Mapping[str, BackendOptions] = attrs.Factory(dict)
    """In the order in which to make them."""
    devices: Mapping[str, DeviceOptions] = attrs.Factory(dict)
    spots: Mapping[tuple[Table, str], Spot] = attrs.Factory(dict)
    """Where they are."""
    monitors: tuple[Node, ...] = ()
    """Texts as ``--monitor`` takes them."""
    listeners: tuple[Node, ...] = ()
    """Texts as ``--qmp`` takes them."""
    log: LogOptions = attrs.Factory(LogOptions)
    """What is said about the service's log."""
    metrics: tuple[Node, ...] = ()
    """Texts as ``--metrics`` takes them."""


def read_configuration(given: Iterable[str]) -> Configuration:
    """Read the files and folders *given*, or the default's.

    What is wrong in the files is in `Configuration.faults`. It may wait for a disk. Raises
    NoSuchFileError, and OptionsError if a folder can't be read.
    """
    faults = Faults()
    files = find_files(given)
    maker = _Maker(faults)
    for path in files:
        if (node := read_node(path, faults)) is not None:
            maker.collect(node)
    maker.make_all()
    return Configuration(
        files=tuple(files),
        faults=faults,
        objects=maker.made["objects"],
        chardevs=_in_order(maker.made["chardevs"], maker.spots, faults),
        devices=maker.made["devices"],
        spots=maker.spots,
        monitors=tuple(maker.lists["monitor"]),
        listeners=tuple(maker.lists["qmp"]),
        log=maker.log,
        metrics=tuple(maker.lists["metrics"]),
    )


@attrs.define
class _Maker:
    """Collects what the files say, then makes options of it."""

    faults: Faults
    tables: dict[str, dict[str, Node]] = attrs.field(init=False)
    lists: dict[str, list[Node]] = attrs.field(init=False)
    made: dict[Table, dict[str, Any]] = attrs.field(init=False)
    spots: dict[tuple[Table, str], Spot] = attrs.Factory(dict)
    log: LogOptions = attrs.Factory(LogOptions)
    _log_spots: dict[str, Spot] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.tables = {name: {} for name in TABLES}
        self.lists = {name: [] for name in LISTS}
        self.made = {"objects": {}, "chardevs": {}, "devices": {}}

    def collect(self, document: Node) -> None:
        """Take what one file says."""
        for key, node in document.value.items():
            if key in self.lists:
                self.lists[key] += self._strings(node)
            elif key in self.tables:
                self._collect_table(self.tables[key], node)
            elif key == "log":
                self._collect_log(node)
            else:
                known = ", ".join((*TABLES, *LISTS, "log"))
                self.faults.add(node.spot, f"there is no '{key}': there are {known}")

    def _strings(self, node: Node) -> Iterator[Node]:
        for item in node.value if isinstance(node.value, list) else [node]:
            if isinstance(item.value, str):
                yield item
            else:
                self.faults.add(item.spot, "this is no string")

    def _collect_table(self, table: dict[str, Node], node: Node) -> None:
        for id, item in table_of(node, self.faults).items():
            if id in table:
                self.faults.add(item.spot, f"'{id}' is at {_line(table[id].spot)} already")
            else:
                table[id] = item

    def _collect_log(self, node: Node) -> None:
        for key, item in table_of(node, self.faults).items():
            if key not in LOG:
                known = ", ".join(LOG)
                self.faults.add(item.spot, f"'log' has no '{key}': there are {known}")
            elif key in self._log_spots:
                self.faults.add(item.spot, f"'{key}' is at {_line(self._log_spots[key])} already")
            elif not isinstance(item.value, str):
                self.faults.add(item.spot, "this is no string")
            else:
                self._log_spots[key] = item.spot
                with self.faults.at(item.spot):
                    level, form = (item.value if key == name else None for name in LOG)
                    self.log = LogOptions.parse(level, form).over(self.log)

    def make_all(self) -> None:
        """Make options of all that was collected."""
        for id, node in self.tables["object"].items():
            self._make("objects", id, node)
        for id, node in self.tables["chardev"].items():
            self._make("chardevs", id, node)
        for id, node in self.tables["device"].items():
            self._make("devices", id, node)
        templates = self._templates()
        for name, node in self.tables["console"].items():
            for part in parts_of(name, node, templates, self.faults):
                self._make(part.table, part.id, part.node, node.spot)

    def _templates(self) -> dict[str, Node]:
        templates = {}
        for name, node in self.tables["template"].items():
            values = dict(table_of(node, self.faults))
            if (inner := values.pop("template", None)) is not None:
                self.faults.add(inner.spot, "a template has no template")
            check_keys(values, self.faults)
            templates[name] = attrs.evolve(node, value=values)
        return templates

    def _make(self, table: Table, id: str, node: Node, stands_at: Spot | None = None) -> None:
        spot = node.spot if stands_at is None else stands_at
        with self.faults.at(spot):
            check_id(id)
        if (table, id) in self.spots:
            other = _line(self.spots[table, id])
            self.faults.add(spot, f"'{id}' of {table} is at {other} already")
            return
        self.spots[table, id] = spot
        match table:
            case "chardevs":
                options: Any = read_chardev(node, self.faults)
            case "objects":
                options = read_variant(OBJECT, id, node, self.faults)
            case "devices":
                options = read_variant(DEVICE, id, node, self.faults)
        if options is not None:
            self.made[table][id] = options


def _line(spot: Spot) -> str:
    return f"{spot.file}:{spot.line}"


def _in_order(
    chardevs: Mapping[str, BackendOptions],
    spots: Mapping[tuple[Table, str], Spot],
    faults: Faults,
) -> dict[str, BackendOptions]:
    """Sort: what stands on others, as a mux does, comes after them."""
    graph = {
        id: [base for base in options.stands_on if base in chardevs]
        for id, options in chardevs.items()
    }
    ordered: dict[str, BackendOptions] = {}

    def put(id: str) -> None:
        for base in graph[id]:
            put(base)
        ordered[id] = chardevs[id]

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        circle = " on ".join(exc.args[1])
        faults.add(spots["chardevs", exc.args[1][0]], f"chardevs stand on each other: {circle}")
        return dict(chardevs)
    for id in graph:
        put(id)
    return ordered
