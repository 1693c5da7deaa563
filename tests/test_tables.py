"""Each row of a table whose rows are imported when they are used is what its table says."""

from __future__ import annotations

from importlib import import_module

import attrs
import pytest

from trio_chardev.backends.table import BACKEND, KINDS, Kind
from trio_chardev.devices.registry import Driver
from trio_chardev.devices.table import DEVICE, DRIVERS, OBJECT_DRIVERS
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.members import TaggedUnion
from trio_chardev.qmp.commands.context import Command
from trio_chardev.qmp.commands.table import COMMANDS


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_has_options_of_its_own(name: str) -> None:
    kind = KINDS[name]
    assert isinstance(kind, Kind)
    assert issubclass(kind.options, BackendOptions)
    assert BACKEND.tag_of(kind.options) == name


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_has_the_name_of_its_row(name: str) -> None:
    driver = DRIVERS[name]
    assert isinstance(driver, Driver)
    assert driver.name == name
    assert DEVICE.tag_of(driver.options) == name


@pytest.mark.parametrize("name", OBJECT_DRIVERS)
def test_a_driver_of_objects_has_the_name_of_its_row(name: str) -> None:
    assert OBJECT_DRIVERS[name].name == name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_arguments(name: str) -> None:
    command = COMMANDS[name]
    assert isinstance(command, Command)
    assert isinstance(command.arguments, TaggedUnion) or attrs.has(command.arguments)


def test_no_module_has_a_command_that_the_table_lacks() -> None:
    places = {place.rpartition(":")[0] for place in COMMANDS.places.values()}
    for place in places:
        module, _, name = place.partition(":")
        group = getattr(import_module(module), name)
        assert set(group) == {key for key, at in COMMANDS.places.items() if at.startswith(place)}
