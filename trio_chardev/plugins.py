"""Kinds of backend and drivers of devices that other installed packages bring.

A package names them in its entry points (PyPA's specification), in the group `KINDS_GROUP` or
`DRIVERS_GROUP`: the entry's name is the name for `--chardev` or `--device`, its object a `Kind` or
`Driver`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trio_chardev.backends.table import Kind, add_kind
from trio_chardev.devices.registry import Driver
from trio_chardev.devices.table import add_driver

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KINDS_GROUP = "trio_chardev.kinds"
DRIVERS_GROUP = "trio_chardev.drivers"


def load_installed(warn: Callable[[str], None]) -> None:
    """Add the kinds and drivers of installed packages, before options are read or QMP is spoken.

    *warn* is called with one line for each that can't be loaded, or whose name is taken.
    """
    if not _may_bring_some():
        return
    for group, add in ((KINDS_GROUP, _add_kind), (DRIVERS_GROUP, _add_driver)):
        for point in _points(group, warn):
            try:
                add(point)
            except Exception as exc:  # loading runs foreign code
                warn(f"{group}: '{point.name}' ({point.value}) can't be used: {exc}")


def _may_bring_some() -> bool:
    """Does a package name one of the groups, or is that for importlib.metadata to find out?

    To import that and to have it parse all packages takes ten times as long.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except FileNotFoundError:
            continue
        except OSError:  # an archive, or a folder that can't be read
            return True
        for name in names:
            if name.endswith(".egg"):
                return True
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                        if b"[trio_chardev." in file.read():
                            return True
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError:
                    return True
    return False


def _points(group: str, warn: Callable[[str], None]) -> list[EntryPoint]:
    """The entry points of *group*, by name."""
    from importlib.metadata import entry_points

    try:
        return sorted(entry_points(group=group), key=lambda point: point.name)
    except Exception as exc:  # metadata that can't be read or parsed
        warn(f"{group}: what packages bring can't be read: {exc}")
        return []


def _add_kind(point: EntryPoint) -> None:
    add_kind(point.name, _loaded(point, Kind))


def _add_driver(point: EntryPoint) -> None:
    driver = _loaded(point, Driver)
    if driver.name != point.name:
        raise ValueError(f"the driver is called '{driver.name}'")
    add_driver(driver)


def _loaded(point: EntryPoint, of: type[Any]) -> Any:
    found = point.load()
    if not isinstance(found, of):
        raise TypeError(f"it is no {of.__name__}")
    return found
