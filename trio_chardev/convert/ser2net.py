"""A configuration of ser2net's: its connections become consoles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from trio_chardev.convert.converted import (
    Console,
    Converted,
    Place,
    UnconvertibleError,
    as_banner,
    as_option,
)
from trio_chardev.convert.gensio import Stack, address_of, device_of, is_true, stack_of

ACCEPTED: Final = frozenset({"telnet", "ssl"})
TRACES: Final = {"trace-both": "both", "trace-read": "out", "trace-write": "in"}
"""Option -> the direction of the log at the console, which gets what the device says as output."""

RESTRICTIONS: Final = ("remaddr", "authdir", "allowed-users", "pamauth")
"""Who may come. As that can't be converted, nobody comes: a copy must not let more people in."""

WHY_NOT: Final[Mapping[str, str]] = {
    "telnet-brk-on-sync": "telnet's BREAK is a break here, its Synch is not",
    "openstr": "nothing is sent to the device when a client comes: it is open anyway",
    "closestr": "nothing is sent to the device when clients go: it stays open",
    "closeon": "what the device says ends no connection",
    "signature": "it is always 'trio-chardev' and the version",
    "led-tx": "there are no LEDs",
    "led-rx": "there are no LEDs",
    **dict.fromkeys(RESTRICTIONS, "so it has no listener: add one behind a firewall, or with TLS"),
    "connback": "a client that is dialled is a chardev 'socket' with server=off, at a hub",
    "no-con-to-acc": "both directions are always there",
    "no-acc-to-con": "a listener with read-only=on lets its clients only watch",
    "sendon": "'frame-delimiter' of the console is like it",
    "chardelay": "nothing waits for more; 'frame-silence-us' of the console is like it",
    "chardelay-min": "nothing waits for more; 'frame-silence-us' of the console is like it",
    "chardelay-max": "nothing waits for more; 'frame-silence-us' of the console is like it",
    "chardelay-scale": "nothing waits for more; 'frame-silence-us' of the console is like it",
    "dev-to-net-bufsize": "it can't be chosen",
    "net-to-dev-bufsize": "it can't be chosen",
}
"""Options that have no counterpart, and what to do instead."""

WITHOUT_EFFECT: Final = frozenset({"accepter-retry-time", "connector-retry-time"})
"""What can't open is always tried again."""

BANNER_TEXTS: Final = {"n": "\n", "r": "", "t": " ", "\\": "\\", "'": "'", '"': '"', "?": "?"}


@attrs.frozen
class Text:
    """The value of an option, and where it is."""

    place: Place
    value: str


@attrs.define
class Connection:
    """A connection, in either format of ser2net's."""

    name: str
    place: Place
    accepter: Text
    connector: Text
    timeout: Text | None = None
    options: dict[str, Text] = attrs.Factory(dict)

    def is_on(self, option: str) -> bool:
        """Is that option there, and true?"""
        return option in self.options and is_true(self.options[option].value)


def add_connection(connection: Connection, result: Converted) -> None:
    """Add the console for a connection, or a listener to the one of the same device."""
    try:
        _add(connection, result)
    except UnconvertibleError as exc:
        result.leave_out(connection.place, f"connection '{connection.name}': {exc}")


def _add(connection: Connection, result: Converted) -> None:
    accepter = stack_of(connection.accepter.value)
    connector = stack_of(connection.connector.value)
    device, left_out = device_of(connector)
    address = address_of(accepter)
    listener = _protocols(accepter, connection, result)
    if "banner" in connection.options:
        listener["in-band"] = True
    console = Console(connection.place, device, [as_option(address, listener)])
    if connection.options.keys() & set(RESTRICTIONS):
        console.listen = []
    for text in left_out:
        result.leave_out(connection.connector.place, text)
    path = device.options.get("path")
    for name, other in result.consoles.items():
        if device.kind == other.device.kind == "serial" and other.device.options["path"] == path:
            _join(connection, console, name, other, result)
            return
    _fill(console, connection, accepter, result)
    result.consoles[result.new_name(connection.name, connection.place)] = console


def _join(
    connection: Connection, console: Console, name: str, other: Console, result: Converted
) -> None:
    """Add the listeners of *console* to *other*, which has the same line."""
    if console.device != other.device:
        raise UnconvertibleError(
            f"its line is that of '{name}', with other settings; a line is open all the time here, "
            "and clients set it by RFC 2217"
        )
    other.listen += console.listen
    if connection.options or connection.timeout:
        result.leave_out(
            connection.place,
            f"connection '{connection.name}' is a listener of '{name}', with the options of that",
        )


