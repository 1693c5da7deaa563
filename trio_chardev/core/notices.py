"""What happens to the chardevs of a registry, for those who watch all of them."""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class ChardevAdded:
    """A chardev was added."""

    id: str
    filename: str


@attrs.frozen
class ChardevChanged:
    """The backend of a chardev was replaced by another."""

    id: str
    old_filename: str
    filename: str


@attrs.frozen
class ChardevRemoved:
    """A chardev was removed."""

    id: str


@attrs.frozen
class ChardevOpened:
    """Somebody has come to the other end of a chardev."""

    id: str
    filename: str


@attrs.frozen
class ChardevClosed:
    """Nobody is at the other end of a chardev any more."""

    id: str
    filename: str


@attrs.frozen
class ChardevBreak:
    """A break came from the other end of a chardev, or by chardev-send-break."""

    id: str


@attrs.frozen
class DeviceDeleted:
    """A device is gone: it was deleted, or has failed."""

    device: str
    path: str
    """QEMU's name of it, for clients that expect one."""


Notice: TypeAlias = (
    ChardevAdded
    | ChardevChanged
    | ChardevRemoved
    | ChardevOpened
    | ChardevClosed
    | ChardevBreak
    | DeviceDeleted
)
