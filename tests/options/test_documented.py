"""The texts of options, as help() shows them."""

from __future__ import annotations

import pydoc

import attrs
import pytest

import trio_chardev as tc
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.documented import field_docs, own_doc

OPTIONS = [
    value
    for name in tc.__all__
    if isinstance(value := getattr(tc, name), type)
    and issubclass(value, BackendOptions | tc.DeviceOptions)
]


def test_the_options_of_all_kinds_and_drivers_are_looked_at() -> None:
    assert len(OPTIONS) > 15


@pytest.mark.parametrize("cls", OPTIONS, ids=lambda cls: cls.__name__)
def test_each_option_has_a_text_and_help_shows_it(cls: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(cls))
    for name, text in field_docs(cls).items():
        assert text
        assert name in shown
    assert {field.name for field in attrs.fields(cls)} <= set(field_docs(cls))


def test_help_of_the_package_lists_options_with_their_texts() -> None:
    shown = pydoc.plain(pydoc.render_doc(tc))
    assert "out: File to write output to; created, or truncated" in shown
    assert "when_closed: What is sent to a side where nobody is" in shown


def test_a_docstring_ends_with_the_fields_that_are_new_and_names_those_of_the_base() -> None:
    doc = tc.DiscardOptions.__doc__
    assert doc is not None
    first, rest = doc.split("\n\nOptions:\n")
    assert first == own_doc(tc.DiscardOptions)
    assert [line.partition(":")[0].strip() for line in rest.splitlines()] == ["chardev", "Also id."]


def test_without_fields_of_its_own_a_class_names_those_of_the_base() -> None:
    assert str(tc.NullOptions.__doc__).endswith("record_max, rr.")


def test_what_is_written_without_a_docstring_has_the_texts_alone() -> None:
    @attrs.frozen(kw_only=True)
    class Bare(tc.DeviceOptions):
        speed: int = 1
        """How fast."""

    assert own_doc(Bare) == ""
    assert "    speed: How fast." in str(Bare.__doc__)
