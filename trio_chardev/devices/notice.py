"""Lines that tell the users of a device, in band, that it went, came, or is another; without I/O."""

from __future__ import annotations

import attrs

from trio_chardev.backends.lent import LentBackend


@attrs.frozen
class Notice:
    """A line for users at a bridge's peer, in order with the device's bytes."""

    text: str
    mark: str
    """The name of the place in a console's history."""

    def __bytes__(self) -> bytes:
        return f"\r\n[trio-chardev: {self.text}]\r\n".encode()


CHANGED = Notice("backend changed", "changed")
GONE = Notice("device gone", "gone")
BACK = Notice("device back", "back")
LENT = Notice("device lent", "lent")
RETURNED = Notice("device returned", "returned")


@attrs.define(eq=False, repr=False)
class Watch:
    """Knows what users were told last of the device, and tells what is new."""

    backend: object
    _is_open: bool

    def look(self, backend: object, *, is_open: bool) -> Notice | None:
        """Return what to tell: the device is behind *backend* now, or nobody is."""
        before, was_open = self.backend, self._is_open
        self.backend, self._is_open = backend, is_open
        if backend is not before:
            if isinstance(backend, LentBackend):
                return LENT
            return RETURNED if isinstance(before, LentBackend) else CHANGED
        if is_open == was_open:
            return None
        return BACK if is_open else GONE
