"""Lines that tell the users of a device, in band, that it went, came, or is another; without I/O."""

from __future__ import annotations

import attrs


@attrs.frozen
class Notice:
    """A line for users at a bridge's peer, in order with the device's bytes."""

    text: str

    def __bytes__(self) -> bytes:
        return f"\r\n[trio-chardev: {self.text}]\r\n".encode()


@attrs.define(eq=False)
class Watch:
    """Knows what users were told last of the device, and tells what is new."""

    backend: object
    _is_open: bool

    def look(self, backend: object, *, is_open: bool) -> Notice | None:
        """Return what to tell: the device is behind *backend* now, or nobody is."""
        before, was_open = self.backend, self._is_open
        self.backend, self._is_open = backend, is_open
        if backend is not before:
            return Notice("backend changed")
        if is_open == was_open:
            return None
        return Notice("device back" if is_open else "device gone")
