"""What a ``be_change`` handler is given of a backend."""

from __future__ import annotations

import attrs

from trio_chardev.core.backend import Backend
from trio_chardev.core.line import Line


@attrs.frozen
class Controls:
    """What a ``be_change`` handler may use of a backend, since it may not write."""

    backend: Backend

    is_original: bool = False
    """The change is being undone: this is the backend that was and stays in place."""

    @property
    def filename(self) -> str:
        """What query-chardev shows."""
        return self.backend.filename

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end?"""
        return self.backend.is_open

    @property
    def line(self) -> Line:
        """The line of the backend."""
        return self.backend.line
