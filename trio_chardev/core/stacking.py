"""What only a mux or hub has: other chardevs that it stands on, or several users."""

from __future__ import annotations

from typing import Any

from trio_chardev.core.inbox import Inbox


class Stacking:
    """What a backend stands on, and how many users it has: by default no chardev, and one user."""

    __slots__ = ()

    max_frontends: int = 1
    """How many users its chardev may have."""

    @property
    def bases(self) -> tuple[str, ...]:
        """The ids of the chardevs that it stands on."""
        return ()

    def attached(self, inbox: Inbox[Any]) -> None:
        """Handle a new user of the chardev, which gets its input by *inbox*."""

    def touch(self) -> None:
        """Call `Chardev.touch` of those that it stands on, as its chardev's users have changed."""


STANDS_ALONE = Stacking()
"""The `Stacking` of a backend that is no mux or hub."""
