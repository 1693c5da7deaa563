"""What a backend has that stands on other chardevs, or has several users."""

from __future__ import annotations

from typing import Any

from trio_chardev.core.inbox import Inbox


class Stacking:
    """By default a backend stands on no other chardev, and has one user."""

    __slots__ = ()

    max_frontends: int = 1
    """How many users its chardev may have at a time."""

    @property
    def bases(self) -> tuple[str, ...]:
        """The chardevs that it stands on."""
        return ()

    def attached(self, inbox: Inbox[Any]) -> None:
        """The chardev has one more user, which gets its input by *inbox*."""

    def touch(self) -> None:
        """Its chardev's users have changed: `Chardev.touch` those that it stands on."""


STANDS_ALONE = Stacking()
"""What a backend has that is no mux or hub."""
