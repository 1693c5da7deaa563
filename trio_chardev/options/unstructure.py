"""JSON of options and other attrs classes: `structure` the other way, by cattrs.

cattrs takes a while to import, and to make the functions for a class; a service does without until
it listens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import attrs
import cattrs
from cattrs.gen import make_dict_unstructure_fn, override

from trio_chardev.options.members import TaggedUnion, describe, type_of


def unstructure(value: object, cls: type | TaggedUnion | None = None) -> Any:
    """Make the JSON from which `structure` makes an equal *value*.

    Members at their default are left out. With a TaggedUnion as *cls* it has the form
    ``{"type": ..., "data": ...}``.
    """
    return _converter.unstructure(value, cls)


def _unstructure_object_hook(cls: Any) -> Callable[[Any], Any]:
    renamed: Any = {member.field: override(rename=member.name) for member in describe(cls)}
    return make_dict_unstructure_fn(cls, _converter, _cattrs_omit_if_default=True, **renamed)


def _unstructure_union_hook(hint: Any) -> Callable[[Any], Any]:
    union = type_of(hint)
    assert isinstance(union, TaggedUnion)
    tag_of = functools.cache(union.tag_of)

    def unstructure_union(value: Any) -> dict[str, Any]:
        cls: Any = type(value)
        name, data = tag_of(cls), _converter.unstructure(value)
        return {union.tag: name, **data} if union.is_flat else {union.tag: name, "data": data}

    return unstructure_union


def _is_tagged_union(hint: Any) -> bool:
    try:
        return isinstance(type_of(hint), TaggedUnion)
    except TypeError:
        return False


_converter: Final = cattrs.Converter(
    detailed_validation=False, unstruct_collection_overrides={tuple: list}
)
_converter.register_unstructure_hook_factory(attrs.has, _unstructure_object_hook)
_converter.register_unstructure_hook_factory(_is_tagged_union, _unstructure_union_hook)
