"""The values of configuration files with where they are, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import attrs

from trio_chardev.config.lines import KeyPath
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.options.keyval import HelpRequested


@attrs.frozen
class Spot:
    """A place in a file, for error texts."""

    file: str
    line: int
    key: str = ""
    """Such as ``console.board.log.file``."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f": [{self.key}]" if self.key else "")


def name_of(path: KeyPath) -> str:
    """Write *path* with dots; an index is in brackets."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


@attrs.frozen
class Node:
    """A value, and where it is. Those inside of a table or an array are nodes, too."""

    spot: Spot
    value: Any

    @classmethod
    def made(
        cls, value: object, file: str, lines: Mapping[KeyPath, int], path: KeyPath = ()
    ) -> Node:
        """Make a node of what tomllib gives; *lines* is what `find_lines` gives."""
        if isinstance(value, dict):
            value = {key: cls.made(item, file, lines, (*path, key)) for key, item in value.items()}
        elif isinstance(value, list):
            value = [cls.made(item, file, lines, (*path, n)) for n, item in enumerate(value)]
        return cls(Spot(file, lines.get(path, 1), name_of(path)), value)

    def filled(self, name: str) -> Node:
        """The same with *name* in the place of ``{name}`` in all strings."""
        match self.value:
            case str(text):
                return attrs.evolve(self, value=text.replace("{name}", name))
            case dict(items):
                items = {key: item.filled(name) for key, item in items.items()}
                return attrs.evolve(self, value=items)
            case list(items):
                return attrs.evolve(self, value=[item.filled(name) for item in items])
        return self


class ConfigError(OptionsError):
    """You: the configuration is wrong. The notes are the faults after the first."""


@attrs.define
class Faults:
    """What is wrong with a configuration, each fault once."""

    files: list[str] = attrs.Factory(list)
    """In the order in which they were read."""
    _found: dict[tuple[str, int, str], None] = attrs.Factory(dict)

    def add(self, spot: Spot, text: str) -> None:
        """Add a fault."""
        self._found[spot.file, spot.line, f"{spot}: {text}"] = None

    @contextmanager
    def at(self, spot: Spot, inside: Mapping[str, Node] | None = None) -> Iterator[None]:
        """Add the error that is raised in the block, if there is one, and go on after it.

        If its text names one of the keys *inside*, it is there rather than at *spot*.
        """
        try:
            yield
        except HelpRequested:
            self.add(spot, "there is no help here")
        except ChardevError as exc:
            hints = " ".join(getattr(exc, "__notes__", ())).replace("\n", " ")
            text = f"{exc} ({hints})" if hints else str(exc)
            self.add(_closer(spot, inside or {}, str(exc)), text)

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        """Raise ConfigError with all of them, in the order of files and lines, if there are any."""
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: (self.files.index(fault[0]), fault[1]))
        error = ConfigError(found[0][2])
        for _, _, text in found[1:]:
            error.add_note(text)
        raise error


_NAMED: Final = re.compile(r"^[\w-]+|[\w-]+(?==)|(?<=')[\w.-]+(?=')")
"""What an error's text seems to name: its first word, a word before "=", words in quotes."""


def _closer(spot: Spot, inside: Mapping[str, Node], text: str) -> Spot:
    for named in _NAMED.findall(text):
        for name in (named, named.rpartition(".")[2]):
            if name in inside:
                return inside[name].spot
    return spot
