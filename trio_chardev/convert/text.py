"""The text of a configuration to be converted."""

from __future__ import annotations

import os
from typing import Final

from trio_chardev.convert.converted import MissingError
from trio_chardev.errors import OptionsError, strerror
from trio_chardev.files import read_file

MAX_SIZE: Final = 1 << 24  # bytes of a file
MAX_DEPTH: Final = 10  # of files that include each other, as conserver has it


def read_text(path: str) -> str:
    """Read a file. It may wait for a disk. Raises MissingError, and OptionsError."""
    try:
        return read_file(path, MAX_SIZE, os.open).decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        raise MissingError(f"there is no '{path}'") from None
    except (OSError, ValueError) as exc:
        raise OptionsError(f"Could not read '{path}': {strerror(exc)}") from exc
