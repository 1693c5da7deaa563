"""The exceptions: one small class for each cause, whose docstring says who is to blame.

Their texts are for users, and use QEMU's words where QEMU has any.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from trio_chardev.plain_errors import (
    NOTICE as NOTICE,
    BackendError as BackendError,
    ChardevError as ChardevError,
    OptionsError as OptionsError,
    backend_errors as backend_errors,
    strerror as strerror,
)


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
    """You: this chardev or its frontend allows no change or removal; nothing was touched."""


class ChangeFailedError(ChardevError):
    """The frontend refused the new backend; the text says why. The original is in place again."""


class WriteInChangeError(ChardevError):
    """You: a ``be_change`` handler wrote, which would deadlock: the change holds the write lock."""


class BackendDisconnectedError(BackendError, trio.BrokenResourceError):
    """They: nobody is at the other end now; none of the bytes were sent."""


class BackendFailedError(BackendError, trio.BrokenResourceError):
    """They: the backend could not send (a full disk, an adaptor's error). A retry may succeed."""


class ExpectError(ChardevError):
    """They: too much input came without a match; the text has its end, all of it stays unread."""


class ExpectTimeoutError(ExpectError, trio.TooSlowError):
    """They: no match came in time; the text has what did come, which stays unread."""


class ChardevClosedError(ChardevError, trio.ClosedResourceError):
    """You: the chardev was removed, or its service is stopping."""


@contextmanager
def failed_to(verb: str, id: str) -> Iterator[None]:
    """Begin a BackendError or OptionsError of the block with ``Failed to VERB chardev 'ID': ``."""
    try:
        yield
    except (BackendError, OptionsError) as exc:
        kind = OptionsError if isinstance(exc, OptionsError) else BackendError
        error = kind(f"Failed to {verb} chardev '{id}': {exc}")
        error.__notes__ = getattr(exc, "__notes__", [])
        try:
            raise error from exc
        finally:
            del error  # else this frame, its traceback and it are a cycle


def reason_of(error: BaseException) -> str:
    """Return *error*'s text, as part of another error's line; its class name if it has none."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = strerror(error) if isinstance(error, OSError) else str(error)
    return text or type(error).__name__
