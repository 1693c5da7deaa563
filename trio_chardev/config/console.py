"""``[console.NAME]``: a device, the console that many people share, the bridge, the listeners.

It stands for the chardevs ``NAME`` and ``NAME-console``, the bridge ``NAME-bridge``, and the listeners
``NAME-l0``, ``NAME-l1`` ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import attrs

from trio_chardev.backends.table import GRAMMAR
from trio_chardev.config.nodes import Faults, Node
from trio_chardev.config.structured import Values, table_of, values_of_text
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.options.members import describe
from trio_chardev.options.where import HOW_TO_LISTEN, read_where

OWN_KEYS: Final[Mapping[str, str]] = {
    "device": "where the board or the VM is: `KIND,KEY=VALUE,...`, or a table with `kind`",
    "listen": "addresses where clients come in: a string, or an array of them",
    "log": "a table about the log file of what the device says",
    "template": "the name of a `[template.NAME]`, whose keys are defaults",
}
"""Keys of the table itself, and what they are."""

LOG_KEYS: Final[Mapping[str, str]] = {
    "file": "logfile",
    "append": "logappend",
    "timestamp": "logtimestamp",
    "direction": "log",
} | {
    name.removeprefix("log-"): name
    for name in GRAMMAR.options_of("console")
    if name.startswith("log-")
}
"""Keys of ``log`` -> options of the chardev."""

CONSOLE_KEYS: Final = frozenset(GRAMMAR.options_of("console")) - set(LOG_KEYS.values())
"""Keys that are options of the console."""

BRIDGE_KEYS: Final = (
    frozenset(member.name for member in describe(BridgeOptions))
    - {"id", *BridgeOptions.uses}
    - CONSOLE_KEYS
)
"""Keys that are options of the bridge."""


@attrs.frozen
class Part:
    """A chardev or device that a console consists of."""

    table: Literal["chardevs", "devices"]
    id: str
    node: Node
    """What a ``[chardev.ID]`` or ``[device.ID]`` would be."""


def parts_of(name: str, node: Node, templates: Mapping[str, Node], faults: Faults) -> list[Part]:
    """Expand a console; what is wrong is added to *faults*."""
    values = _with_template(name, node, templates, faults)
    check_keys(values, faults)
    made = _Made(name, node)
    parts = []
    if "device" in values:
        parts.append(Part("chardevs", name, values["device"]))
    else:
        faults.add(node.spot, "'device' is missing")
    console = {key: item for key, item in values.items() if key in CONSOLE_KEYS}
    if "log" in values:
        console |= _log_of(values["log"], faults)
    parts.append(Part("chardevs", f"{name}-console", made.node("kind", "console", console)))
    bridge = {key: item for key, item in values.items() if key in BRIDGE_KEYS}
    bridge |= {"chardev": made.of(name), "peer": made.of(f"{name}-console")}
    parts.append(Part("devices", f"{name}-bridge", made.node("driver", "bridge", bridge)))
    for number, address in enumerate(_listen_of(values, faults)):
        listener = _listener_of(address, faults)
        listener["console"] = made.of(f"{name}-console")
        made_here = attrs.evolve(made, where=address)
        parts.append(
            Part("devices", f"{name}-l{number}", made_here.node("driver", "listener", listener))
        )
    return parts


def check_keys(values: Values, faults: Faults) -> None:
    """Add to *faults* the keys that neither a console nor a template has."""
    for key, item in values.items():
        if key not in CONSOLE_KEYS | BRIDGE_KEYS | OWN_KEYS.keys():
            faults.add(item.spot, f"a console has no '{key}'")


@attrs.frozen
class _Made:
    """Makes nodes that the file does not have."""

    name: str
    where: Node

    def of(self, value: object) -> Node:
        return Node(self.where.spot, value)

    def node(self, tag: str, kind: str, values: dict[str, Node]) -> Node:
        return self.of({tag: self.of(kind), **values})


def _with_template(
    name: str, node: Node, templates: Mapping[str, Node], faults: Faults
) -> dict[str, Node]:
    values = dict(table_of(node, faults))
    template = values.get("template")
    if template is not None:
        if not isinstance(template.value, str) or template.value not in templates:
            faults.add(template.spot, f"there is no template '{template.value}'")
        else:
            defaults = templates[template.value].value
            logs = [each["log"] for each in (defaults, values) if "log" in each]
            values = defaults | values
            if len(logs) == 2 and all(isinstance(log.value, dict) for log in logs):
                values["log"] = attrs.evolve(logs[1], value=logs[0].value | logs[1].value)
    return {key: item.filled(name) for key, item in values.items()}


def _log_of(node: Node, faults: Faults) -> dict[str, Node]:
    given = table_of(node, faults)
    options: dict[str, Node] = {}
    if given and "append" not in given:  # a service that starts again goes on with its logs
        options["logappend"] = Node(node.spot, value=True)
    for key, item in given.items():
        if key in LOG_KEYS:
            options[LOG_KEYS[key]] = item
        else:
            faults.add(item.spot, f"'log' has no '{key}'")
    return options


def _listen_of(values: Values, faults: Faults) -> Iterator[Node]:
    if (listen := values.get("listen")) is None:
        return
    for item in listen.value if isinstance(listen.value, list) else [listen]:
        if isinstance(item.value, str):
            yield item
        else:
            faults.add(item.spot, "this is no string")


def _listener_of(node: Node, faults: Faults) -> dict[str, Node]:
    """Read ``ADDRESS,key=value,...``."""
    values = values_of_text(node, "listen", faults)
    address = values.pop("listen", node).value
    for key, text in read_where(address).items():
        if key in values:
            faults.add(node.spot, f"'{key}' is there twice")
        values[key] = Node(node.spot, text)
    if not {"path", "port", "fd", "vsock"} & values.keys():
        faults.add(node.spot, f"'{address}' is neither HOST:PORT nor a path: {HOW_TO_LISTEN}")
        values["path"] = Node(node.spot, "?")  # lest it be said twice
    return values
