"""ser2net.yaml(5): YAML whose keys come again, whose anchors are names, and which includes files."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from trio_chardev.convert.converted import Converted, Place
from trio_chardev.convert.text import MAX_DEPTH, read_text
from trio_chardev.errors import OptionsError

try:
    import yaml
except ImportError as exc:  # it is an optional dependency: only this needs it
    raise OptionsError(
        "a ser2net.yaml needs PyYAML: install it, or 'trio-chardev[convert]'"
    ) from exc

MAX_TEXT: Final = 1 << 16  # characters of a value, lest aliases in aliases grow without end

_INSIDE: Final = re.compile(r"\*\((\*|[^()]*\))|\*\{(\*|[^{}]*\})")
"""``*(alias)`` and ``*{file}`` in a text, and how a text has ``*(`` and ``*{``: ``*(*``, ``*{*``."""


@attrs.frozen
class Entry:
    """A key of the main level with its value; several have the same key."""

    place: Place
    key: str
    anchor: str
    node: Any
    """Of PyYAML."""


@attrs.define
class Document:
    """What is in a file, and in those that it includes, in order."""

    result: Converted
    """Which is told of what can't be read."""
    entries: list[Entry] = attrs.Factory(list)
    anchors: dict[str, Any] = attrs.Factory(dict)
    depth: int = 0

    def read(self, path: str) -> None:
        """Read a file. Raises MissingError, and OptionsError if it is not YAML."""
        if self.depth >= MAX_DEPTH:
            raise OptionsError(f"'{path}' is included {MAX_DEPTH} files deep")
        self.depth += 1
        loader = _Loader(read_text(path), path, self)
        try:
            loader.get_single_node()
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            line = f"{path}:{mark.line + 1}: " if mark is not None else ""
            raise OptionsError(f"{line}this is not YAML: {getattr(exc, 'problem', exc)}") from exc
        except RecursionError:
            raise OptionsError(f"{path}: it nests too deeply") from None
        finally:
            loader.dispose()
            self.depth -= 1

    def include(self, entry: Entry) -> None:
        """Read the files that an ``include`` means."""
        pattern = self.text(entry.node)
        files = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        for file in files:
            try:
                self.read(file)
            except OptionsError as exc:
                self.result.leave_out(entry.place, str(exc))

    def text(self, node: Any) -> str:
        """The text of a value: with aliases in it filled in."""
        if not isinstance(node, yaml.ScalarNode):
            self.result.leave_out(place_of(node), "here should be a text")
            return ""

        def fill(found: re.Match[str]) -> str:
            if "*" in (found[1], found[2]):
                return found[0][:-1]
            if found[2]:
                self.result.leave_out(place_of(node), f"'{found[0]}' is not read from its file")
                return found[0]
            alias = self.anchors.get(found[1][:-1])
            if not isinstance(alias, yaml.ScalarNode):
                self.result.leave_out(place_of(node), f"there is no '{found[1][:-1]}'")
                return ""
            return str(alias.value)

        text = _INSIDE.sub(fill, node.value)
        if len(text) > MAX_TEXT:
            raise OptionsError(f"{place_of(node)}: this text is too long")
        return text

    def pairs(self, node: Any) -> Iterator[tuple[str, Any, Place]]:
        """The keys and values of a mapping, and where they are."""
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield self.text(key), value, place_of(key)
        elif node.value:
            self.result.leave_out(place_of(node), "here should be keys with values")


def place_of(node: Any) -> Place:
    """Where a node of PyYAML begins."""
    return Place(node.start_mark.name, node.start_mark.line + 1)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Collects entries, for anchors that several files have in common.

    It only composes: nothing is constructed, so no tag has an effect.
    """

    def __init__(self, text: str, path: str, document: Document) -> None:
        super().__init__(text)
        self.name = path  # which marks have
        self.document = document
        self.root: Any = None
        """The mapping that is the main level."""

    def compose_document(self) -> Any:
        self.get_event()
        self.anchors = self.document.anchors  # a document has its own, without this
        node = self.compose_node(None, None)
        self.get_event()
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        anchor = event.anchor or ""
        if self.check_event(yaml.AliasEvent) and anchor not in self.anchors:
            self.get_event()
            place = Place(self.name, event.start_mark.line + 1)
            self.document.result.leave_out(place, f"there is no '{anchor}'")
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", event.start_mark, event.end_mark)
        if parent is not None and self.root is None:
            self.root = parent
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.ScalarEvent) and anchor:
            node.value = self.document.text(node)  # what a define names is filled in here
        if parent is not None and parent is self.root and isinstance(index, yaml.ScalarNode):
            entry = Entry(place_of(index), index.value, anchor, node)
            self.document.entries.append(entry)
            if entry.key == "include":
                self.document.include(entry)
        return node
