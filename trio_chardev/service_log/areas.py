"""The areas of the service's log, each with a level of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Final

import attrs

from trio_chardev.errors import NOTICE, OptionsError

LEVELS: Final[Mapping[str, int]] = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "notice": NOTICE,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
"""From the most severe on."""

DEFAULT_LEVEL: Final = NOTICE


@attrs.frozen
class Area:
    """A part of the program whose log has a level of its own."""

    what: str
    loggers: tuple[str, ...]
    """Names of loggers; those below them belong to it as well, if they are of no other area."""


AREAS: Final[Mapping[str, Area]] = {
    "chardev": Area(
        "chardevs that are added, changed, removed; who comes to them; kinds without an area",
        ("trio_chardev.core", "trio_chardev.backends"),
    ),
    "config": Area(
        "configuration files, reloads, what is tried again",
        ("trio_chardev.config", "trio_chardev.cli.reload", "trio_chardev.cli.later"),
    ),
    "console": Area(
        "consoles and their listeners: clients, the right to write, marks",
        ("trio_chardev.backends.console", "trio_chardev.devices.listener"),
    ),
    "device": Area("bridges and other devices", ("trio_chardev.devices",)),
    "logfile": Area(
        "log files and recordings of chardevs, and the trace of QMP",
        ("trio_chardev.log", "trio_chardev.backends.taps"),
    ),
    "pty": Area("the kind pty", ("trio_chardev.backends.pty",)),
    "qmp": Area("monitors, their clients, and commands", ("trio_chardev.qmp",)),
    "serial": Area(
        "serial lines, and those that are lent",
        ("trio_chardev.backends.serial", "trio_chardev.backends.lent", "trio_chardev.lending"),
    ),
    "service": Area("its start, its end, and all else of it", ("trio_chardev",)),
    "socket": Area("sockets: connecting, handshakes, TLS", ("trio_chardev.backends.socket",)),
    "other": Area("what Python and other packages say", ("",)),
}
_AREA_OF_LOGGER: Final = {name: area for area, row in AREAS.items() for name in row.loggers}


@functools.cache  # there are about as many loggers as modules
def area_of(logger: str) -> str:
    """The area of the logger of that name."""
    while logger not in _AREA_OF_LOGGER:
        logger = logger.rpartition(".")[0]
    return _AREA_OF_LOGGER[logger]


def level_name(level: int) -> str:
    """The name of the most severe level that *level* reaches."""
    return next((name for name, least in LEVELS.items() if level >= least), "debug")


@attrs.frozen
class Levels:
    """From which level on each area is logged."""

    default: int = DEFAULT_LEVEL
    areas: Mapping[str, int] = attrs.field(factory=dict)
    """Those with a level of their own."""

    @classmethod
    def parse(cls, text: str) -> Levels:
        """Parse ``[LEVEL][,AREA=LEVEL...]``. Raises OptionsError."""
        default: int | None = None
        areas: dict[str, int] = {}
        for item in text.split(","):
            area, equals, level = item.rpartition("=")
            if not equals:
                if default is not None:
                    raise OptionsError(f"'{text}' has two levels without an area")
                default = _level(level)
            elif area not in AREAS:
                raise OptionsError(f"there is no area '{area}': there are {', '.join(AREAS)}")
            elif area in areas:
                raise OptionsError(f"'{text}' has area '{area}' twice")
            else:
                areas[area] = _level(level)
        return cls(DEFAULT_LEVEL if default is None else default, areas)

    def __str__(self) -> str:
        """The text that `parse` takes."""
        own = (f"{area}={level_name(level)}" for area, level in self.areas.items())
        return ",".join([level_name(self.default), *own])

    def of(self, area: str) -> int:
        """The level of *area*."""
        return self.areas.get(area, self.default)

    def apply(self) -> None:
        """Have Python's loggers filter by these levels."""
        for area, row in AREAS.items():
            for name in row.loggers:
                logging.getLogger(name).setLevel(self.of(area))


def _level(text: str) -> int:
    if text not in LEVELS:
        raise OptionsError(f"there is no level '{text}': there are {', '.join(LEVELS)}")
    return LEVELS[text]
