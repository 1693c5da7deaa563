"""What ser2net calls accepters and connectors: gensio(5), such as ``telnet(rfc2217),tcp,4001``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from trio_chardev.convert.converted import Device, UnconvertibleError

FILTERS: Final = frozenset(
    [
        "telnet",
        "ssl",
        "mux",
        "certauth",
        "keepopen",
        "mdns",
        "msgdelim",
        "relpkt",
        "ratelimit",
        "trace",
        "perf",
        "conacc",
        "script",
        "kiss",
        "ax25",
        "xlt",
    ]
)
ENDS: Final = frozenset(
    [
        "tcp",
        "unix",
        "serialdev",
        "udp",
        "sctp",
        "pty",
        "stdio",
        "echo",
        "file",
        "dummy",
        "exec",
        "ipmisol",
        "sound",
        "dgram",
        "unixdgram",
        "unixseq",
        "afskmdm",
        "cm108gpio",
        "mcast",
    ]
)
CHARS: Final = re.compile(
    r"(?P<speed>[0-9]+)(?:(?P<parity>[NEOMS])(?P<data>[5-8])(?P<stop>[12])?)?"
)
HOST: Final = re.compile(r"[\w.%-]*|\[[\w:.%]+\]", re.ASCII)
PORT: Final = re.compile(r"[A-Za-z0-9-]+")
SWITCHES: Final = {"XONXOFF": "xonxoff", "RTSCTS": "rtscts"}
PARITIES: Final = {"NONE": "N", "EVEN": "E", "ODD": "O", "MARK": "M", "SPACE": "S"}
WITHOUT_EFFECT: Final = frozenset({"LOCAL", "NOBREAK", "NOUUCPLOCK", "UUCPLOCK", "DRAIN-TIME"})
"""Settings that need nothing here: nothing waits for a carrier, and there are no UUCP locks."""


@attrs.frozen
class Layer:
    """One gensio of a stack."""

    name: str
    options: Mapping[str, str]

    def is_on(self, key: str) -> bool:
        """Is that option there, and not off?"""
        return key in self.options and is_true(self.options[key])


@attrs.frozen
class Stack:
    """The gensios of an accepter or a connector; the last is that of an operating system."""

    filters: tuple[Layer, ...]
    end: Layer
    arguments: tuple[str, ...]

    def filter(self, name: str) -> Layer | None:
        """The filter of that name, if it has one."""
        return next((layer for layer in self.filters if layer.name == name), None)

    def check_filters(self, known: frozenset[str]) -> None:
        """Raise UnconvertibleError for a filter that is not *known*."""
        for layer in self.filters:
            if layer.name not in known:
                raise UnconvertibleError(f"there is nothing like '{layer.name}' here")


def is_true(text: str) -> bool:
    """Does the *text* of an option mean yes? Without a value it does."""
    return text.strip().lower() in {"", "true", "on", "yes", "1"}


def stack_of(text: str) -> Stack:
    """Take *text* apart. Without a name it is TCP."""
    items = list(_items(text))
    filters = []
    while len(items) > 1 and _layer(items[0]).name in FILTERS:
        filters.append(_layer(items.pop(0)))
    end = Layer("tcp", {})
    if items and _layer(items[0]).name in ENDS:
        end = _layer(items.pop(0))
    return Stack(tuple(filters), end, tuple(items))


def _items(text: str) -> Iterator[str]:
    """Split at commas outside of parentheses."""
    depth, item = 0, ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            yield item.strip()
            item = ""
        else:
            item += char
    yield item.strip()


def _layer(item: str) -> Layer:
    name, _, inside = item.partition("(")
    options = {}
    for option in re.split(r"[,\s]+", inside.rstrip(")")):
        if option:
            key, _, value = option.partition("=")
            options[key] = value.strip("\"'")
    return Layer(name.strip(), options)


def address_of(stack: Stack) -> str:
    """The address that an accepter listens at, as ``listen`` has it."""
    if stack.end.name == "unix":
        path = ",".join(stack.arguments)
        if "/" not in path:
            raise UnconvertibleError("the path of its socket is not absolute")
        return path
    host, port = host_and_port(stack)
    return f"{host or '*'}:{port}"


def host_and_port(stack: Stack) -> tuple[str, str]:
    """Host and port of TCP; the host may be empty, and has brackets if it is an IPv6 address."""
    if stack.end.name != "tcp":
        raise UnconvertibleError(f"there is nothing like '{stack.end.name}' here")
    arguments = [item for item in stack.arguments if item not in {"ipv4", "ipv6", "ipv6n4"}]
    match arguments:
        case [port]:
            host = ""
        case [host, port]:
            pass
        case _:
            raise UnconvertibleError(f"'{','.join(stack.arguments)}' is neither PORT nor HOST,PORT")
    host = f"[{host}]" if ":" in host else host
    if not PORT.fullmatch(port) or not HOST.fullmatch(host):
        raise UnconvertibleError(f"'{','.join(arguments)}' is neither PORT nor HOST,PORT")
    return host, port


def device_of(stack: Stack) -> tuple[Device, list[str]]:
    """The chardev for a connector, and what was left out of it."""
    stack.check_filters(frozenset({"telnet", "keepopen"}))
    telnet = stack.filter("telnet")
    match stack.end.name:
        case "serialdev" if telnet is None:
            return _serial(stack)
        case "tcp" if telnet is not None and telnet.is_on("rfc2217"):
            host, port = host_and_port(stack)
            return Device("serial", {"path": f"rfc2217://{host or 'localhost'}:{port}"}), []
        case "tcp":
            host, port = host_and_port(stack)
            options: dict[str, str | int | bool] = {"host": host.strip("[]") or "localhost"}
            options |= {"port": port}
        case "unix":
            options = {"path": ",".join(stack.arguments)}
        case "pty":
            link = stack.end.options.get("link")
            return Device("pty", {} if link is None else {"path": link}), []
        case name:
            raise UnconvertibleError(f"there is nothing like '{name}' here")
    options |= {"server": False, "reconnect-ms": 1000}
    return Device("socket", options | ({"telnet": True} if telnet else {})), []


def _serial(stack: Stack) -> tuple[Device, list[str]]:
    path, *rest = stack.arguments or ("",)
    if not path:
        raise UnconvertibleError("the device is missing")
    options: dict[str, str | int | bool] = {"path": path, "speed": 9600}
    hupcl = False  # gensio's default
    left_out = []
    settings = [word for item in rest for word in item.split()]
    settings += [f"{key}={value}" if value else key for key, value in stack.end.options.items()]
    for word in settings:
        key, _, value = word.upper().partition("=")
        is_on = is_true(value) and not key.startswith("-")
        key = key.removeprefix("-")
        if (found := CHARS.fullmatch(key)) or (
            key == "SPEED" and (found := CHARS.fullmatch(value))
        ):
            options |= _characters(found)
        elif key in SWITCHES:
            options |= {SWITCHES[key]: True} if is_on else {}
        elif key in PARITIES and is_on:
            options |= {"parity": PARITIES[key]} if key != "NONE" else {}
        elif found := re.fullmatch(r"([5-8])DATABITS?|([12])STOPBITS?", key):
            options |= {"data-bits": int(found[1])} if found[1] else {"stop-bits": int(found[2])}
        elif key in {"HANGUP-WHEN-DONE", "HANGUP_WHEN_DONE"}:
            hupcl = is_on
        elif key in {"DTR", "RTS"}:
            options |= {key.lower(): is_on}
        elif key not in WITHOUT_EFFECT:
            left_out.append(f"there is nothing like '{word}' here")
    return Device("serial", options | {"hupcl": hupcl}), left_out


def _characters(found: re.Match[str]) -> dict[str, str | int | bool]:
    """What ``9600n81`` says, without what is the default here."""
    options: dict[str, str | int | bool] = {"speed": int(found["speed"])}
    if found["parity"] not in {None, "N"}:
        options["parity"] = found["parity"]
    if found["data"] not in {None, "8"}:
        options["data-bits"] = int(found["data"])
    if found["stop"] not in {None, "1"}:
        options["stop-bits"] = int(found["stop"])
    return options
