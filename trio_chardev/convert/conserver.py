"""A configuration of conserver's: conserver.cf(5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from trio_chardev.convert.conserver_blocks import Block, Item, read_blocks
from trio_chardev.convert.converted import (
    Console,
    Converted,
    Device,
    Place,
    UnconvertibleError,
    as_banner,
)

PARITIES: Final = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}
HERE: Final = frozenset({"localhost", "127.0.0.1", "::1", ""})
HISTORY: Final = "256k"
"""What a console keeps for those who come later: conserver's clients replay the log file."""

USERS: Final = "who may come, and type, is decided by the permissions of sockets, or by TLS"
WHY_NO_BLOCK: Final[Mapping[str, str]] = {
    "access": USERS,
    "break": "'trio-chardev break' sends a break; sequences are typed by 'trio-chardev send'",
    "group": USERS,
    "task": "clients start no programs",
}
WHY_NOT: Final[Mapping[str, str]] = {
    "break": WHY_NO_BLOCK["break"],
    "breaklist": WHY_NO_BLOCK["break"],
    "tasklist": WHY_NO_BLOCK["task"],
    "idlestring": "nothing is typed at a console that is idle",
    "idletimeout": "nothing is typed at a console that is idle",
    "initcmd": "no program is run when a device opens",
    "aliases": "a console has one name",
    "encoding": "bytes are passed on as they are",
}
WITHOUT_EFFECT: Final = frozenset(
    [
        "initrunas",
        "initsubst",
        "initspinmax",
        "initspintimer",
        "execrunas",
        "execsubst",
        "replstring",
        "portbase",
        "portinc",
        "devicesubst",
        "udssubst",
        "username",
        "password",
        "ipmiciphersuite",
        "ipmikg",
        "ipmiworkaround",
        "ipmiprivlevel",
        "include",
        "device",
        "baud",
        "parity",
        "host",
        "port",
        "protocol",
        "uds",
        "exec",
        "type",
        "options",
        "motd",
        "rw",
        "ro",
        "logfile",
        "logfilemax",
        "timestamp",
        "master",
    ]
)
"""Keywords that are looked at elsewhere, or only make sense with what was left out."""

OPTIONS: Final = {
    "ondemand": (False, "a device is open all the time"),
    "striphigh": (False, "bytes are passed on as they are"),
    "autoreinit": (True, "what can't open is always tried again"),
    "unloved": (False, "the log file has what was said while nobody was there"),
    "login": (True, "there is no console that nobody may come to"),
    "ixany": (False, "only XON goes on with output"),
}
"""Options without a counterpart: what is so here, and why."""

SUBSTITUTE: Final = re.compile(r"(.)=([chrbpP])(0?)(\d*)([sdxXaA])")


@attrs.define
class Settings:
    """What a console or a default says: keywords, those that came later last."""

    name: str
    values: dict[str, Item] = attrs.Factory(dict)
    options: dict[str, tuple[bool, Place]] = attrs.Factory(dict)

    def value(self, keyword: str, default: str = "") -> str:
        """The value of a keyword."""
        return self.values[keyword].value if keyword in self.values else default

    def is_on(self, option: str, *, default: bool) -> bool:
        """Is an option of ``options`` on?"""
        return self.options[option][0] if option in self.options else default

    def take(self, block: Block, defaults: Mapping[str, Settings], result: Converted) -> None:
        """Take what a block says, and the defaults that it includes."""
        for item in block.items:
            if item.keyword == "include":
                other = defaults.get(item.value.lower())
                if other is None:
                    result.leave_out(item.place, f"there is no default '{item.value}'")
                else:
                    self.values |= other.values
                    self.options |= other.options
            elif item.keyword == "options":
                for word in filter(None, re.split(r"[,\s]+", item.value.lower())):
                    is_on = not word.startswith("!")
                    self.options[word.removeprefix("!")] = (is_on, item.place)
            else:
                self.values[item.keyword] = item


def convert(path: str) -> Converted:
    """Convert a conserver.cf. It may wait for a disk. Raises MissingError, OptionsError."""
    result = Converted()
    defaults = {"*": Settings("*")}
    consoles: dict[str, tuple[Place, Settings]] = {}
    for block in read_blocks(path):
        match block.type:
            case "default":
                settings = Settings(block.name)
                settings.take(block, defaults, result)
                defaults[block.name.lower()] = settings
            case "console":
                settings = Settings(block.name, {**defaults["*"].values}, {**defaults["*"].options})
                settings.take(block, defaults, result)
                consoles[block.name] = (block.place, settings)
            case "config":
                for item in block.items:
                    text = f"'{item.keyword}' is conserver's own: see 'trio-chardev serve --help'"
                    result.leave_out(item.place, text)
            case type:
                why = WHY_NO_BLOCK.get(type, "this is not known")
                result.leave_out(block.place, f"{type} '{block.name}': {why}")
    for place, settings in consoles.values():
        _add(place, settings, result)
    return result


def _add(place: Place, settings: Settings, result: Converted) -> None:
    try:
        device = _device_of(settings)
    except UnconvertibleError as exc:
        result.leave_out(place, f"console '{settings.name}': {exc}")
        return
    console = Console(place, device)
    console.values |= {"history": HISTORY, "write": "first"}
    if motd := settings.value("motd"):
        console.values["banner"] = as_banner(motd)
    _fill_log(console, settings, result)
    _tell(settings, result)
    result.consoles[result.new_name(settings.name, place)] = console


