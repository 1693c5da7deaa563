"""Objects, which have ids like chardevs: TLS credentials, secrets, access lists, monitors.

The options classes are QAPI's, for ``object-add`` and ``--object``. `create` makes the object that
is kept under the id, and is looked up when a backend opens or, for an `Authorizer`, when it is
used. Errors in files and keys are found by `create`, not when the first client comes. A
`MonitorQmp` is kept as a device, which the registry makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.options.documented import Documented

MAX_SECRET = 1 << 20  # bytes of a secret's file

Policy = Literal["deny", "allow"]


@attrs.frozen(kw_only=True)
class ObjectOptions(Documented):
    """The options that every object has."""

    id: str
    """Name of the object, for its users."""

    @property
    def reads_files(self) -> bool:
        """Does `create` read files, so that it has to run in a thread?"""
        return False

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> object:
        """Make the object to be kept under the id; *objects* are those that exist.

        *sandbox* limits which files may be read. Raises OptionsError, BackendError.
        """
        return self


@runtime_checkable
class Authorizer(Protocol):
    """Decides which peers may connect."""

    def allows(self, identity: str) -> bool:
        """May this peer connect? *identity* is its certificate's distinguished name or key name."""


@attrs.frozen(kw_only=True)
class MonitorQmp(ObjectOptions):
    """A QMP monitor on a chardev, for one client at a time; ``-mon`` before QEMU 11.1."""

    chardev: str
    """Id of the chardev to use."""

    pretty: bool = False
    """Indent the output."""

    close_action: Literal["none", "delete"] = "none"
    """What to do when the client leaves; with delete, remove the monitor and its chardev."""

    insecure: bool = False
    """Accept any client, not only those of our own user."""
