"""``trio-chardev``: the command line. It exits with 1 when something fails, 2 for misuse."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click
import trio

from trio_chardev.cli.demo import demo
from trio_chardev.cli.serve import ServeOptions, serve
from trio_chardev.errors import ChardevError
from trio_chardev.keyval import HelpRequested
from trio_chardev.version import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__)
def cli() -> None:
    """Character devices whose backend can be changed while in use."""


@cli.command("serve")
@click.option(
    "--chardev",
    "chardevs",
    multiple=True,
    metavar="KIND,id=ID[,KEY=VALUE...]",
    help="Add a chardev; 'help' lists the kinds, 'KIND,help' the options of one.",
)
@click.option(
    "--monitor",
    "monitors",
    multiple=True,
    metavar="[chardev=]ID[,pretty=on]",
    help="Have QMP on that chardev, for one client at a time.",
)
@click.option(
    "--qmp",
    "listeners",
    multiple=True,
    metavar="unix:PATH|tcp:HOST:PORT[,OPT...]",
    help="Listen for QMP clients, many at a time.",
)
@click.option("--pidfile", metavar="FILE", help="Write the process id there; removed at exit.")
@click.option("-v", "--verbose", count=True, help="Log more; twice for all.")
def serve_command(
    chardevs: Sequence[str],
    monitors: Sequence[str],
    listeners: Sequence[str],
    pidfile: str | None,
    verbose: int,
) -> None:
    """Hold chardevs and have them driven over QMP, until SIGTERM, SIGINT or 'quit'.

    The options are those of qemu-storage-daemon. Without --monitor and --qmp it listens on
    $XDG_RUNTIME_DIR/trio-chardev/qmp.sock and prints that path.
    """
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    logging.basicConfig(format="trio-chardev: %(message)s", level=level)
    try:
        options = ServeOptions.parse(chardevs, monitors, listeners, pidfile, warn)
        trio.run(serve, options)
    except HelpRequested as request:
        click.echo(ServeOptions.help_text(request.subject))


@cli.command("demo")
@click.option("--changes", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=2017, show_default=True, help="Which backend comes when.")
def demo_command(changes: int, seed: int) -> None:
    """Change a chardev's backend again and again under a stream, and count the bytes."""
    logging.basicConfig(level=logging.CRITICAL)  # failing changes are part of the show
    sys.exit(trio.run(demo, changes, seed))


def warn(text: str) -> None:
    """Tell of something deprecated."""
    click.echo(f"trio-chardev: warning: {text}", err=True)


def main() -> None:
    """The console script: no traceback for a mistake of the user's."""
    try:
        cli.main(prog_name="trio-chardev")
    except ChardevError as exc:
        for line in (str(exc), *getattr(exc, "__notes__", ())):
            click.echo(f"trio-chardev: {line}", err=True)
        sys.exit(1)
