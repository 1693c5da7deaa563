"""Where the tables and keys of a TOML text are, which tomllib does not tell.

This reads a text that tomllib has accepted, so it need not find mistakes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

KeyPath = tuple[str | int, ...]
"""Keys from the top on; a number is an index of an array."""

_TOKEN: Final = r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<long>\"{3}(?:[^\\]|\\.)*?\"{3,5}|'{3}.*?'{3,5})
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
    | (?P<sign>[=,.\[\]{}])
    | (?P<bare>[^\s=,.\[\]{}"'#]+)
    """


@attrs.frozen
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in re.finditer(_TOKEN, text, re.VERBOSE | re.DOTALL):
        kind = match.lastgroup
        assert kind is not None  # each alternative is a group
        if kind != "space":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")


@attrs.frozen
class _Open:
    """An array or inline table whose end has not come."""

    path: KeyPath
    is_array: bool


@attrs.define
class _Scanner:
    """Notes lines, a token at a time."""

    lines: dict[KeyPath, int] = attrs.Factory(dict)
    _table: KeyPath = ()
    _arrays: dict[KeyPath, int] = attrs.Factory(dict)
    """How many tables each array of tables has."""
    _keys: list[str] = attrs.Factory(list)
    _in_header: int = 0
    """How many brackets the header has that is being read."""
    _in_value: bool = False
    _path: KeyPath = ()
    """That of the value that is being read."""
    _open: list[_Open] = attrs.Factory(list)

    def take(self, token: _Token) -> None:
        """Take the next token of the text."""
        if token.kind == "newline" and not self._in_value:
            return
        if self._in_header:
            self._take_of_header(token)
        elif self._in_value:
            self._take_of_value(token)
        elif token.text == "[":
            self._in_header = 1
        elif token.text == "=":
            base = self._open[-1].path if self._open else self._table
            self._path = self._note(base, token.line)
            self._in_value = True
        elif self._open and token.text == "}":  # an empty inline table, or a comma before its end
            self._close()
        else:
            self._take_key(token)

    def _take_key(self, token: _Token) -> None:
        if token.kind in ("bare", "string"):
            self._keys.append(_key(token.text))

    def _note(self, base: KeyPath, line: int) -> KeyPath:
        """Note the keys that have come, as being below *base*; the last one's path is returned."""
        for key in self._keys:
            base = (*base, key)
            self.lines.setdefault(base, line)
            if base in self._arrays:
                base = (*base, self._arrays[base] - 1)
                self.lines.setdefault(base, line)
        self._keys.clear()
        return base

    def _take_of_header(self, token: _Token) -> None:
        if token.text == "[":
            self._in_header += 1
        elif token.text == "]":
            if self._in_header == 2:
                path = tuple(self._keys)
                self._arrays[path] = self._arrays.get(path, 0) + 1
            self._table = self._note((), token.line)
            self.lines[self._table] = (
                token.line
            )  # rather than that of a table below, if it was first
            self._in_header = 0
        else:
            self._take_key(token)

    def _take_of_value(self, token: _Token) -> None:
        inner = self._open[-1] if self._open else None
        match token.text:
            case "[" | "{":
                self._note_item(token.line)
                self._open.append(_Open(self._path, token.text == "["))
                if token.text == "[":
                    self._path = (*self._path, 0)
                else:
                    self._in_value = False
            case "]" | "}":
                self._close()
            case "," if inner is not None and inner.is_array:
                index = self._path[-1]
                assert isinstance(index, int)
                self._path = (*inner.path, index + 1)
            case ",":
                self._in_value = False  # the next key of an inline table
            case "\n":
                self._in_value = inner is not None
            case _:
                self._note_item(token.line)

    def _note_item(self, line: int) -> None:
        self.lines.setdefault(self._path, line)

    def _close(self) -> None:
        self._path = self._open.pop().path
        self._keys.clear()
        self._in_value = True  # of what is around it, or to the end of the line


def _key(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    if text.startswith('"'):
        key: str = tomllib.loads(f"x = {text}")["x"]
        return key
    return text


def find_lines(text: str) -> Mapping[KeyPath, int]:
    """The line of each table, key, and item of an array in *text*, the first being 1."""
    scanner = _Scanner()
    for token in _tokens(text):
        scanner.take(token)
    return scanner.lines
