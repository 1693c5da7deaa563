"""The texts of options: each is a string literal below its field, read from the source code.

There Sphinx and editors look for them too, and whoever reads the class. The command line's help
shows them, and so does Python's help().
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
import typing

import attrs


class Documented:
    """A base class of options: their docstrings end with the texts of their fields.

    That end is made on demand, for help(), because it takes reading the source code.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        own = vars(cls).get("__doc__")
        if not isinstance(own, _DocWithFields):  # attrs creates a class with slots twice
            cls.__doc__ = typing.cast(str, _DocWithFields(own))


class _DocWithFields:
    """The ``__doc__`` of a class, as a descriptor."""

    def __init__(self, own: str | None) -> None:
        self.own = inspect.cleandoc(own or "")

    def __get__(self, _: None, cls: type) -> str:
        if not attrs.has(cls):
            return self.own
        inherited = {
            name for base in cls.__mro__[1:] if attrs.has(base) for name in _fields_of(base)
        }
        docs = field_docs(cls)
        lines = [
            f"    {name}: {' '.join(docs.get(name, '').split())}".rstrip()
            for name in _fields_of(cls)
            if name not in inherited
        ]
        if inherited:
            lines.append(f"    Also {', '.join(n for n in _fields_of(cls) if n in inherited)}.")
        return "\n".join([self.own, "", "Options:", *lines]) if lines else self.own


def _fields_of(cls: type) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.init]


def own_doc(cls: type) -> str:
    """The docstring of *cls* as it is written, without the texts of its fields."""
    doc = vars(cls).get("__doc__")
    return doc.own if isinstance(doc, _DocWithFields) else inspect.cleandoc(doc or "")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The string literals below the fields of *cls*; none if there is no source code."""
    docs: dict[str, str] = {}
    for base in filter(attrs.has, reversed(cls.__mro__)):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # the source code is not available
            continue
        for definition in tree.body:
            if isinstance(definition, ast.ClassDef):
                docs |= _strings_below_fields(definition.body)
    return docs


def _strings_below_fields(body: list[ast.stmt]) -> dict[str, str]:
    docs = {}
    for statement, below in itertools.pairwise(body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = inspect.cleandoc(text)
    return docs
