"""``python -m trio_chardev.cli.manual FOLDER`` writes the manual pages, into ``man1``, ``man5``, ``man8``.

They are made of the texts that --help shows, which are those of the commands and options classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import KINDS
from trio_chardev.cli.group import CONTEXT, cli
from trio_chardev.cli.roff import ManualPage
from trio_chardev.config.configuration import LISTS, LOG, TABLES
from trio_chardev.config.console import BRIDGE_KEYS, CONSOLE_KEYS, LOG_KEYS, OWN_KEYS
from trio_chardev.devices.table import DEVICE
from trio_chardev.options.grammar import option_rows, paragraphs_of
from trio_chardev.service_log.areas import AREAS
from trio_chardev.version import __version__

SERVICE: Final = frozenset({"serve", "check"})
"""The commands of section 8; the others are of section 1."""

STATUSES: Final = (
    ("0", "It was done."),
    ("1", "Something failed, or is wrong; or what `expect` waits for has not come."),
    ("2", "The command line is wrong."),
    ("66", "There is no such configuration."),
    ("130", "ctrl-C ended it; 0 where that is the way to end it, as of `events`."),
)
EXAMPLE: Final = """\
[console.board]
device = "serial,path=/dev/ttyUSB0,speed=115200,hupcl=off"
listen = ["4001,rfc2217=on", "/run/trio-chardev/board.sock"]
history = "256k"
write = "first"
log = { file = "/var/log/trio-chardev/board.log", rotate = "10M" }"""


def pages() -> list[ManualPage]:
    """All pages."""
    return [_commands(), _configuration(), _service()]


def _commands() -> ManualPage:
    assert cli.help is not None
    page = ManualPage("trio-chardev", 1, cli.help.rstrip("."), __version__)
    page.heading("Synopsis")
    page.paragraph("`trio-chardev` COMMAND [OPTIONS] [ARGUMENTS]")
    page.heading("Description")
    page.paragraph(
        "The commands are clients of a service, which is at --socket, or where `serve` listens "
        "without options. What they print is for people, and with --json for programs."
    )
    page.heading("Options of all commands")
    listing = click.Context(cli.commands["list"], **CONTEXT)
    page.items(
        record
        for param in listing.command.get_params(listing)
        if {"--socket", "--help"} & set(param.opts) and (record := param.get_help_record(listing))
    )
    page.heading("Commands")
    for name in sorted(cli.commands.keys() - SERVICE):
        _add_command(page, name)
    _add_end(page, ("trio-chardev.toml(5)", "trio-chardev-serve(8)"))
    return page


def _service() -> ManualPage:
    page = ManualPage("trio-chardev-serve", 8, "the service of trio-chardev", __version__)
    page.heading("Synopsis")
    for name in sorted(SERVICE, reverse=True):
        page.paragraph(f"`trio-chardev {name}` [OPTIONS]")
    page.heading("Description")
    for name in sorted(SERVICE, reverse=True):
        _add_command(page, name)
    _add_end(page, ("trio-chardev(1)", "trio-chardev.toml(5)"))
    return page


def _configuration() -> ManualPage:
    page = ManualPage("trio-chardev.toml", 5, "configuration of trio-chardev", __version__)
    page.heading("Description")
    page.paragraph(
        "A configuration is in TOML, in the files that `serve --config` names, or else the *.toml "
        "of $XDG_CONFIG_HOME/trio-chardev or /etc/trio-chardev and of its conf.d. `trio-chardev "
        "check` says what is wrong; `trio-chardev reload` applies what has changed."
    )
    page.example(EXAMPLE)
    page.heading("Tables and keys")
    page.items(_tables())
    page.heading("Keys of [console.NAME]")
    page.items(OWN_KEYS.items())
    page.paragraph("As of the kind console, below: " + ", ".join(sorted(CONSOLE_KEYS)) + ".")
    page.paragraph("As of the device bridge, below: " + ", ".join(sorted(BRIDGE_KEYS)) + ".")
    page.paragraph("Keys of `log`, and the options that they are:")
    page.items(LOG_KEYS.items())
    page.heading("Keys of [log], about the service's log")
    page.items(LOG.items())
    page.paragraph("Areas that may have a level of their own:")
    page.items((name, area.what) for name, area in AREAS.items())
    _add_kinds(page)
    _add_variants(page, "Devices, by driver", DEVICE.variants)
    _add_variants(page, "Objects, by qom-type", OBJECT.variants)
    page.heading("See also")
    page.paragraph("trio-chardev(1), trio-chardev-serve(8)")
    return page


def _tables() -> Iterator[tuple[str, str]]:
    for name, text in TABLES.items():
        id = "NAME" if name in {"console", "template"} else "ID"
        yield f"[{name}.{id}]", text
    yield from LISTS.items()


def _add_command(page: ManualPage, name: str) -> None:
    command = cli.commands[name]
    context = click.Context(command, info_name=name, **CONTEXT)
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    page.subheading(" ".join([name, *pieces]))
    page.help(command.help or "")
    for param in command.params:  # without --help
        if isinstance(param, click.Option) and param.name != "socket":
            page.items(filter(None, [param.get_help_record(context)]))


def _add_end(page: ManualPage, others: tuple[str, ...]) -> None:
    page.heading("Exit status")
    page.items(STATUSES)
    page.heading("See also")
    page.paragraph(", ".join(others))


def _add_kinds(page: ManualPage) -> None:
    """Add the kinds; what all have is there once."""
    rows = {name: dict(option_rows(name, kind.options)) for name, kind in KINDS.items()}
    first, *others = rows.values()
    common = {
        name: text
        for name, text in first.items()
        if all(other.get(name) == text for other in others)
    }
    page.heading("Chardevs, by kind")
    page.paragraph("Those of all kinds:")
    page.items(sorted(common.items()))
    for name, kind in KINDS.items():
        own = {option: text for option, text in rows[name].items() if option not in common}
        _add_variant(page, name, kind.options, own)


def _add_variants(page: ManualPage, title: str, variants: Mapping[str, type]) -> None:
    page.heading(title)
    for name, cls in variants.items():
        _add_variant(page, name, cls, dict(option_rows(name, cls)))


def _add_variant(page: ManualPage, name: str, cls: type, rows: Mapping[str, str]) -> None:
    page.subheading(name)
    for paragraph in paragraphs_of(cls):
        page.paragraph(paragraph)
    page.items(sorted(rows.items()))


def main(folder: Path) -> None:
    """Write the pages, as man looks for them in *folder*."""
    for page in pages():
        file = folder / f"man{page.section}" / f"{page.name}.{page.section}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page.text())
        print(file)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m trio_chardev.cli.manual FOLDER")
    main(Path(sys.argv[1]))
