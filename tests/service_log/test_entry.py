"""What an entry of the log says: its fields are what its text names."""

from __future__ import annotations

import ast
import logging
import sys

import pytest

from tests.test_layers import read_sources
from trio_chardev.service_log.entry import WORDS, entry_of


def record(template: object, *arguments: object, **more: object) -> logging.LogRecord:
    name = "trio_chardev.backends.serial.serial"
    made = logging.LogRecord(name, logging.WARNING, "file", 1, template, arguments, None)
    made.__dict__.update(more)
    return made


@pytest.mark.parametrize(
    ("template", "arguments", "fields", "subject"),
    [
        ("chardev '%s': %s", ("a", "gone"), {"chardev": "a"}, "chardev 'a': "),
        ("100 %% of chardev '%s'", ("a",), {"chardev": "a"}, ""),
        ("console '%s': client %d, %s", ("c", 3, "uid 0"), {"chardev": "c", "client": 3}, "console 'c': "),
        ("device '%s' failed", ("b",), {"device": "b"}, ""),
        ("listener '%s': %s", ("l", "x"), {"device": "l"}, "listener 'l': "),
        ("QMP client '%s' has come%s", ("q#1", ""), {"monitor": "q#1"}, ""),
        ("%s: %s gives way", ("chardev 'a'", "b"), {"chardev": "a"}, "chardev 'a': "),
        ("%s: no", ("QMP at 'unix:/q'",), {"monitor": "unix:/q"}, "QMP at 'unix:/q': "),
        ("%s and chardev '%s'", (1, "a"), {"chardev": "a"}, ""),
        ("chardevs '%s', a client of %s", ("a", "b"), {}, ""),
        ("no fields", (), {}, ""),
    ],
)  # fmt: skip
def test_a_text_names_its_fields(
    template: str, arguments: tuple[object, ...], fields: dict[str, object], subject: str
) -> None:
    entry = entry_of(record(template, *arguments))
    assert (dict(entry.fields), entry.subject) == (fields, subject)
    assert entry.message == (template % arguments)
    assert entry.message.startswith(entry.subject)
    assert (entry.area, entry.level) == ("serial", logging.WARNING)


def test_what_a_client_has_chosen_makes_no_field() -> None:
    entry = entry_of(record("no %s", "chardev 'a': device 'b'"))
    assert entry.fields == {}


def test_other_fields_can_be_given() -> None:
    fields = {"chardev": "x", "event": "E"}
    assert entry_of(record("chardev '%s'", "a", fields=fields)).fields == fields


def test_a_traceback_is_apart_from_the_message() -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        entry = entry_of(record("chardev '%s' failed", "a", exc_info=sys.exc_info()))
    assert entry.message == "chardev 'a' failed"
    assert entry.traceback.splitlines()[-1] == "ValueError: a bug"


LEVELS = ("debug", "info", "warning", "error", "exception", "log")


def test_who_logs_about_an_id_says_what_it_is_of() -> None:
    """A text that has an object's id has one of the words before it, or gives the field."""
    wrong = []
    for module, text in read_sources().items():
        for node in ast.walk(ast.parse(text)):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "log"
                and node.func.attr in LEVELS
            ):
                continue
            shown = ast.unparse(node)
            template = next(
                (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), ""
            )  # fmt: skip
            has_id = any(
                isinstance(a, ast.Attribute) and a.attr in ("id", "_id") for a in node.args
            )
            if (
                has_id
                and template
                and "extra=" not in shown
                and not any(w in template for w in WORDS)
            ):
                wrong.append((module, shown))
    assert wrong == [
        ("trio_chardev.devices.flow", """log.debug("no more from '%s'", self.source.id)""")
    ]