def _protocols(
    accepter: Stack, connection: Connection, result: Converted
) -> dict[str, str | int | bool]:
    """The options of the listener."""
    accepter.check_filters(ACCEPTED)
    options: dict[str, str | int | bool] = {}
    if (telnet := accepter.filter("telnet")) is not None:
        options["rfc2217" if telnet.is_on("rfc2217") else "telnet"] = True
    if (ssl := accepter.filter("ssl")) is not None:
        options["tls-creds"] = _credentials(ssl.options, connection, result)
    return options


def _credentials(options: Mapping[str, str], connection: Connection, result: Converted) -> str:
    values: dict[str, str | bool] = {
        "qom-type": "tls-creds-x509",
        "endpoint": "server",
        "dir": "/etc/trio-chardev/tls",
        "verify-peer": "clientauth" in options and is_true(options["clientauth"]),
    }
    if "cert" in options:
        values["dir"] = f"/etc/trio-chardev/tls-{connection.name}"
    for id, other in result.objects.items():
        if other == values:
            return id
    id = f"tls{len(result.objects) or ''}"
    result.objects[id] = values
    result.leave_out(
        connection.accepter.place,
        f"the key and certificates are looked for in '{values['dir']}': put 'server-key.pem', "
        "'server-cert.pem' and 'ca-cert.pem' there",
    )
    return id


def _fill(console: Console, connection: Connection, accepter: Stack, result: Converted) -> None:
    """Fill in what the options say."""
    console.values["max-clients"] = 1
    if connection.is_on("kickolduser"):
        console.values["on-full"] = "kick"
    if connection.timeout is not None and connection.timeout.value not in {"", "0"}:
        seconds = _number(connection.timeout, "timeout", result)
        console.values["idle-timeout"] = seconds
        result.leave_out(
            connection.timeout.place,
            "'timeout' begins anew only when the client types, not with output",
        )
    _fill_log(console, connection, accepter, result)
    for key, text in connection.options.items():
        if key == "max-connections":
            console.values["max-clients"] = _number(text, key, result)
        elif key == "banner":
            console.values["banner"] = as_banner(_expand(text, connection, accepter, result))
        elif key in WHY_NOT:
            if key == "telnet-brk-on-sync" and (not is_true(text.value) or not accepter.filters):
                continue  # without telnet it has no effect
            result.leave_out(text.place, f"'{key}': {WHY_NOT[key]}")
        elif key not in WITHOUT_EFFECT | {"kickolduser"} and not key.startswith("trace-"):
            result.leave_out(text.place, f"there is nothing like '{key}' here")


def _number(text: Text, key: str, result: Converted) -> int:
    try:
        return int(text.value)
    except ValueError:
        result.leave_out(text.place, f"'{key}' is no number")
        return 1


def _fill_log(console: Console, connection: Connection, accepter: Stack, result: Converted) -> None:
    found = [key for key in TRACES if key in connection.options]
    for key in found[1:]:
        result.leave_out(
            connection.options[key].place,
            f"'{key}': a console has one log file, that of '{found[0]}'",
        )
    if not found:
        return
    key = found[0]
    text = connection.options[key]
    console.log["file"] = _expand(text, connection, accepter, result)
    if TRACES[key] != "out":
        console.log["direction"] = TRACES[key]
    if connection.is_on("trace-hexdump") or connection.is_on(f"{key}-hexdump"):
        console.log["format"] = "hexdump"
    if connection.is_on("trace-timestamp") or connection.is_on(f"{key}-timestamp"):
        console.log |= {"events": True} | (
            {} if "format" in console.log else {"format": "timestamp"}
        )


def _expand(text: Text, connection: Connection, accepter: Stack, result: Converted) -> str:
    """Fill in what a backslash stands for; line ends around it go, those inside are spaces."""
    connector = stack_of(connection.connector.value)
    device = connector.arguments[0] if connector.arguments else ""
    is_name = text is not connection.options.get("banner")
    settings = connector.arguments[1].split()[:1] if len(connector.arguments) > 1 else []
    known = BANNER_TEXTS | {
        "d": device.rpartition("/")[2] if is_name else device,
        "o": connection.name,
        "N": connection.name,
        "p": accepter.arguments[-1],
        "B": "".join(settings).upper(),
        "s": "".join(settings).upper(),
    }

    def fill(found: re.Match[str]) -> str:
        if found[0][1:] in known:
            return known[found[0][1:]]
        if not found["number"]:
            result.leave_out(text.place, f"'{found[0]}' is not filled in here")
            return ""
        return chr(
            int(found["number"][1:], 16) if found["number"][0] == "x" else int(found["number"], 8)
        )

    filled = re.sub(r"\\(?:(?P<number>x[0-9A-Fa-f]{1,2}|[0-7]{1,3})|.)", fill, text.value)
    return " ".join(filled.split("\n")).strip()
