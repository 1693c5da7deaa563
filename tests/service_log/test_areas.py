"""Each area of the service's log has a level; what is not known is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.test_layers import read_sources
from trio_chardev.errors import NOTICE, OptionsError
from trio_chardev.service_log.areas import AREAS, LEVELS, Levels, area_of, level_name


@pytest.fixture
def loggers() -> Iterator[None]:
    """Levels of loggers, as they were at the end."""
    all_of_them = [logging.getLogger(name) for row in AREAS.values() for name in row.loggers]
    levels = [logger.level for logger in all_of_them]
    yield
    for logger, level in zip(all_of_them, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("text", "default", "areas"),
    [
        ("info", logging.INFO, {}),
        ("info,qmp=debug,console=warning", logging.INFO, {"qmp": 10, "console": 30}),
        ("serial=error", NOTICE, {"serial": 40}),
        ("serial=error,debug", logging.DEBUG, {"serial": 40}),
    ],
)
def test_levels_are_read_and_written(text: str, default: int, areas: dict[str, int]) -> None:
    levels = Levels.parse(text)
    assert (levels.default, levels.areas) == (default, areas)
    assert Levels.parse(str(levels)) == levels


LEVELS_THERE_ARE = "error, warning, notice, info, debug"
AREAS_THERE_ARE = (
    "chardev, config, console, device, logfile, pty, qmp, serial, service, socket, other"
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("loud", f"there is no level 'loud': there are {LEVELS_THERE_ARE}"),
        ("", f"there is no level '': there are {LEVELS_THERE_ARE}"),
        ("qmp=loud", f"there is no level 'loud': there are {LEVELS_THERE_ARE}"),
        ("info,tty=debug", f"there is no area 'tty': there are {AREAS_THERE_ARE}"),
        ("=info", f"there is no area '': there are {AREAS_THERE_ARE}"),
        ("info,debug", "'info,debug' has two levels without an area"),
        ("qmp=info,qmp=debug", "'qmp=info,qmp=debug' has area 'qmp' twice"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(text: str, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Levels.parse(text)
    assert str(caught.value) == error


def test_each_logger_of_the_package_has_an_area_and_each_area_a_logger() -> None:
    names = {
        "trio_chardev.log" if '"trio_chardev.log"' in text else module
        for module, text in read_sources().items()
        if "logging.getLogger(" in text
    }
    found = {area_of(name) for name in names}
    assert found == set(AREAS) - {"other"}
    assert area_of("trio_chardev.backends.serial.serial") == "serial"
    assert area_of("trio_chardev.backends.file") == "chardev"
    assert area_of("trio_chardev.cli.reload") == "config"
    assert area_of("trio_chardev_plugin") == area_of("py.warnings") == area_of("") == "other"


def test_a_level_is_that_of_its_area_and_of_no_other(loggers: None) -> None:
    Levels.parse("warning,chardev=debug,qmp=error").apply()

    def is_on(name: str) -> int:
        return logging.getLogger(name).getEffectiveLevel()

    assert is_on("trio_chardev.backends.file") == logging.DEBUG
    assert is_on("trio_chardev.backends.serial.serial") == logging.WARNING
    assert is_on("trio_chardev.qmp.server.monitor") == logging.ERROR
    assert is_on("trio") == logging.WARNING
    Levels().apply()
    assert is_on("trio_chardev.qmp.server.monitor") == NOTICE


def test_a_level_between_two_has_the_name_of_the_lower() -> None:
    assert [level_name(level) for level in LEVELS.values()] == list(LEVELS)
    assert (level_name(50), level_name(35), level_name(5)) == ("error", "warning", "debug")
