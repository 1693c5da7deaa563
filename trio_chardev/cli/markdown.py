"""Writes pages in Markdown, with the tables of GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs


def cell(text: str) -> str:
    """*text* as a cell of a table: on one line, and no ``|`` of it ends the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """*text* as it is typed."""
    return f"`{text}`" if text else ""


def anchor(heading: str) -> str:
    """What leads to *heading*, behind a ``#``."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@attrs.define
class MarkdownPage:
    """A page that grows."""

    title: str
    _parts: list[str] = attrs.Factory(list)

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a part of the page."""
        self._parts.append(f"{'#' * level} {text}")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(" ".join(text.split()).replace("``", "`"))

    def example(self, text: str) -> None:
        """Add lines that stay as they are."""
        self._parts.append(f"```\n{text}\n```")

    def items(self, items: Iterable[str]) -> None:
        """Add a list."""
        self._parts.append("\n".join(f"* {item}" for item in items))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table, unless it has no row; *rows* are cells with their markup."""
        lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
        if lines:
            self._parts.append(
                "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])
            )

    def text(self) -> str:
        """The whole page."""
        return "\n\n".join([f"# {self.title}", *self._parts]) + "\n"