def _device_of(settings: Settings) -> Device:
    connects: dict[str, str | int | bool] = {"server": False, "reconnect-ms": 1000}
    match settings.value("type"):
        case "device":
            return _serial_of(settings)
        case "host":
            if not settings.value("host"):
                raise UnconvertibleError("'host' is missing")
            options = {"host": settings.value("host"), "port": _port_of(settings), **connects}
            is_telnet = settings.value("protocol", "telnet") == "telnet"
            return Device("socket", options | ({"telnet": True} if is_telnet else {}))
        case "uds":
            path = _substituted(settings, "uds")
            return Device("socket", {"path": path, **connects})
        case "exec":
            command = settings.value("exec") or "/bin/sh -i"
            raise UnconvertibleError(
                f"no program is run here: 'socat UNIX-LISTEN:PATH EXEC:\"{command}\",pty,stderr' "
                'with device = "socket,path=PATH,reconnect-ms=1000" is like it'
            )
        case "ipmi":
            raise UnconvertibleError(
                "there is no IPMI here: run ipmiconsole or ipmitool at a socket of socat's"
            )
        case "":
            raise UnconvertibleError("'type' is missing")
        case name:
            raise UnconvertibleError(f"there is nothing like type '{name}' here")


def _serial_of(settings: Settings) -> Device:
    options: dict[str, str | int | bool] = {"path": _substituted(settings, "device")}
    if (baud := settings.value("baud")) and baud.isdecimal():
        options["speed"] = int(baud)
    parity = PARITIES.get(settings.value("parity").lower(), "N")
    if parity != "N":
        options["parity"] = parity
    if settings.is_on("cstopb", default=False):
        options["stop-bits"] = 2
    if settings.is_on("ixon", default=True) or settings.is_on("ixoff", default=True):
        options["xonxoff"] = True
    if settings.is_on("crtscts", default=False):
        options["rtscts"] = True
    return Device("serial", options | {"hupcl": settings.is_on("hupcl", default=False)})


def _port_of(settings: Settings) -> str:
    """The port by ``portbase + portinc * port``, or the name of one."""
    port = settings.value("port")
    base, step = settings.value("portbase", "0"), settings.value("portinc", "1")
    try:
        return str(int(base) + int(step) * int(port))
    except ValueError:
        if not port or (base, step) != ("0", "1"):
            raise UnconvertibleError("its port can't be computed") from None
        return port


def _substituted(settings: Settings, keyword: str) -> str:
    """The value of *keyword* with what its ``...subst`` says filled in."""
    text = settings.value(keyword)
    if not text:
        raise UnconvertibleError(f"'{keyword}' is missing")
    rules = settings.value(f"{keyword}subst")
    table = {}
    for rule in filter(None, rules.split(",")):
        if (found := SUBSTITUTE.fullmatch(rule.strip())) is None:
            raise UnconvertibleError(f"'{rule}' of '{keyword}subst' is not understood")
        table[found[1]] = _replacement(settings, found)
    return "".join(table.get(char, char) for char in text)


def _replacement(settings: Settings, rule: re.Match[str]) -> str:
    _, what, zero, width, form = rule.groups()
    texts = {"c": settings.name, "h": settings.value("host"), "r": settings.value("replstring")}
    if what in texts:
        return texts[what].rjust(int(width or 0))
    text = {"b": settings.value("baud"), "p": settings.value("port")}.get(what) or _port_of(
        settings
    )
    if form not in "dxX" or not text.isdecimal():
        raise UnconvertibleError(f"'{rule[0]}' can't be computed")
    return format(int(text), f"{zero}{width}{form}")


def _fill_log(console: Console, settings: Settings, result: Converted) -> None:
    if not (file := settings.value("logfile")):
        return
    console.log["file"] = file.replace("&", settings.name)
    timestamp = settings.value("timestamp")
    if timestamp:
        console.log["format"] = "timestamp"
    if timestamp.rstrip("b").endswith("a") or timestamp.endswith("b"):
        console.log["events"] = True
    if (limit := settings.value("logfilemax").lower()) not in {"", "0"}:
        console.log |= {"rotate": limit, "keep": 9}
        place = settings.values["logfilemax"].place
        result.leave_out(
            place, "'logfilemax': 9 old log files are kept, as FILE.1 to FILE.9; see 'keep'"
        )


def _tell(settings: Settings, result: Converted) -> None:
    """Tell what a console that was converted has lost."""
    for keyword, item in settings.values.items():
        if keyword in {"rw", "ro"} and not (keyword == "rw" and item.value == "*"):
            result.leave_out(item.place, f"'{keyword} {item.value}': {USERS}")
        elif keyword == "master" and item.value not in HERE:
            result.leave_out(item.place, f"'{item.value}': each service has consoles of its own")
        elif keyword in WHY_NOT and item.value:
            result.leave_out(item.place, f"'{keyword}': {WHY_NOT[keyword]}")
        elif keyword not in WITHOUT_EFFECT | WHY_NOT.keys():
            result.leave_out(item.place, f"'{keyword}' is not known")
    for option, (is_on, place) in settings.options.items():
        if option in OPTIONS and OPTIONS[option][0] != is_on:
            result.leave_out(place, f"'{option}': {OPTIONS[option][1]}")
