"""Finds the tty of a USB adaptor in sysfs, by the serial number of the adaptor.

``usb:SERIAL`` has to be one tty. An adaptor with several lines has an interface for each, which
``usb:SERIAL:INTERFACE`` tells apart. A serial number may contain colons, as those of ESP32-S3 do.
Works in a thread: sysfs asks drivers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress

import attrs

PREFIX = "usb:"


@attrs.frozen
class Roots:
    """Where the kernel shows devices; tests have folders of their own."""

    sys: str = "/sys"
    dev: str = "/dev"


class NotPluggedInError(FileNotFoundError):
    """They: no adaptor has that serial number. No errno is set, for a text of its own."""


@attrs.frozen
class UsbTty:
    """A tty of a USB adaptor."""

    name: str
    serial: str
    interface: int

    def is_meant_by(self, wanted: str) -> bool:
        """Is it the tty of ``SERIAL`` or ``SERIAL:INTERFACE``?"""
        serial, _, interface = wanted.rpartition(":")
        is_number = re.fullmatch("[0-9a-fA-F]{1,2}", interface)
        return self.serial == wanted or bool(
            is_number and self.serial == serial and self.interface == int(interface, 16)
        )


def find_node(path: str, roots: Roots) -> str:
    """Return the device of *path*, which begins with `PREFIX`.

    Raises NotPluggedInError, OSError if it could be several.
    """
    wanted = path.removeprefix(PREFIX)
    found = sorted(
        (tty for tty in _ttys(roots) if tty.is_meant_by(wanted)),
        key=lambda tty: (tty.interface, tty.name),
    )
    if not found:
        raise NotPluggedInError("no USB adaptor with that serial number is plugged in")
    if len(found) > 1:
        names = ", ".join(f"{tty.name} (interface {tty.interface:02x})" for tty in found)
        raise OSError(f"it is one of {names}")
    return os.path.join(roots.dev, found[0].name)


def check_is_named(link: str, device: os.stat_result, roots: Roots) -> None:
    """Raise OSError if *link*, in a folder ``by-id``, is not that of the adaptor *device*.

    udev removes the link of an adaptor that was pulled a moment after the next one may have got
    its device. A link has the serial number, if that is printable (udev's usb_id).
    """
    number = f"{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}"
    tty = _tty_at(os.path.join(roots.sys, "dev/char", number), "")
    if tty is None or not re.fullmatch(r"[ -+\--~]+", tty.serial):
        return
    if _letters(tty.serial) not in _letters(os.path.basename(link)):
        raise NotPluggedInError("another adaptor has its device now")


def _letters(name: str) -> str:
    """*name* with one character for all that udev replaces."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name.strip())


def _ttys(roots: Roots) -> Iterator[UsbTty]:
    folder = os.path.join(roots.sys, "class/tty")
    for name in os.listdir(folder):
        if tty := _tty_at(os.path.join(folder, name), name):
            yield tty


def _tty_at(entry: str, name: str) -> UsbTty | None:
    """The tty at *entry* of sysfs, if it is an adaptor's that has a serial number."""
    folder = os.path.join(entry, "device")
    if not os.path.exists(folder):  # a virtual one, of which there are dozens
        return None
    folder = os.path.realpath(folder)
    while len(folder) > 1:
        with suppress(OSError, ValueError):  # it is pulled, or has no such attribute
            interface = int(_read(folder, "bInterfaceNumber"), 16)
            return UsbTty(name, _read(os.path.dirname(folder), "serial"), interface)
        folder = os.path.dirname(folder)
    return None


def _read(folder: str, attribute: str) -> str:
    with open(os.path.join(folder, attribute), errors="replace") as file:
        return file.read().strip("\n")
