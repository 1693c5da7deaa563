"""Exceptions, one small class a cause; each docstring says who is to blame.

The text of each is what a user reads, in QEMU's words where QEMU has words for it.
"""

from __future__ import annotations

import os

import trio

NOTICE = 25
"""The level of what a user should see in the log without asking, though nothing is wrong."""


class ChardevError(Exception):
    """The base of what this package raises; ``str()`` is one line for the user."""


class OptionsError(ChardevError):
    """You: an option is missing, unknown, or of the wrong type or value."""


class ChardevNotFoundError(ChardevError, KeyError):
    """You: there is no chardev with that id."""

    __str__ = Exception.__str__  # KeyError's puts quotes round it


class ChardevExistsError(ChardevError):
    """You: the id is taken."""


class DeviceNotFoundError(ChardevError, KeyError):
    """You: there is no device with that id."""

    __str__ = Exception.__str__  # KeyError's puts quotes round it


class DeviceExistsError(ChardevError):
    """You: the id of the device is taken."""


class ChardevBusyError(ChardevError):
    """You: the chardev has a frontend already, or still."""


class NotSupportedError(ChardevError):
    """You: the backend in place has no such line control."""


class ChangeRefusedError(ChardevError):
    """You: this chardev, or its frontend, takes no change, or removal; nothing was touched."""


class ChangeFailedError(ChardevError):
    """The frontend refused the new backend, and this says why; the original is in place again."""


class WriteInChangeError(ChardevError):
    """You: a ``be_change`` handler wrote, which would wait for itself."""


class BackendError(ChardevError):
    """They: a backend could not be opened, or died.

    The only exception that crosses the `Backend` interface: a backend that runs a
    nursery inside raises this one ``from`` the group it got.
    """

    @classmethod
    def from_os_error(cls, what: str, error: OSError | ValueError) -> BackendError:
        """``WHAT: strerror``, as QEMU words a failed system call.

        A ValueError is of a path with a NUL, or with what the file system's encoding does not have.
        """
        return cls(f"{what}: {strerror(error)}")


class BackendDisconnectedError(BackendError, trio.BrokenResourceError):
    """They: nobody is at the other end now; the bytes were not sent."""


class BackendFailedError(BackendError, trio.BrokenResourceError):
    """They: the backend could not send: a full disk, an adaptor's error. It may later."""


class ExpectError(ChardevError):
    """They: so much came without what was expected; it says the last of it, and all of it stays."""


class ExpectTimeoutError(ExpectError, trio.TooSlowError):
    """They: what was expected did not come in time; it says what came, and that stays."""


class ChardevClosedError(ChardevError, trio.ClosedResourceError):
    """You: the chardev was removed, or its service is stopping."""


def reason_of(error: BaseException) -> str:
    """What *error* says, for a part of another error's line; its name if it says nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = strerror(error) if isinstance(error, OSError) else str(error)
    return text or type(error).__name__


def strerror(error: OSError | ValueError) -> str:
    """The C library's text for *error*, or Python's if it has no errno."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    text = str(error)
    return "embedded null byte" if " null " in text else text  # Python 3.13 words it otherwise
