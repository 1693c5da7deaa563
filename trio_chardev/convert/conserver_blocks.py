"""The blocks of a conserver.cf(5): the section PARSER of that page, and ``#include``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import attrs

from trio_chardev.convert.converted import Place
from trio_chardev.convert.text import MAX_DEPTH, read_text
from trio_chardev.errors import OptionsError

INCLUDE: Final = "#include"
TOKENS: Final = "{};"


@attrs.frozen
class Item:
    """``KEYWORD VALUE;``."""

    place: Place
    keyword: str
    value: str


@attrs.frozen
class Block:
    """``TYPE NAME { ... }``."""

    place: Place
    type: str
    name: str
    items: tuple[Item, ...]


@attrs.frozen
class _Word:
    """A token (one of `TOKENS`), or the text up to one."""

    place: Place
    type: Literal["text", "{", "}", ";"]
    text: str = ""
    first: str = ""
    """The text up to the first white space outside of quotes; what comes then is in `text`."""


def read_blocks(path: str) -> list[Block]:
    """Read the blocks of a file. Raises MissingError, and OptionsError for what is no block."""
    return list(_blocks(_words(path, 0)))


def _blocks(words: Iterator[_Word]) -> Iterator[Block]:
    for word in words:
        if word.type == ";":
            continue
        if word.type != "text" or next(words, word).type != "{":
            raise OptionsError(f"{word.place}: here should be a block: TYPE NAME {{ ... }}")
        yield Block(word.place, word.first.lower(), word.text, tuple(_items(word, words)))


def _items(block: _Word, words: Iterator[_Word]) -> Iterator[Item]:
    for word in words:
        if word.type == "}":
            return
        if word.type == "{":
            raise OptionsError(f"{word.place}: here should be a keyword")
        if word.type == "text":
            if (end := next(words, word)).type != ";":
                raise OptionsError(f"{end.place}: here should be a ';'")
            yield Item(word.place, word.first.lower(), word.text)
    raise OptionsError(f"{block.place}: this block has no end")


@attrs.define
class _Text:
    """The text between two tokens, as it grows: quoted spaces count, those around it do not."""

    place: Place | None = None
    first: str | None = None
    """What was there before the first white space."""
    text: str = ""
    kept: int = 0
    """So many characters stay: up to the last that is quoted, or no white space."""

    def put(self, place: Place, char: str, *, is_quoted: bool) -> None:
        """Add a character."""
        is_space = char.isspace() and not is_quoted
        if is_space and self.place is None:
            return
        if self.place is None:
            self.place = place
        if is_space and self.first is None:
            self.first, self.text, self.kept = self.text, "", 0
        elif not is_space or self.text:
            self.text += char
            self.kept = self.kept if is_space else len(self.text)

    def begin(self, place: Place) -> None:
        """Note that it is there, though it may be empty: ``""``."""
        if self.place is None:
            self.place = place

    def taken(self) -> _Word | None:
        """What is there; it begins anew."""
        if self.place is None:
            return None
        text = self.text[: self.kept]
        first, text = (text, "") if self.first is None else (self.first, text)
        word = _Word(self.place, "text", text, first)
        self.place, self.first, self.text, self.kept = None, None, "", 0
        return word


def _words(path: str, depth: int) -> Iterator[_Word]:
    """Yield the texts and tokens of a file, and of those that it includes."""
    if depth > MAX_DEPTH:
        raise OptionsError(f"'{path}' is included {MAX_DEPTH} files deep")
    found = _Text()
    in_quotes = False
    place = Place(path, 1)
    for number, line in enumerate(read_text(path).splitlines(keepends=True), 1):
        place = Place(path, number)
        if line.startswith(INCLUDE) and line[len(INCLUDE) :][:1].isspace() and not in_quotes:
            yield from _words(line[len(INCLUDE) :].strip(), depth + 1)
            continue
        chars = iter(line)
        for char in chars:
            if char == "\\" and not in_quotes:
                if (escaped := next(chars, "\n")) != "\n":  # at the end of a line it goes on
                    found.put(place, escaped, is_quoted=True)
            elif char == '"':
                in_quotes = not in_quotes
                found.begin(place)
            elif in_quotes:
                if char == "\\" and (after := next(chars, "")):
                    if after != '"':
                        found.put(place, char, is_quoted=True)
                    char = after
                found.put(place, char, is_quoted=True)
            elif char == "#":
                found.put(place, "\n", is_quoted=False)
                break
            elif char in TOKENS:
                if (word := found.taken()) is not None:
                    yield word
                yield _Word(place, char)  # type: ignore[arg-type]
            else:
                found.put(place, char, is_quoted=False)
    if in_quotes:
        raise OptionsError(f"{place}: a quotation has no end")
    if (word := found.taken()) is not None:
        yield word
