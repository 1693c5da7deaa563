"""docs/reference.md: it is what the code says, and has all that there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import click
import pytest

import trio_chardev
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import KINDS
from trio_chardev.cli import cli
from trio_chardev.cli.markdown import MarkdownPage, anchor
from trio_chardev.cli.reference import main, reference
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import ChardevError
from trio_chardev.options.grammar import options_of
from trio_chardev.options.members import TaggedUnion, describe
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server.events import EVENTS
from trio_chardev.qmp.server.session import ERROR_CLASSES

ROOT = Path(__file__).parent.parent.parent
TEXT = reference().text()
PARTS = dict(re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))


def members(cls: type) -> list[str]:
    return [member.name for member in describe(cls)]


def test_the_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == TEXT, "`just reference` writes it"


def test_each_option_of_each_kind_device_and_object_is_there() -> None:
    common = PARTS["Options of all kinds"]
    variants = {f"Kind {name}": kind.options for name, kind in KINDS.items()}
    variants |= {f"Device {name}": cls for name, cls in DEVICE.variants.items()}
    variants |= {f"Object {name}": cls for name, cls in OBJECT.variants.items()}
    for heading, cls in variants.items():
        for option in options_of(heading.partition(" ")[2], cls):
            if option != "delay":  # the opposite of nodelay
                assert f"| `{option}` |" in PARTS[heading] + common, (heading, option)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_each_command_of_the_program_is_there_with_its_options(name: str) -> None:
    part = PARTS[f"trio-chardev {name}"]
    for param in cli.commands[name].params:
        if isinstance(param, click.Option) and param.name != "socket":
            assert max(param.opts, key=len) in part


def test_each_command_of_qmp_is_there_with_its_arguments_and_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert inspect.getdoc(command.handler), name
        if not isinstance(command.arguments, TaggedUnion):
            for member in members(command.arguments):
                assert f"| `{member}`" in PARTS[name], (name, member)
        assert ("Returns: " in PARTS[name]) == (command.returns is not None)


def test_each_event_is_there_with_its_data() -> None:
    for name, cls in EVENTS.items():
        for member in members(cls):
            assert f"| `{member}`" in PARTS[name], (name, member)
    assert "*Limited.*" in PARTS["CHARDEV_OPENED"]
    assert "*Limited.*" not in PARTS["CHARDEV_ADDED"]


def test_each_error_is_there() -> None:
    for name in trio_chardev.__all__:
        value = getattr(trio_chardev, name)
        if inspect.isclass(value) and issubclass(value, ChardevError):
            assert f"\n| `{name}` |" in TEXT


def test_no_command_fails_with_a_class_that_is_not_there() -> None:
    raised = {
        argument.value
        for path in (ROOT / "trio_chardev" / "qmp").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "QmpError"
        for argument in node.args[1:]
        if isinstance(argument, ast.Constant)
    }
    assert raised | {"GenericError"} == set(ERROR_CLASSES)


def test_each_link_leads_to_a_heading() -> None:
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]*)\)", TEXT))
    assert len(links) > 40
    assert links <= headings


def test_what_is_in_a_cell_ends_no_cell() -> None:
    page = MarkdownPage("x")
    page.table(("a", "b"), [("x|y", "one\ntwo")])
    page.table(("never", ""), [])
    assert page.text() == "# x\n\n| a | b |\n|---|---|\n| x\\|y | one two |\n"


def test_the_program_writes_it(tmp_path: Path) -> None:
    main(tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == TEXT
