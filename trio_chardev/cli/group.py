"""The group of the commands, and the options that several have.

It imports little, so that small commands start quickly.
"""

from __future__ import annotations

from typing import Any

import click

from trio_chardev.cli.output import say, warn
from trio_chardev.version import __version__

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


class Command(click.Command):
    """A command whose help is printed by `say`, as all other output is."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = print_help
        return option


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command


def print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the help (--help)."""
    if value and not ctx.resilient_parsing:
        say(ctx.get_help())
        ctx.exit()


def print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the version (--version)."""
    if value and not ctx.resilient_parsing:
        say(f"trio-chardev {__version__}")
        ctx.exit()


@click.group(cls=Group, context_settings=CONTEXT)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Character devices whose backend can be changed while in use."""


SOCKET = click.option(
    "-s",
    "--socket",
    metavar="ADDRESS",
    envvar="TRIO_CHARDEV_SOCKET",
    help="PATH, HOST:PORT, unix:PATH, tcp:HOST:PORT or tls:HOST:PORT,dir=DIR of the server; the "
    "default is $TRIO_CHARDEV_SOCKET, or where 'serve' listens without options.",
)


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def load_plugins() -> None:
    """Add installed kinds and drivers, before the grammar is made from the tables."""
    from trio_chardev.plugins import load_installed

    load_installed(warn)
