"""What only some backends can do; asking one that can't is NotSupportedError.

A backend has an ability by having its methods: `isinstance` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


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
