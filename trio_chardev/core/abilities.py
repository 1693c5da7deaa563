"""What only some backends can do; asking one that can't is NotSupportedError.

A backend has an ability by having its methods: `isinstance` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trio_chardev.events import LineSettings, ModemLines


@runtime_checkable
class LineControl(Protocol):
    """Has line settings (QEMU's CHR_IOCTL_SERIAL_SET_PARAMS)."""

    async def set_line(self, settings: LineSettings) -> None: ...


@runtime_checkable
class ModemControl(Protocol):
    """Has modem lines (CHR_IOCTL_SERIAL_GET_TIOCM and SET_TIOCM)."""

    async def get_modem(self) -> ModemLines: ...
    async def set_modem(self, lines: ModemLines) -> None: ...


@runtime_checkable
class BreakControl(Protocol):
    """Can send a break (CHR_IOCTL_SERIAL_SET_BREAK), *duration* in seconds."""

    async def send_break(self, duration: float) -> None: ...


@runtime_checkable
class LineState(Protocol):
    """Knows the line settings that are in force."""

    @property
    def line(self) -> LineSettings: ...


@runtime_checkable
class LineDisplay(Protocol):
    """Has users who can see line settings, though there is no line: a PTY, for one."""

    def show_line(self, settings: LineSettings) -> None:
        """Have them see *settings*."""


@runtime_checkable
class LineWatch(Protocol):
    """Learns only by looking that line settings or modem lines have changed."""

    def look_at_line(self) -> None:
        """Report what has changed since the last look, by events."""


@runtime_checkable
class EchoControl(Protocol):
    """Is a terminal that can echo what is typed (chr_set_echo)."""

    def set_echo(self, echo: bool) -> None: ...


@runtime_checkable
class DisconnectControl(Protocol):
    """Can drop its peer as if that had left (chr_disconnect)."""

    def disconnect(self, *, at_once: bool = False) -> None:
        """Drop it; *at_once*: what it is sending is of no use to anybody."""


@runtime_checkable
class PeerControl(Protocol):
    """Lets in only some, and can ask again whether they would be let in."""

    def recheck_peers(self, *, drop: bool) -> list[tuple[str, str]]:
        """Who is there and would not be let in now, by name, and why; with *drop* no more there."""


@runtime_checkable
class EofControl(Protocol):
    """Can tell its peer that no more will come, and receive from it as before (shutdown(2))."""

    def send_eof(self) -> None: ...


@runtime_checkable
class FdControl(Protocol):
    """Passes file descriptors beside the bytes (chr_get_msgfds, chr_set_msgfds)."""

    def take_fds(self) -> list[int]: ...
    def send_fds(self, fds: Sequence[int]) -> None: ...
