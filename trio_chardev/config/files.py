"""Which files a configuration is in, and what they say."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from trio_chardev.config.lines import find_lines
from trio_chardev.config.nodes import Faults, Node, Spot
from trio_chardev.errors import OptionsError, strerror
from trio_chardev.files import read_file
from trio_chardev.systemd import made_by_systemd

SYSTEM: Final = Path("/etc/trio-chardev")
MAX_SIZE: Final = 1 << 24  # bytes of a file

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


class NoSuchFileError(OptionsError):
    """You: a configuration file that was named does not exist."""


def default_folders() -> list[Path]:
    """The folders in which a configuration is looked for; the first that has one counts."""
    if (made := made_by_systemd("CONFIGURATION")) is not None:
        return [made]
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [Path(home) / "trio-chardev", SYSTEM]


def find_files(given: Iterable[str]) -> list[Path]:
    """The files of the configurations *given*, or of the default.

    A folder means its ``*.toml``, then those of its ``conf.d``, in the order of their names. Raises
    NoSuchFileError, and OptionsError if a folder can't be read. It may wait for a disk.
    """
    if paths := [Path(text) for text in given]:
        return list(dict.fromkeys(file for path in paths for file in _files_of(path)))
    for folder in default_folders():
        if folder.is_dir() and (files := _files_of(folder)):
            return files
    return []


def _files_of(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            path.stat()
            return [path]
        folders = [path, path / "conf.d"]
        return [
            folder / name
            for folder in folders
            if folder.is_dir()
            for name in sorted(os.listdir(folder))
            if name.endswith(".toml") and not name.startswith(".")
        ]
    except FileNotFoundError:
        raise NoSuchFileError(f"there is no '{path}'") from None
    except (OSError, ValueError) as exc:
        raise OptionsError(f"Could not read '{path}': {strerror(exc)}") from exc


def read_node(path: Path, faults: Faults) -> Node | None:
    """Read a file; None if it is not TOML, which is added to *faults*. It may wait for a disk."""
    file = str(path)
    faults.files.append(file)
    try:
        data = read_file(file, MAX_SIZE, os.open)
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as exc:
        faults.add(Spot(file, data.count(b"\n", 0, exc.start) + 1), "this is not UTF-8")
    except tomllib.TOMLDecodeError as exc:
        found = _POSITION.search(str(exc))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        faults.add(Spot(file, line), _POSITION.sub("", str(exc)))
    except RecursionError:
        faults.add(Spot(file, 1), "it nests too deeply")
    except (OSError, ValueError) as exc:
        faults.add(Spot(file, 1), f"it can't be read: {strerror(exc)}")
    else:
        return Node.made(document, file, find_lines(text))
    return None
