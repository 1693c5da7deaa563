"""What the options about the log file mean, and which of them contradict each other."""

from __future__ import annotations

from typing import Literal

from trio_chardev.backends.limit import check_size
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions

KEPT = 1  # old files, by default
KEPT_OF_ROTATED = 5
MAX_KEPT = 1000
SMALLEST = 4096  # bytes at which a log file may be rotated


def check_log(options: BackendOptions) -> None:
    """Raise OptionsError if the options about the log file are wrong, or contradict each other."""
    if options.logfile is None:
        _check_needs_no_file(options)
    if options.logtimestamp and options.log_format not in (None, "timestamp"):
        raise OptionsError(f"logtimestamp=on contradicts log-format={options.log_format}")
    if options.log_strip and options.log_format == "hexdump":
        raise OptionsError("log-strip=on contradicts log-format=hexdump")
    _check_rotation(options)


def _check_needs_no_file(options: BackendOptions) -> None:
    for name, is_given in (
        ("log", options.log != "out"),
        ("log-format", options.log_format is not None),
        ("log-time", options.log_time != "utc"),
        ("log-events", options.log_events),
        ("log-strip", options.log_strip),
        ("log-rotate", options.log_rotate is not None),
        ("log-rotate-age", options.log_rotate_age is not None),
        ("log-keep", options.log_keep is not None),
    ):
        if is_given:
            raise OptionsError(f"{name} needs logfile=FILE")


def _check_rotation(options: BackendOptions) -> None:
    if options.log_rotate is not None and options.log_rotate < SMALLEST:
        raise OptionsError(f"'log-rotate' must be at least {SMALLEST}")
    check_size("log-rotate-age", options.log_rotate_age)
    if options.log_keep is not None and not 0 <= options.log_keep <= MAX_KEPT:
        raise OptionsError(f"'log-keep' must be from 0 to {MAX_KEPT}")
    if not is_rotated(options):
        return
    if options.log_max is not None:
        raise OptionsError("log-max contradicts log-rotate and log-rotate-age")
    if options.log_keep == 0:
        name = "log-rotate" if options.log_rotate is not None else "log-rotate-age"
        raise OptionsError(f"{name} contradicts log-keep=0: the only copy would be lost")


def is_rotated(options: BackendOptions) -> bool:
    """Do files that are large or old become others?"""
    return options.log_rotate is not None or options.log_rotate_age is not None


def kept_by(options: BackendOptions) -> int:
    """How many old files are kept."""
    if options.log_keep is not None:
        return options.log_keep
    return KEPT_OF_ROTATED if is_rotated(options) else KEPT


def has_lines(options: BackendOptions) -> bool:
    """Is the log made of lines of ours, rather than of the bytes alone?"""
    return name_of_format(options) != "raw"


def name_of_format(options: BackendOptions) -> Literal["raw", "timestamp", "json", "hexdump"]:
    """How the lines of the log are written."""
    return options.log_format or ("timestamp" if options.logtimestamp else "raw")
