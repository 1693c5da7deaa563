"""Both formats of ser2net's files: YAML, and that of ser2net.conf, of version 3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trio_chardev.convert.converted import Converted, Place
from trio_chardev.convert.gensio import is_true
from trio_chardev.convert.ser2net import Connection, Text, add_connection
from trio_chardev.convert.text import read_text

if TYPE_CHECKING:
    from trio_chardev.convert.ser2net_yaml import Document, Entry

OLD_LINE: Final = re.compile(
    r"(?:(?P<host>[^,:\[\]]+|\[[^\]]+\]|[0-9a-fA-F:]+),)?(?P<port>[0-9]+)"
    r":(?P<state>raw|rawlp|telnet|off):(?P<timeout>[0-9]+):(?P<device>[^:]+)(?::(?P<options>.*))?"
)
OLD_STRINGS: Final = frozenset(
    {"BANNER", "TRACEFILE", "OPENSTR", "CLOSESTR", "CLOSEON", "SIGNATURE"}
)
OLD_TRACES: Final = {"tr": "trace-read", "tw": "trace-write", "tb": "trace-both"}
OLD_FLAGS: Final = {
    "kickolduser": "kickolduser",
    "telnet_brk_on_sync": "telnet-brk-on-sync",
    "chardelay": "chardelay",
    "hexdump": "trace-hexdump",
    "timestamp": "trace-timestamp",
}
OLD_VALUES: Final = {"max-connections": "max-connections", "remaddr": "remaddr"}


def convert(path: str) -> Converted:
    """Convert a file of ser2net's. It may wait for a disk. Raises MissingError, OptionsError."""
    text = read_text(path)
    result = Converted()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and all(re.match(r"[A-Za-z0-9.,\[\]-]+:\S", line) for line in lines):
        _convert_old(text, path, result)
    else:
        _convert_yaml(path, result)
    return result


# ---------------------------------------------------------------- YAML


WHY_NO_ENTRY: Final = {
    "default": "defaults are not applied: write them where they are used",
    "delete_default": "defaults are not applied: write them where they are used",
    "rotator": "a listener leads to one console: there are no rotators",
    "admin": "QMP and the commands are for that: see 'serve --qmp'",
    "led": "there are no LEDs",
}
"""Keys of the main level that have no counterpart."""


def _convert_yaml(path: str, result: Converted) -> None:
    from trio_chardev.convert.ser2net_yaml import Document

    document = Document(result)
    document.read(path)
    for entry in document.entries:
        if entry.key == "connection":
            _convert_entry(entry, document, result)
        elif entry.key not in {"define", "include"}:
            why = WHY_NO_ENTRY.get(entry.key, f"'{entry.key}' is not known")
            result.leave_out(entry.place, why)


def _convert_entry(entry: Entry, document: Document, result: Converted) -> None:
    """Convert a connection, if it is enabled."""
    options: dict[str, Text] = {}
    values = {}
    for key, node, place in document.pairs(entry.node):
        if key in {"accepter", "connector", "timeout", "enable"}:
            values[key] = Text(place, document.text(node))
        elif key == "options":
            options |= {
                option: Text(where, document.text(value))
                for option, value, where in document.pairs(node)
            }
        else:  # older files have options here
            options[key] = Text(place, document.text(node))
    name = entry.anchor or "connection"
    if missing := {"accepter", "connector"} - values.keys():
        what = " and ".join(sorted(missing))
        result.leave_out(entry.place, f"connection '{name}': {what} missing")
    elif "enable" in values and not is_true(values["enable"].value):
        result.leave_out(entry.place, f"connection '{name}' is not enabled")
    else:
        timeout = values.get("timeout")
        accepter, connector = values["accepter"], values["connector"]
        add_connection(Connection(name, entry.place, accepter, connector, timeout, options), result)


# ---------------------------------------------------------------- ser2net.conf


def _convert_old(text: str, path: str, result: Converted) -> None:
    strings: dict[str, Text] = {}
    for number, line in enumerate(text.splitlines(), 1):
        place = Place(path, number)
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, rest = line.partition(":")
        if kind in OLD_STRINGS:
            name, _, value = rest.partition(":")
            strings[name] = Text(place, value)
        elif found := OLD_LINE.fullmatch(line.strip()):
            _convert_old_line(found, place, strings, result)
        else:
            result.leave_out(place, f"there is nothing like '{kind}' here")


def _convert_old_line(
    found: re.Match[str], place: Place, strings: dict[str, Text], result: Converted
) -> None:
    name = f"port-{found['port']}"
    if found["state"] not in {"raw", "telnet"}:
        result.leave_out(place, f"'{name}' is {found['state']}: not enabled, or output alone")
        return
    words = (found["options"] or "").split()
    host = f"{found['host'].strip('[]')}," if found["host"] else ""
    layers = ""
    if found["state"] == "telnet":
        layers = "telnet(rfc2217)," if "remctl" in words else "telnet,"
    connection = Connection(
        name,
        place,
        Text(place, f"{layers}tcp,{host}{found['port']}"),
        Text(place, f"serialdev,{found['device']}"),
        Text(place, found["timeout"]),
    )
    settings = []
    for word in words:
        key, _, value = word.partition("=")
        if word in strings:  # a banner by its name
            connection.options["banner"] = strings[word]
        elif key in OLD_TRACES and value in strings:
            connection.options[OLD_TRACES[key]] = strings[value]
        elif key in OLD_VALUES:
            connection.options[OLD_VALUES[key]] = Text(place, value)
        elif key.removeprefix("-") in OLD_FLAGS:
            is_on = "false" if key.startswith("-") else "true"
            connection.options[OLD_FLAGS[key.removeprefix("-")]] = Text(place, is_on)
        elif key in {"openstr", "closestr", "closeon", "signature", "led-rx", "led-tx"}:
            connection.options[key] = Text(place, value)
        elif word != "remctl":
            settings.append(word)
    connection.connector = Text(place, f"serialdev,{found['device']},{' '.join(settings)}")
    add_connection(connection, result)
