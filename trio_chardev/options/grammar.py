"""Parses ``--chardev KIND,id=ID,key=value,...``, sans-IO, into arguments of chardev-add.

An option has the name of a member of the kind's options class, and a value of that member's type.
Where ``-chardev`` spells it differently, or has several options for one member, the table
`SPELLINGS` says so; a new kind needs nothing here.

An option of any kind is known to every kind. As in QEMU, a kind ignores those of others once they
are parsed, but for those that are refused (`REFUSED`).
"""

from __future__ import annotations

import re
import textwrap
from collections import ChainMap
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import attrs

from trio_chardev.options.documented import own_doc
from trio_chardev.options.keyval import (
    HELP_WORDS,
    HelpRequested,
    Item,
    Warn,
    ignore,
    listify,
    parse_json,
    parse_size,
    split_items,
    typed,
)
from trio_chardev.options.members import (
    Array,
    Enum,
    IntRange,
    Member,
    Object,
    Scalar,
    TaggedUnion,
    ValueType,
    describe,
)
from trio_chardev.options.spelling import (
    ALIASES,
    OF_NO_KIND,
    REFUSED,
    SIZES,
    SPELLINGS,
    Given,
    Spelling,
)
from trio_chardev.options.structure import INT64, structure
from trio_chardev.plain_errors import OptionsError


@attrs.frozen
class ChardevSpec:
    """A chardev that the command line asks for."""

    id: str
    backend: Any
    """``{"type": ..., "data": ...}`` as in chardev-add, not checked yet by `structure`."""

    mux: bool = False
    """Is *id* a mux, on a chardev ``ID-base`` with the backend?"""


HELP_WIDTH: Final = 80
HELP_COLUMN: Final = 31  # at which the descriptions begin
FOREIGN_HINT: Final = "It belongs to an emulated machine or its display: only QEMU has it."

_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_INDEX: Final = re.compile(r"\.[0-9]+$")


def check_id(id: str) -> None:
    """Raise OptionsError unless *id* is valid on the command line. QMP allows any."""
    if not _ID.fullmatch(id):
        error = OptionsError("Parameter 'id' expects an identifier")
        error.add_note(
            "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
        )
        raise error


@attrs.frozen(repr=False)
class Option:
    """One option of a kind, for the parser and for help."""

    name: str
    """The option of an array is called ``NAME.N``, for any number ``N``."""

    path: tuple[str, ...]
    """Where it goes in the data; a step ``addr:inet`` enters that variant of a union."""

    value_type: ValueType
    member: Member

    @property
    def type_name(self) -> str:
        """The type, as QEMU's help shows it."""
        if self.name in SIZES:
            return "size"
        match self.value_type:
            case Scalar("bool"):
                return "bool (on/off)"
            case Scalar("int" | "number") | IntRange():
                return "num"
            case Enum(values):
                return "|".join(map(str, values))
        return "str"

    def doc(self, default: object) -> str:
        """What the option is for, and its default unless that is obvious."""
        doc = _plain(self.member.doc)
        if default in (None, "", ()):
            return doc
        shown = ("off", "on")[default] if isinstance(default, bool) else default
        return f"{doc} (default: {shown})"


@attrs.frozen(repr=False)
class _Arguments:
    """A JSON object on the command line: arguments of chardev-add."""

    id: str
    backend: Any


