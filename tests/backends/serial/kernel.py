"""A fake driver: the slave of a PTY looks like the line of an adaptor, and records what is done."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Any

import pytest
from trio_serial.linux import LinuxSerialStream

from trio_chardev.backends.serial import line as serial_line
from trio_chardev.backends.serial.driver import (
    TIOCGRS485,
    TIOCGSERIAL,
    TIOCSRS485,
    TIOCSSERIAL,
)
from trio_chardev.backends.serial.modem import TIOCCBRK, TIOCSBRK
from trio_chardev.events import ModemLines

NAMES = {
    termios.TIOCMGET: "TIOCMGET",
    termios.TIOCMBIS: "TIOCMBIS",
    termios.TIOCMBIC: "TIOCMBIC",
    termios.TIOCMSET: "TIOCMSET",
    TIOCSBRK: "TIOCSBRK",
    TIOCCBRK: "TIOCCBRK",
    TIOCGSERIAL: "TIOCGSERIAL",
    TIOCSSERIAL: "TIOCSSERIAL",
    TIOCGRS485: "TIOCGRS485",
    TIOCSRS485: "TIOCSRS485",
    termios.TIOCEXCL: "TIOCEXCL",
    termios.TIOCNXCL: "TIOCNXCL",
    termios.TIOCOUTQ: "TIOCOUTQ",
    LinuxSerialStream.TCGETS2: "TCGETS2",
    LinuxSerialStream.TCSETS2: "TCSETS2",
}
EDGES = ("TIOCMBIS", "TIOCMBIC", "TIOCMSET")
SETTERS = ("TCSETS2", "TIOCSSERIAL", "TIOCSRS485", *EDGES, "TIOCSBRK")


class Kernel:
    """Answers the ioctls of the line that is *path*."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.number = os.stat(path).st_rdev
        self.modem = ModemLines.DTR | ModemLines.RTS | ModemLines.CTS
        self.calls: list[str] = []
        self.errors: dict[str, int] = {}
        """The errno with which an ioctl fails."""
        self.structs = {"RS485": bytes(32), "SERIAL": bytes(128)}
        self.before: Callable[[str], object] = lambda name: None
        """Called with the name of each ioctl, before it is done."""
        self._ioctl = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)
        monkeypatch.setattr(serial_line, "UNIX98_PTY_SLAVES", ())  # it is a real line

    @property
    def edges(self) -> list[str]:
        """What has changed, or might have, the modem lines."""
        return [name for name in self.calls if name in EDGES]

    @property
    def altering(self) -> list[str]:
        """What has altered the line."""
        return [name for name in self.calls if name in SETTERS]

    def ioctl(self, fd: int, request: int, arg: Any = 0, *rest: Any) -> Any:
        name = NAMES.get(request)
        if name is None or os.fstat(fd).st_rdev != self.number:
            return self._ioctl(fd, request, arg, *rest)
        self.before(name)
        self.calls.append(name)
        if error := self.errors.get(name):
            raise OSError(error, os.strerror(error))
        if name.startswith("TIOCM") or name in ("TIOCSBRK", "TIOCCBRK") or name[5:] in self.structs:
            self._ioctl(fd, LinuxSerialStream.TCGETS2, bytes(44))  # it fails once that hangs up
            return self._driver(name, arg)
        return self._ioctl(fd, request, arg, *rest)

    def _driver(self, name: str, arg: Any) -> Any:
        if name == "TIOCMGET":
            return struct.pack("I", self.modem.value)
        if name.startswith("TIOCM"):
            bits = ModemLines(struct.unpack("I", arg)[0])
            changes = {"TIOCMBIS": self.modem | bits, "TIOCMBIC": self.modem & ~bits}
            self.modem = changes.get(name, bits)
        elif name.startswith("TIOCG"):
            return self.structs[name[5:]]
        elif name[5:] in self.structs:
            self.structs[name[5:]] = arg
        return 0
