"""``trio-chardev config-from-ser2net`` and ``config-from-conserver``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from trio_chardev.cli.check import STATUS_OF_NO_FILE
from trio_chardev.cli.errors import print_error
from trio_chardev.cli.output import complain, say
from trio_chardev.convert.converted import Converted, MissingError
from trio_chardev.version import __version__


def print_converted(convert: Callable[[str], Converted], path: str) -> None:
    """Print the configuration, and what was left out; exit with 1 if something was.

    Raises OptionsError if the file can't be read.
    """
    try:
        result = convert(path)
    except MissingError as exc:
        print_error(exc)
        sys.exit(STATUS_OF_NO_FILE)
    say(f"# Made from {path} by trio-chardev {__version__}")
    if text := result.toml():
        say("\n" + text)
    for line in result.left_out:
        complain(line)
    if result.left_out:
        sys.exit(1)