class ChardevGrammar:
    """Parses chardevs of *kinds*: name -> options class; *foreign* are QEMU's other kinds."""

    def __init__(self, kinds: Mapping[str, type], foreign: Container[str] = ()) -> None:
        self.foreign = foreign
        self._kinds = kinds
        self._options: dict[str, Mapping[str, Option]] = {}

    def options_of(self, kind: str) -> Mapping[str, Option]:
        """The options of *kind* by their names; they are found out when they are first asked for."""
        options = self._options.get(kind)
        if options is None:
            options = self._options[kind] = options_of(kind, self._kinds[kind])
        return options

    @cached_property
    def _all(self) -> Mapping[str, Option]:
        """The options of all kinds."""
        return dict(ChainMap(*map(self.options_of, self._kinds)))  # type: ignore[arg-type]

    def parse(self, text: str, warn: Warn = ignore) -> ChardevSpec:
        """Parse one ``--chardev`` argument, or a JSON object of chardev-add's arguments.

        *warn* is called about what is deprecated. Raises OptionsError, perhaps with a hint as its
        note, and HelpRequested, about one kind or all.
        """
        if text.startswith("{"):
            arguments = structure(_Arguments, parse_json(text))
            check_id(arguments.id)
            return ChardevSpec(arguments.id, arguments.backend)
        ids = [item.value for item in split_items(text) if item.key == "id"]
        if ids:
            check_id(ids[0])
        return self.from_items(ids[0] if ids else None, split_items(text, "backend"), warn)

    def from_items(
        self,
        id: str | None,
        items: Iterable[Item],
        warn: Warn = ignore,
    ) -> ChardevSpec:
        """Parse what `split_items` gave; an ``id`` among *items* is ignored."""
        items = list(items)
        name = next((item.value for item in reversed(items) if item.key == "backend"), None)
        kind = ALIASES.get(name, name) if name else name
        if name in HELP_WORDS or (any(item.is_help for item in items)):
            raise HelpRequested(kind if kind in self._kinds else None)
        if kind is not None:
            self.check_kind(kind)
        given = self._read(items, kind, warn)
        if id is None:
            raise OptionsError("chardev: no id specified")
        if kind is None:
            raise OptionsError(f'chardev: "{id}" missing backend')
        if kind != name:
            warn(f"The alias '{name}' is deprecated, use '{kind}' instead")
        for key, what in REFUSED.items():
            if key in given and key not in self.options_of(kind):
                raise OptionsError(f"chardev '{id}' does not support {what}")
        return ChardevSpec(id, self.backend(kind, given), mux=given.get("mux", False))

    def check_kind(self, kind: str) -> None:
        """Raise OptionsError unless there is that kind."""
        if kind in self._kinds:
            return
        error = OptionsError(f"'{kind}' is not a valid char driver name")
        if kind in self.foreign:
            error.add_note(FOREIGN_HINT)
        raise error

    def find(self, kind: str, key: str) -> Option | None:
        """The option *key* of *kind* itself."""
        return _find(self.options_of(kind), key)

    def backend(self, kind: str, given: Given) -> dict[str, Any]:
        """Make ``{"type": ..., "data": ...}`` as in chardev-add. Raises OptionsError."""
        return {"type": kind, "data": _data(kind, self.options_of(kind), given)}

    def _read(self, items: list[Item], kind: str | None, warn: Warn) -> Given:
        own = {} if kind is None else self.options_of(kind)
        given: Given = {}
        for item in items:
            if item.word is not None:
                warn(item.deprecation)
            if item.key in SIZES:
                given[item.key] = read_size(item.key, item.value)
            elif option := _find(own, item.key):
                given[item.key] = typed(option.value_type, item.value, item.key)
            elif item.key in OF_NO_KIND:
                given[item.key] = typed(OF_NO_KIND[item.key], item.value, item.key)
            elif item.key == "id":
                continue
            elif option := _find(self._all, item.key):  # the last, as it imports all kinds
                given[item.key] = typed(option.value_type, item.value, item.key)
            else:
                raise OptionsError(f"Invalid parameter '{item.key}'")
        return given

    def help_text(self, kind: str | None = None) -> str:
        """The text for ``--chardev help``, or with *kind* for ``--chardev KIND,help``."""
        return help_text("Available chardev backend types:", self._kinds, kind)


def read_size(key: str, text: str) -> int:
    """Parse the value of an option that is one of `SIZES`. Raises OptionsError."""
    size = parse_size(key, text)
    if size not in INT64:
        raise OptionsError(f"Value '{text}' is out of range for parameter '{key}'")
    return size


def help_text(heading: str, kinds: Mapping[str, type], kind: str | None) -> str:
    """Make a table of *kinds*, or of one kind's options, followed by what its docstring adds."""
    if kind is None:
        rows = [(name, _first_line(cls)) for name, cls in kinds.items()]
        return "\n".join([heading, *_table(rows)])
    rows = option_rows(kind, kinds[kind])
    _, *more = paragraphs_of(kinds[kind])
    notes = [textwrap.fill(paragraph, HELP_WIDTH) for paragraph in more]
    return "\n".join([f"{kind} options:", *_table(rows), *notes])


