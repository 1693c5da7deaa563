"""``python -m trio_chardev.cli.reference FILE`` writes docs/reference.md, made of the code.

Options are those that --help shows, QMP's commands those of query-qmp-schema; their texts are the
docstrings of the classes and functions that do them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

import trio_chardev
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import FOREIGN, KINDS, NOT_IN_QEMU
from trio_chardev.cli.group import CONTEXT, cli
from trio_chardev.cli.manual import STATUSES
from trio_chardev.cli.markdown import MarkdownPage, anchor, code
from trio_chardev.cli.qmp_reference import add_commands, add_events, add_types, shown_type
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import ChardevError
from trio_chardev.options.grammar import Option, default_of, options_of, paragraphs_of
from trio_chardev.options.members import Member, describe
from trio_chardev.qmp.server.session import ERROR_CLASSES

COMMON: Final = "Options of all kinds"
PARTS: Final = (
    "Chardevs, by kind",
    "Devices, by driver",
    "Objects, by type",
    "Commands of the program",
    "QMP: commands",
    "QMP: events",
    "QMP: types",
    "Errors",
)


def reference() -> MarkdownPage:
    """Make the page."""
    page = MarkdownPage("Reference")
    page.paragraph(
        "Every kind, device, object, option, command, event and error. This page is made of the code by `just "
        "reference`, and a test compares the two. The other pages say what it is for; the same is in the manual pages, "
        "in `--help`, in `trio-chardev serve --chardev KIND,help` and in Python's `help()`."
    )
    page.items(f"[{part}](#{anchor(part)})" for part in PARTS)
    kinds, devices, objects, commands, *qmp, errors = PARTS
    _add_kinds(page, kinds)
    _add_variants(page, devices, "--device DRIVER,KEY=VALUE,...", DEVICE.variants)
    _add_variants(page, objects, "--object TYPE,KEY=VALUE,...", OBJECT.variants)
    _add_program(page, commands)
    for heading, add in zip(qmp, (add_commands, add_events, add_types), strict=True):
        page.heading(heading)
        add(page)
    _add_errors(page, errors)
    return page


def _add_kinds(page: MarkdownPage, heading: str) -> None:
    page.heading(heading)
    page.paragraph(
        "As `--chardev KIND,id=ID,KEY=VALUE,...`, in a configuration, and in QMP as "
        '`{"type": KIND, "data": {...}}`. Where QMP has another name, the table has it: `addr (inet) host` is '
        '`{"addr": {"type": "inet", "data": {"host": ...}}}`.'
    )
    rows = {name: dict(_rows(name, kind.options)) for name, kind in KINDS.items()}
    first, *others = rows.values()
    common = {
        name: row for name, row in first.items() if all(other.get(name) == row for other in others)
    }
    for name, kind in KINDS.items():
        page.heading(f"Kind {name}", 3)
        for paragraph in paragraphs_of(kind.options):
            page.paragraph(paragraph)
        if name in NOT_IN_QEMU:
            page.paragraph("QEMU 7.2 does not have this kind.")
        own = {option: row for option, row in rows[name].items() if option not in common}
        _add_options(page, own)
        page.paragraph(f"And [those of all kinds](#{anchor(COMMON)}).")
    page.heading(COMMON, 3)
    _add_options(page, common)
    page.heading("Kinds that QEMU alone has", 3)
    page.paragraph(", ".join(map(code, FOREIGN)) + ": of an emulated machine, or its display.")


def _add_variants(
    page: MarkdownPage, heading: str, usage: str, variants: Mapping[str, type]
) -> None:
    page.heading(heading)
    page.paragraph(f"As `{usage}`, in a configuration, and in QMP with the same names.")
    for name, cls in variants.items():
        page.heading(f"{heading.partition('s,')[0]} {name}", 3)
        for paragraph in paragraphs_of(cls):
            page.paragraph(paragraph)
        _add_options(page, dict(_rows(name, cls)))


Row = tuple[str, str, str, str]


def _rows(kind: str, cls: type) -> Iterator[tuple[str, Row]]:
    """The options of a kind by name, and what only JSON can give."""
    options = {option.path: option for option in options_of(kind, cls).values()}
    for option in sorted(options.values(), key=lambda option: option.name):
        text = option.doc(default_of(kind, option))
        yield option.name, (code(option.name), option.type_name, text, _in_qmp(option))
    given = {path[0].partition(":")[0] for path in options}
    for member in describe(cls):
        if member.name not in given:
            yield member.name, (code(member.name), _json(member), member.doc, "JSON only")


def _json(member: Member) -> str:
    return shown_type(member.value_type)


def _in_qmp(option: Option) -> str:
    steps = [step for step in option.path if step != "N"]
    if steps == [option.name.removesuffix(".N")]:
        return ""
    words = [f"{name} ({variant})" if variant else name for name, _, variant in map(_split, steps)]
    return code(" ".join(words))


def _split(step: str) -> tuple[str, str, str]:
    return step.partition(":")


def _add_options(page: MarkdownPage, rows: Mapping[str, Row]) -> None:
    head = ("option", "type", "", "in QMP")
    if any(row[3] for row in rows.values()):
        page.table(head, rows.values())
    else:
        page.table(head[:3], (row[:3] for row in rows.values()))


def _add_program(page: MarkdownPage, heading: str) -> None:
    page.heading(heading)
    page.paragraph(
        "All but `serve`, `check`, `demo`, `install-units` and `config-from-...` have `--socket`; "
        "[commands](commands.md) says which service that is."
    )
    for name in sorted(cli.commands):
        command = cli.commands[name]
        context = click.Context(command, info_name=name, **CONTEXT)
        pieces = [p for p in command.collect_usage_pieces(context) if p != "[OPTIONS]"]
        page.heading(f"trio-chardev {name}", 3)
        page.paragraph(code(" ".join(["trio-chardev", name, "[OPTIONS]", *pieces])))
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            if paragraph.startswith("\b\n"):
                page.example(inspect.cleandoc(paragraph.removeprefix("\b")))
            else:
                page.paragraph(paragraph)
        records = (
            param.get_help_record(context)
            for param in command.params
            if isinstance(param, click.Option) and param.name != "socket"
        )
        page.table(("option", ""), ((code(record[0]), record[1]) for record in records if record))
    page.heading("Exit statuses", 3)
    page.table(("status", ""), STATUSES)


def _add_errors(page: MarkdownPage, heading: str) -> None:
    page.heading(heading)
    page.paragraph(
        "In Python all are `ChardevError`; *you* are the caller, *they* the device, the peer, the disk. The text is one "
        "line for the user, in QEMU's words where QEMU has any, and in QMP the `desc` of the error."
    )
    errors = [
        value
        for name in trio_chardev.__all__
        if inspect.isclass(value := getattr(trio_chardev, name)) and issubclass(value, ChardevError)
    ]
    page.table(
        ("exception", "is a", ""),
        (
            (
                code(error.__name__),
                ", ".join(code(base.__name__) for base in error.__bases__),
                inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0].replace("``", "`"),
            )
            for error in errors
        ),
    )
    page.paragraph(
        "In QMP each is an error of the class `GenericError`, except `QmpError`, which says its own in `error_class`:"
    )
    page.table(("class", "when"), ((code(name), text) for name, text in ERROR_CLASSES.items()))


def main(file: Path) -> None:
    """Write the page."""
    file.write_text(reference().text())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m trio_chardev.cli.reference FILE")
    main(Path(sys.argv[1]))
