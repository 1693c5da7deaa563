"""The commands about chardevs and what joins them, with their texts for ``--help``."""

from __future__ import annotations

import click

from trio_chardev.cli import completing
from trio_chardev.cli.group import JSON, SOCKET, command, load_plugins
from trio_chardev.cli.output import say, warn

NEW_ID = click.argument("id")
CHARDEV = click.argument("id", shell_complete=completing.CHARDEVS)
DEVICE = click.argument("id", shell_complete=completing.WITH_DEVICE)
ANY = click.argument("id", shell_complete=completing.ALL)


@command("list")
@SOCKET
@click.option(
    "--devices", "what", flag_value="devices", help="List bridges, listeners ... instead."
)
@click.option("--clients", "what", flag_value="clients", help="List the consoles' clients instead.")
@JSON
def list_command(socket: str | None, what: str | None, as_json: bool) -> None:
    """Print a table of the consoles and other chardevs.

    A console and the device that a bridge joins with it are one row, with one name. STATE says
    whether somebody or something is there, and else in how many seconds it is tried again. On
    a terminal the table is cut to its width.
    """
    from trio_chardev.cli import asking, listing

    asking.run(socket, listing.LISTS[what or "consoles"], as_json)


@command("top", short_help="Show live how consoles and other chardevs fare.")
@SOCKET
@click.argument("id", required=False, shell_complete=completing.ALL)
@click.option("--once", is_flag=True, help="Print one table, with the rates of one interval.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Print so many tables.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two.",
)
@click.option(
    "--sort",
    type=click.Choice(["name", "state", "clients", "from", "to", "behind", "output", "error"]),
    default="name",
    metavar="COLUMN",
    show_default=True,
    help="The order: name, state, clients, from, to, behind, output or error; of numbers the "
    "largest is first.",
)
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@JSON
def top_command(
    socket: str | None,
    id: str | None,
    once: bool,
    count: int | None,
    interval: float,
    sort: str,
    reverse: bool,
    as_json: bool,
) -> None:
    """Show live how the consoles and other chardevs fare, or ID alone.

    FROM/s and TO/s are bytes per second from the device and to it. BEHIND is how many bytes the
    slowest client has yet to get. q or ctrl-C leaves it. When the service restarts, it connects again.
    Where standard input or output is no terminal, or with --once, -n or --json, tables are
    printed instead: one, or as many as -n says.
    """
    import sys

    from trio_chardev.cli import client, top

    wish = top.Wish(name=id, sort=sort, is_reversed=reverse, interval=interval)
    is_live = not (once or count or as_json) and sys.stdin.isatty() and sys.stdout.isatty()
    if is_live:
        top.run_live(socket, wish)
    else:
        client.run(socket, top.snapshots, wish, count or 1, as_json)


@command("show")
@SOCKET
@ANY
@JSON
def show_command(socket: str | None, id: str, as_json: bool) -> None:
    """Print what is known of ID.

    It is a chardev, or a device such as a bridge. Of a console and the device that a bridge joins with it, both are shown.
    """
    from trio_chardev.cli import asking
    from trio_chardev.cli.show import show

    asking.run(socket, show, id, as_json)


@command("add")
@SOCKET
@NEW_ID
@click.argument("backend", metavar="KIND[,KEY=VALUE...]")
@JSON
def add_command(socket: str | None, id: str, backend: str, as_json: bool) -> None:
    """Add the chardev ID.

    Its backend is spelt as in 'serve --chardev', without the id. For a PTY, the path is printed:

    \b
      trio-chardev add board serial,path=/dev/ttyUSB0,speed=115200
      trio-chardev add board-console console,history=256k,write=first
      trio-chardev bridge board board-console

    KIND 'help' lists the kinds, 'KIND,help' the options of one.
    """
    _open_backend(socket, "chardev-add", id, backend, {}, as_json)


@command("change")
@SOCKET
@CHARDEV
@click.argument("backend", metavar="KIND[,KEY=VALUE...]")
@click.option("--carry", is_flag=True, help="Pass on what the old backend's peer has not taken.")
@click.option("--keep-peer", is_flag=True, help="Keep a socket's client, at the same address.")
@click.option(
    "--drain-timeout",
    type=float,
    metavar="SECONDS",
    help="How long the old backend's peer may take for its last bytes; the default is 0.2.",
)
@JSON
def change_command(
    socket: str | None,
    id: str,
    backend: str,
    carry: bool,
    keep_peer: bool,
    drain_timeout: float | None,
    as_json: bool,
) -> None:
    """Give the chardev ID another backend.

    It is spelt as in 'serve --chardev', without the id. For a PTY, the path is printed:

    \b
      trio-chardev change board serial,path=/dev/ttyUSB1
      trio-chardev change board socket,path=board.sock,server=on,wait=off
      trio-chardev change --carry log ringbuf,size=64k

    KIND 'help' lists the kinds, 'KIND,help' the options of one.
    """
    more: dict[str, object] = {}  # a server may not know our extensions, so only those in use
    if carry:
        more["carry"] = True
    if keep_peer:
        more["keep-peer"] = True
    if drain_timeout is not None:
        more["drain-timeout"] = drain_timeout
    _open_backend(socket, "chardev-change", id, backend, more, as_json)


