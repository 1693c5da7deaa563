"""What a ``be_change`` handler may use of a backend."""

from __future__ import annotations

import attrs

from trio_chardev.core.backend import Backend
from trio_chardev.core.line import Line


@attrs.frozen(repr=False)
class Controls:
    """What a ``be_change`` handler may use of a backend; it can't send or receive."""

    backend: Backend

    is_original: bool = False
    """Is the change being undone? Then this is the backend that was in place and stays."""

    @property
    def filename(self) -> str:
        """The backend as query-chardev shows it."""
        return self.backend.filename

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end?"""
        return self.backend.is_open

    @property
    def line(self) -> Line:
        """The line of the backend."""
        return self.backend.line
