"""The command ``attach``, with its texts for ``--help``."""

from __future__ import annotations

import click

from trio_chardev.cli import completing
from trio_chardev.cli.group import SOCKET, command


@command("attach", short_help="Be a terminal at the console ID.")
@SOCKET
@click.argument("name", metavar="ID", shell_complete=completing.WITH_CONSOLE)
@click.option("-r", "--read-only", is_flag=True, help="Only watch.")
@click.option(
    "--replay",
    metavar="on|off|N|MARK",
    help="What of the history is shown first: all, nothing, the last N lines, or from a mark on; "
    "the default is what the console says.",
)
@click.option("--take", is_flag=True, help="Take the right to write.")
@click.option(
    "--escape",
    metavar="^X|none",
    default="^]",
    show_default=True,
    help="The key before a command.",
)
@click.option(
    "--linger",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it has to be silent after the end of a pipe at standard input.",
)
def attach_command(
    socket: str | None,
    name: str,
    read_only: bool,
    replay: str | None,
    take: bool,
    escape: str,
    linger: float,
) -> None:
    """Be a terminal at the console ID, or at the console of the device ID.

    ctrl-] d leaves it, and ctrl-] ? shows what else ctrl-] can do. When the service restarts, it
    connects again and goes on where it was. If standard input is no terminal, it is sent, and
    what the device says is printed until it is silent.
    """
    from trio_chardev.cli import attach
    from trio_chardev.cli.attach_session import Wish
    from trio_chardev.errors import OptionsError
    from trio_chardev.protocols.attach_menu import parse_escape

    try:
        code = parse_escape(escape)
    except OptionsError as exc:
        raise click.UsageError(str(exc)) from exc
    wish = Wish(name=name, role="read-only" if read_only else "write", replay=replay, takes=take)
    attach.run(socket, wish, code, linger)