def _open_backend(
    socket: str | None,
    command: str,
    id: str,
    backend: str,
    more: dict[str, object],
    as_json: bool,
) -> None:
    """Run chardev-add or chardev-change, or print the help that *backend* asks for."""
    load_plugins()
    from trio_chardev.cli import asking
    from trio_chardev.cli.change import open_backend, parse_backend
    from trio_chardev.cli.options import GRAMMAR
    from trio_chardev.options.keyval import HelpRequested

    try:
        parsed = parse_backend(id, backend, warn)
    except HelpRequested as request:
        say(GRAMMAR.help_text(request.subject))
        return
    asking.run(socket, open_backend, command, {"id": id, "backend": parsed, **more}, as_json)


@command("remove", short_help="Remove the chardev ID, or a device such as a bridge.")
@SOCKET
@ANY
def remove_command(socket: str | None, id: str) -> None:
    """Remove the chardev ID, or the device, such as a bridge.

    A chardev that is in use can't be removed: remove the bridge first.
    """
    from trio_chardev.cli import asking, control

    asking.run(socket, control.remove, id)


@command("bridge")
@SOCKET
@click.argument("a", shell_complete=completing.CHARDEVS)
@click.argument("b", shell_complete=completing.CHARDEVS)
@click.argument("options", metavar="[KEY=VALUE[,KEY=VALUE...]]", default="")
def bridge_command(socket: str | None, a: str, b: str, options: str) -> None:
    """Join the chardevs A and B.

    A is where the device is, B where its users come. The options are those of 'serve --device bridge'; OPTIONS 'help' lists them. The bridge's id
    is 'A-bridge' if they name none:

    \b
      trio-chardev bridge board board-console when-closed=hold,notice=on
    """
    from trio_chardev.cli import asking

    arguments = {"driver": "bridge", "id": f"{a}-bridge"}
    if options:  # else what a bridge is need not be known, and imported
        from trio_chardev.cli.bridge import help_text, parse_options
        from trio_chardev.options.keyval import HelpRequested

        try:
            arguments |= parse_options(options, warn)
        except HelpRequested:
            say(help_text())
            return
    asking.run(socket, asking.execute, "device_add", {**arguments, "chardev": a, "peer": b})


@command("break", short_help="Send a break to the device ID.")
@SOCKET
@DEVICE
def break_command(socket: str | None, id: str) -> None:
    """Send a break to the device that ID, or its console, leads to."""
    from trio_chardev.cli import asking, control

    asking.run(socket, control.send_break, id)


@command("lend")
@SOCKET
@DEVICE
@click.option("--pty", is_flag=True, help="To the user of a PTY, whose path is printed.")
@JSON
def lend_command(socket: str | None, id: str, pty: bool, as_json: bool) -> None:
    """Lend the device ID to another program.

    Its users and its console stay. It is closed, until 'return'. With --pty it stays open, for the program that uses the PTY,
    and is back when that closes it.
    """
    from trio_chardev.cli import asking, control

    asking.run(socket, control.lend, id, pty, as_json)


@command("return")
@SOCKET
@DEVICE
@JSON
def return_command(socket: str | None, id: str, as_json: bool) -> None:
    """Take the device ID back that was lent."""
    from trio_chardev.cli import asking, control

    asking.run(socket, control.on_device, "chardev-return", id, as_json)


@command("retry")
@SOCKET
@DEVICE
def retry_command(socket: str | None, id: str) -> None:
    """Try now to open or connect the device ID."""
    from trio_chardev.cli import asking, control

    asking.run(socket, control.on_device, "chardev-retry", id)


@command("reload", short_help="Apply what the service's configuration says now.")
@SOCKET
@JSON
def reload_command(socket: str | None, as_json: bool) -> None:
    """Read the service's configuration again, and apply what has changed, all of it or nothing.

    What has not changed is not touched. If something is wrong, or can't be applied, all is as before.
    """
    from trio_chardev.cli import asking, control

    asking.run(socket, control.reload, as_json)


@command("reopen-logs")
@SOCKET
@click.argument("id", required=False, shell_complete=completing.CHARDEVS)
def reopen_logs_command(socket: str | None, id: str | None) -> None:
    """Open the log file of ID, or all, anew.

    That is for the time after a rotation. When it is done, the old files can be compressed.
    """
    from trio_chardev.cli import asking

    asking.run(socket, asking.execute, "chardev-reopen-log", {} if id is None else {"id": id})
