"""What keeps files in bounds: the permissions of one that is made, and its size."""

from __future__ import annotations

import os
import re
import stat

from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.options.structure import BackendOptions

PRIVATE = 0o600


def parse_mode(name: str, text: str | None) -> int:
    """The permissions that option *name* says, by default `PRIVATE`. Raises OptionsError."""
    if text is None:
        return PRIVATE
    if not re.fullmatch("0?[0-7]{3}", text):
        raise OptionsError(f"'{name}' must be permissions in octal, such as 0640")
    return int(text, 8)


def check_size(name: str, size: int | None) -> None:
    """Raise BackendError if option *name* says *size*, which is none."""
    if size is not None and size < 1:
        raise OptionsError(f"'{name}' must be at least 1")


def check_limits(options: BackendOptions) -> None:
    """Raise BackendError if what *options* say of a log file or recording is wrong."""
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
    """Raise BackendError if the file is none that has a size to limit. Raises OSError."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise no_size(path)


def no_size(path: str) -> BackendError:
    """What is at *path* has no size that could be limited."""
    return BackendError(f"'{path}' is not a regular file: its size can't be limited")
