"""What happens to the chardevs of a registry, for those who watch them all."""

from __future__ import annotations

from typing import Literal, TypeAlias

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
class ChardevClientAttached:
    """Somebody has come to a console."""

    id: str
    client: int
    who: str
    role: str

    def __str__(self) -> str:
        return f"console '{self.id}': client {self.client}, {self.who}, has come ({self.role})"


@attrs.frozen
class ChardevClientDetached:
    """Somebody has left a console, or was let go, or was not let in (without a number)."""

    id: str
    who: str
    reason: Literal[
        "left", "kicked", "idle", "slow", "full", "replaced", "stopping", "gone", "refused", "dead"
    ]
    """Why it is gone, see docs/consoles.md."""
    client: int | None = None

    def __str__(self) -> str:
        if self.client is None:
            return f"console '{self.id}': {self.who} is not let in: {self.reason}"
        return f"console '{self.id}': client {self.client}, {self.who}, is gone: {self.reason}"


@attrs.frozen
class ChardevClientTold:
    """Something was to be told to a client of a console that is told by notices: see chardev-attach's
    'exact'."""

    id: str
    client: int
    text: str
    """What a person would be told in a line."""

    def __str__(self) -> str:
        return f"console '{self.id}': client {self.client} is told: {self.text}"


@attrs.frozen
class ChardevWriterChanged:
    """Another client of a console has the right to write, or nobody has."""

    id: str
    client: int | None = None

    def __str__(self) -> str:
        who = "nobody" if self.client is None else f"client {self.client}"
        return f"console '{self.id}': {who} has the right to write"


@attrs.frozen
class ChardevMark:
    """A place in a console's history has got a name."""

    id: str
    name: str
    cursor: int

    def __str__(self) -> str:
        return f"console '{self.id}': '{self.name}' is at {self.cursor}"


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
    | ChardevClientAttached
    | ChardevClientDetached
    | ChardevClientTold
    | ChardevWriterChanged
    | ChardevMark
    | DeviceDeleted
)
