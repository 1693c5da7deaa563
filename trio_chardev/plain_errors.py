"""What of the exceptions needs no Trio, which takes most of the time of a command that only prints."""

from __future__ import annotations

import os
import termios

NOTICE = 25
"""The log level of what users should see without asking, though nothing is wrong."""


class ChardevError(Exception):
    """The base of all exceptions of this package; ``str()`` gives one line for the user."""


class OptionsError(ChardevError):
    """You: an option is missing, unknown, or of the wrong type or value."""


class BackendError(ChardevError):
    """They: a backend could not be opened, or died.

    The only exception that crosses the `Backend` interface: a backend that runs a
    nursery inside raises this one ``from`` the group it got.
    """

    @classmethod
    def from_os_error(cls, what: str, error: OSError | ValueError) -> BackendError:
        """Make ``WHAT: strerror``, as QEMU words a failed system call.

        A ValueError comes from a path with a NUL, or with characters that the file system's
        encoding lacks.
        """
        return cls(f"{what}: {strerror(error)}")


class backend_errors:  # noqa: N801 - used as a context manager is
    """Makes errors of the kernel in the block BackendErrors, ``FAILED: strerror``.

    They are OSError, termios.error (which is not an OSError), and ValueError, see
    `BackendError.from_os_error`.
    """

    __slots__ = ("_failed",)

    def __init__(self, failed: str) -> None:
        self._failed = failed

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError | ValueError):
            raise BackendError.from_os_error(self._failed, error) from error
        if isinstance(error, termios.error):
            raise BackendError(f"{self._failed}: {error.args[-1]}") from error


def strerror(error: OSError | ValueError) -> str:
    """The C library's text for *error*, or Python's if it has no errno."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    text = str(error)
    return "embedded null byte" if " null " in text else text  # Python 3.13 has another wording
