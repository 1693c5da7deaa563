"""Limits for files: the permissions of new ones, and their size."""

from __future__ import annotations

import os
import re
import stat

from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.options.backend import BackendOptions

PRIVATE = 0o600


def parse_mode(name: str, text: str | None) -> int:
    """Parse the permissions in option *name*; the default is `PRIVATE`. Raises OptionsError."""
    if text is None:
        return PRIVATE
    if not re.fullmatch("0?[0-7]{3}", text):
        raise OptionsError(f"'{name}' must be permissions in octal, such as 0640")
    return int(text, 8)


def check_size(name: str, size: int | None) -> None:
    """Raise OptionsError if *size*, the value of option *name*, can't be a size."""
    if size is not None and size < 1:
        raise OptionsError(f"'{name}' must be at least 1")


def check_limits(options: BackendOptions) -> None:
    """Raise OptionsError if the options about the log file or the recording are wrong."""
    for prefix, file, path, mode, size in (
        ("log", "logfile", options.logfile, options.log_mode, options.log_max),
        ("record", "record", options.record, options.record_mode, options.record_max),
    ):
        for name, value in ((f"{prefix}-mode", mode), (f"{prefix}-max", size)):
            if value is not None and path is None:
                raise OptionsError(f"{name} needs {file}=FILE")
        parse_mode(f"{prefix}-mode", mode)
        check_size(f"{prefix}-max", size)


def check_has_size(fd: int, path: str) -> None:
    """Raise BackendError unless the file is one whose size can be limited. Raises OSError."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise no_size(path)


def no_size(path: str) -> BackendError:
    """Make the error for a file whose size can't be limited."""
    return BackendError(f"'{path}' is not a regular file: its size can't be limited")