def option_rows(kind: str, cls: type) -> list[tuple[str, str]]:
    """Each option of a kind, as ``NAME=<TYPE>``, with what it is for."""
    by_path = {option.path: option for option in options_of(kind, cls).values()}
    return [
        (f"{option.name}=<{option.type_name}>", option.doc(default_of(kind, option)))
        for option in by_path.values()
    ]


def paragraphs_of(cls: type) -> list[str]:
    """What the docstring of an options class says, without markup."""
    return [_plain(paragraph) for paragraph in own_doc(cls).split("\n\n")]


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    indent = " " * HELP_COLUMN
    for left, doc in sorted(rows):
        left = f"  {left}"
        text = textwrap.fill(doc, HELP_WIDTH, initial_indent=indent, subsequent_indent=indent)
        if not doc or len(left) >= HELP_COLUMN:
            yield left
            if doc:
                yield text
        else:
            yield left + text[len(left) :]


def _first_line(cls: type) -> str:
    return _plain(own_doc(cls).partition("\n")[0])


def _plain(doc: str) -> str:
    """A docstring's text on one line, without markup."""
    return " ".join(doc.replace("``", "'").split())


def default_of(kind: str, option: Option) -> object:
    """The value of an option that is not given."""
    return SPELLINGS.get(kind, Spelling()).defaults.get(option.name, option.member.default)


def _find(options: Mapping[str, Option], key: str) -> Option | None:
    return options.get(key) or options.get(_INDEX.sub(".N", key))


def _data(kind: str, options: Mapping[str, Option], given: Given) -> dict[str, Any]:
    """Make the data of *kind* from the options *given*."""
    spelling = SPELLINGS.get(kind, Spelling())
    own = {key: value for key, value in given.items() if _find(options, key)}
    for key, complaint in spelling.required.items():
        if key not in own:
            raise OptionsError(complaint)
    own = {**spelling.defaults, **own}
    spelling.settle(own)
    data: dict[str, Any] = {}
    for key, value in own.items():
        if option := _find(options, key):
            _put(data, option, key, value)
    for option in options.values():
        if len(option.path) == 1 and not option.member.is_optional and option.path[0] not in data:
            raise OptionsError(f"Parameter '{option.name}' is missing")
    return {name: listify(value, name) for name, value in data.items()}


def _put(data: dict[str, Any], option: Option, key: str, value: object) -> None:
    *parents, last = option.path
    for step in parents:
        name, _, variant = step.partition(":")
        if variant:
            data = data.setdefault(name, {"type": variant, "data": {}})["data"]
        else:
            data = data.setdefault(name, {})
    data[key.rpartition(".")[2] if last == "N" else last] = value


def options_of(kind: str, cls: type) -> dict[str, Option]:
    """The options of a kind by name; not what only JSON can give."""
    spelled = SPELLINGS.get(kind, Spelling()).names
    hidden = {re.split("[:.]", path)[0] for path in spelled.values()}
    names = {member.name: member.name for member in describe(cls) if member.name not in hidden}
    options = {}
    for name, path in (names | dict(spelled)).items():
        steps = tuple(path.split("."))
        member = _member_at(cls, steps)
        match member.value_type:
            case Object() | TaggedUnion() | Array(Object() | TaggedUnion() | Array()):
                continue  # can be given by QMP or as JSON only
            case Array(item):
                options[f"{name}.N"] = Option(f"{name}.N", (*steps, "N"), item, member)
            case value_type:
                options[name] = Option(name, steps, value_type, member)
    return options


def _member_at(cls: type, steps: tuple[str, ...]) -> Member:
    *parents, last = steps
    for step in parents:
        name, _, variant = step.partition(":")
        union = _member(cls, name).value_type
        assert isinstance(union, TaggedUnion)
        cls = union.variants[variant]
    return _member(cls, last)


def _member(cls: type, name: str) -> Member:
    return next(member for member in describe(cls) if member.name == name)
