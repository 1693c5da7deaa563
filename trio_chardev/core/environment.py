"""What a backend is given of the service that it is opened in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import BackendError

DEFAULT_ESCAPE = 0x01  # C-a


def number_as_fd(name: str) -> int:
    """Return the descriptor that *name* is the number of, as on a command line."""
    if not name.isascii() or not name.isdigit():
        raise BackendError(f"File descriptor named '{name}' has not been found")
    return int(name)


class OpenPath(Protocol):
    """Does os.open(); a file that is created gets *mode*, less the umask.

    Raises OSError, ValueError, BackendError.
    """

    def __call__(self, path: str, flags: int, /, *, mode: int = 0o666) -> int: ...


class OpenPathIn(Protocol):
    """Does the same within a sandbox; raises BackendError for what is outside of it."""

    def __call__(
        self, path: str, flags: int, /, sandbox: Sandbox = ..., *, mode: int = 0o666
    ) -> int: ...


def open_path(path: str, flags: int, sandbox: Sandbox = EVERYWHERE, *, mode: int = 0o666) -> int:
    """Open a file; see `Sandbox.open`. Raises OSError, ValueError, BackendError."""
    return sandbox.open(path, flags, mode=mode)


@attrs.frozen(kw_only=True, repr=False)
class Environment:
    """What is the same for all openings of a registry."""

    chardevs: Mapping[str, Any] = attrs.field(factory=dict)
    """The `Chardev` of each id, for backends that stand on others."""

    objects: Mapping[str, object] = attrs.field(factory=dict)
    """What options name by an id beside chardevs, such as TLS credentials."""

    open_path: OpenPathIn = open_path
    """Opens a file by path, in a sandbox; `Files.open` calls it."""

    tell: Callable[[Any], None] = lambda notice: None
    """Gives notice of what happens in a backend, see `trio_chardev.notices`; never raises."""

    quit: Callable[[], None] = lambda: None
    """Stops the service, for a backend whose user may ask for that."""

    escape: int = DEFAULT_ESCAPE
    """The byte before a command to a mux (QEMU's -echr)."""


@attrs.frozen(kw_only=True, repr=False)
class Files:
    """The files and descriptors that the options of one opening may name.

    They depend on who asks for it: a QMP client has a sandbox, and descriptors that it has passed.
    """

    sandbox: Sandbox = EVERYWHERE
    """Must be asked before the kernel is given a path otherwise than by `open`."""

    take_fd: Callable[[str], int] = number_as_fd
    """Gives the descriptor of that name away; the opener owns it from then on."""

    open_path: OpenPathIn = open_path
    """Opens a file by path, in a sandbox."""

    def open(self, path: str, flags: int, /, *, mode: int = 0o666) -> int:
        """Open a file that the options name by a path, see `OpenPath`."""
        return self.open_path(path, flags, self.sandbox, mode=mode)
