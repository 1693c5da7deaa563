"""The group of the commands, and the options that several have.

It imports little, so that small commands start quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from trio_chardev.cli.output import say, warn
from trio_chardev.version import __version__

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Consoles": (
        *("attach", "history", "logs", "send", "expect", "mark", "clients", "give", "kick"),
    ),
    "Chardevs and what joins them": (
        *("list", "show", "top", "add", "change", "bridge", "remove"),
        *("break", "retry", "lend", "return", "reopen-logs"),
    ),
    "The service": ("serve", "check", "reload", "qmp", "events", "version"),
    "Setting up": ("install-units", "config-from-conserver", "config-from-ser2net", "demo"),
}
"""The commands, as ``--help`` shows them; those that plugins add come last."""

_HYPHEN: Final = "\u2011"  # one at which no line is broken


class Formatter(click.HelpFormatter):
    """Formats help, without breaking words such as ``--read-only`` at a hyphen."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(_unbroken(prog), _unbroken(args), prefix)

    def write_text(self, text: str) -> None:
        super().write_text(_unbroken(text))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl([(_unbroken(a), _unbroken(b)) for a, b in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace(_HYPHEN, "-")


def _unbroken(text: str) -> str:
    return text.replace("-", _HYPHEN)


class Context(click.Context):
    """A context whose help such a formatter formats."""

    formatter_class = Formatter


class Command(click.Command):
    """A command whose help is printed by `say`, as all other output is."""

    context_class = Context

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = print_help
        return option


class Group(Command, click.Group):
    """A group of such commands."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, each with a line that is not cut."""
        shown = {name for names in SECTIONS.values() for name in names}
        more = tuple(name for name in self.list_commands(ctx) if name not in shown)
        width = max(map(len, self.commands))
        for title, names in (*SECTIONS.items(), ("More", more)):
            rows = [(f"{name:{width}}", _line_of(self.commands[name])) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _line_of(command: click.Command) -> str:
    return command.short_help or (command.help or "").partition("\n")[0]


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


def command(
    name: str, *, short_help: str | None = None
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function, as `click.command` does."""
    return click.command(name, cls=Command, short_help=short_help)


SOCKET = click.option(
    "-s",
    "--socket",
    metavar="ADDRESS",
    envvar="TRIO_CHARDEV_SOCKET",
    help="The service: PATH, HOST:PORT or tls:HOST:PORT,dir=DIR; the default is "
    "$TRIO_CHARDEV_SOCKET, or where 'serve' listens without options.",
)


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def load_plugins() -> None:
    """Add installed kinds and drivers, before the grammar is made from the tables."""
    from trio_chardev.plugins import load_installed

    load_installed(warn)
