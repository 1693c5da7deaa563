"""Writes manual pages: roff with the macros of man(7)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Final

import attrs

_ESCAPES: Final = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
_MARKED: Final = re.compile(r"`([^`]+)`")


def escaped(text: str) -> str:
    """*text* as roff shows it: no character of it is a command."""
    shown = "".join(
        _ESCAPES.get(char, char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text
    )
    return re.sub(r"^(?=\.)", r"\\&", shown, flags=re.MULTILINE)


def marked(text: str) -> str:
    """Do as `escaped`; what is in backticks is bold."""
    pieces = _MARKED.split(text)
    return "".join(
        f"\\fB{escaped(piece)}\\fR" if number % 2 else escaped(piece)
        for number, piece in enumerate(pieces)
    )


@attrs.define
class ManualPage:
    """A manual page that grows."""

    name: str
    section: int
    summary: str
    version: str
    _lines: list[str] = attrs.Factory(list)

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{escaped(text.upper())}"')

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{escaped(text)}"')

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._lines += [".PP", marked(" ".join(text.split()))]

    def example(self, text: str) -> None:
        """Add lines that stay as they are."""
        self._lines += [".PP", ".RS 4", ".nf", escaped(text), ".fi", ".RE"]

    def item(self, tag: str, text: str) -> None:
        """Add a term and what it is."""
        self._lines += [".TP", f"\\fB{escaped(tag)}\\fR", marked(" ".join(text.split())) or r"\&"]

    def items(self, rows: Iterable[tuple[str, str]]) -> None:
        """Add terms."""
        for tag, text in rows:
            self.item(tag, text)

    def help(self, text: str) -> None:
        """Add the paragraphs of a docstring as click reads it: after ``\\b`` lines stay."""
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            if paragraph.startswith("\b\n"):
                self.example(inspect.cleandoc(paragraph.removeprefix("\b")))
            else:
                self.paragraph(paragraph)

    def text(self) -> str:
        """The whole page. Lines are not adjusted: long words would leave holes."""
        head = [
            f'.TH {self.name.upper()} {self.section} "" "trio\\-chardev {self.version}"',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{escaped(self.name)} \\- {escaped(self.summary)}",
        ]
        return "\n".join([*head, *self._lines, ""])
