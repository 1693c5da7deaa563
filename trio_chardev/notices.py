"""What happens to the chardevs of a registry, for those who watch them all."""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class ChardevAdded:
    """A chardev was added."""

    id: str
    filename: str

    def __str__(self) -> str:
        return f"chardev '{self.id}' is added: {self.filename}"


@attrs.frozen
class ChardevChanged:
    """The backend of a chardev was replaced by another."""

    id: str
    old_filename: str
    filename: str

    def __str__(self) -> str:
        return f"chardev '{self.id}' is changed: {self.old_filename} -> {self.filename}"


@attrs.frozen
class ChardevRemoved:
    """A chardev was removed."""

    id: str

    def __str__(self) -> str:
        return f"chardev '{self.id}' is removed"


@attrs.frozen
class ChardevOpened:
    """A peer has come to the other end of a chardev."""

    id: str
    filename: str

    def __str__(self) -> str:
        return f"chardev '{self.id}': somebody has come: {self.filename}"


@attrs.frozen
class ChardevClosed:
    """Nobody is at the other end of a chardev any more."""

    id: str
    filename: str

    def __str__(self) -> str:
        return f"chardev '{self.id}': nobody is there any more: {self.filename}"


@attrs.frozen
class ChardevBreak:
    """A break came from the other end of a chardev, or from the command chardev-send-break."""

    id: str

    def __str__(self) -> str:
        return f"chardev '{self.id}': a break"


@attrs.frozen
class ChardevLent:
    """The device of a chardev was lent."""

    id: str
    pty: str | None = None
    """The terminal to whose user it is lent; without one any program may open it."""

    def __str__(self) -> str:
        return f"chardev '{self.id}' is lent" + (f" to '{self.pty}'" if self.pty else "")


@attrs.frozen
class ChardevReturned:
    """The device of a chardev is lent no more."""

    id: str

    def __str__(self) -> str:
        return f"chardev '{self.id}' is lent no more"


@attrs.frozen
class DeviceDeleted:
    """A device is gone: it was deleted, or it failed."""

    device: str
    path: str
    """Its path in QEMU's object tree, which QEMU's clients expect."""

    def __str__(self) -> str:
        return f"device '{self.device}' is deleted"


Notice: TypeAlias = (
    ChardevAdded
    | ChardevChanged
    | ChardevRemoved
    | ChardevOpened
    | ChardevClosed
    | ChardevBreak
    | ChardevLent
    | ChardevReturned
    | DeviceDeleted
)
