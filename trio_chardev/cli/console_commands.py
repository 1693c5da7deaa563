"""The commands about consoles and their clients, with their texts for ``--help``."""

from __future__ import annotations

import click

from trio_chardev.cli import completing
from trio_chardev.cli.group import JSON, SOCKET, command

ID = click.argument("id", shell_complete=completing.WITH_CONSOLE)


@command("clients", short_help="Print a table of the clients of consoles.")
@SOCKET
@click.argument("id", required=False, shell_complete=completing.WITH_CONSOLE)
@JSON
def clients_command(socket: str | None, id: str | None, as_json: bool) -> None:
    """Print a table of the clients of the console ID, or of all.

    SENT counts the bytes that a client has got, BEHIND those that it has yet to get.
    """
    from trio_chardev.cli import asking, listing

    asking.run(socket, listing.list_clients, as_json, id)


@command("send")
@SOCKET
@ID
@click.argument("text", required=False)
@click.option("--cursor", is_flag=True, help="Print where the answer begins, for 'expect --since'.")
@JSON
def send_command(
    socket: str | None, id: str, text: str | None, cursor: bool, as_json: bool
) -> None:
    """Type TEXT, or standard input, at the console ID.

    In TEXT, but not in standard input, \\r, \\n, \\t, \\\\ and \\xNN are escapes; an end of line
    is \\r, as at a keyboard. The text counts as a client's: if another has the right to write, or no
    device is there, nothing is sent, and the exit status is 1.

    \b
      trio-chardev send board 'root\\r'
      at=$(trio-chardev send board 'uname -r\\r' --cursor)
      trio-chardev expect board '[0-9]+[.][0-9]+' --since $at
    """
    from trio_chardev.cli import client
    from trio_chardev.cli.send import send
    from trio_chardev.options.escapes import unescape

    try:
        data = None if text is None else unescape(text)
    except ValueError as exc:
        raise click.UsageError(f"TEXT {exc}") from exc
    client.run(socket, send, id, data, show_cursor=cursor, as_json=as_json)


@command("expect")
@SOCKET
@ID
@click.argument("pattern")
@click.option("-F", "--fixed", is_flag=True, help="PATTERN is text with escapes, as of 'send'.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    metavar="SECONDS",
    show_default=True,
    help="How long to wait.",
)
@click.option("--since", metavar="MARK|CURSOR", help="Look at what came since then, too.")
@JSON
def expect_command(
    socket: str | None,
    id: str,
    pattern: str,
    fixed: bool,
    timeout: float,
    since: str | None,
    as_json: bool,
) -> None:
    """Wait until the console ID has printed PATTERN.

    PATTERN is a regular expression, as Python's. What came is printed, up to the end of the match. The exit status is 0 if it has come, and 1
    if not, within the time. It looks at what comes from now on: to answer fast devices, give
    --since what 'send --cursor' has printed, or 'next' of an earlier --json.

    \b
      trio-chardev expect board 'login:' --timeout 60 &&
          trio-chardev send board 'root\\r'
    """
    import re

    from trio_chardev.cli import client
    from trio_chardev.cli.expecting import wait_for
    from trio_chardev.options.escapes import unescape

    try:
        raw = re.escape(unescape(pattern)) if fixed else pattern.encode("utf-8", "surrogateescape")
        compiled = re.compile(raw)
    except (re.error, ValueError) as exc:
        raise click.UsageError(f"PATTERN {exc}") from exc
    client.run(socket, wait_for, id, compiled, timeout=timeout, since=since, as_json=as_json)


@command("history")
@SOCKET
@ID
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--since", metavar="MARK|CURSOR", help="Begin there; the default is the oldest byte.")
@click.option(
    "--max",
    "most",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Of what there is, print only the last BYTES.",
)
@JSON
def history_command(
    socket: str | None,
    id: str,
    follow: bool,
    since: str | None,
    most: int | None,
    as_json: bool,
) -> None:
    """Print what the console ID has printed.

    It is printed as it came; on a terminal, without what would make it answer. Marks are made by
    'mark', and by themselves, such as 'changed' and 'gone'. A CURSOR counts the bytes that the
    console has printed; one below 0 counts from the end. With --json, 'next' is the cursor for
    the next --since, so that no byte comes twice.

    \b
      trio-chardev history board --since changed
      trio-chardev history board -f --max 1000
    """
    from trio_chardev.cli import asking
    from trio_chardev.cli.history import history

    asking.run(
        socket,
        history,
        id,
        since=since,
        most=most,
        follow=follow,
        as_json=as_json,
    )


@command("logs")
@SOCKET
@click.argument("id", shell_complete=completing.ALL)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), metavar="N", help="Print only the last so many lines."
)
def logs_command(socket: str | None, id: str, follow: bool, lines: int | None) -> None:
    """Print the log file of ID, as it is.

    It is that of the chardev ID, or else of the console, or the device, that ID means. Where
    'history' prints what the console keeps, this has what logfile=FILE keeps: as far back as the
    file goes, in its format. Files that were rotated are followed, and not printed again. The
    service has to be of this machine.

    \b
      trio-chardev logs board --lines 20 -f
    """
    from trio_chardev.cli import asking
    from trio_chardev.cli.logs import logs

    asking.run(socket, logs, id, lines=lines, follow=follow)


@command("mark")
@SOCKET
@ID
@click.argument("name")
@JSON
def mark_command(socket: str | None, id: str, name: str, as_json: bool) -> None:
    """Give this place in the output of ID a NAME.

    Its cursor is printed. ID is a console.
    """
    from trio_chardev.cli import asking, control

    asking.run(socket, control.mark, id, name, as_json)


@command("kick")
@SOCKET
@ID
@click.argument("client", type=int)
@click.option("--reason", metavar="TEXT", help="The client is told this.")
def kick_command(socket: str | None, id: str, client: int, reason: str | None) -> None:
    """Let the CLIENT of the console ID go.

    'clients' shows their numbers.
    """
    from trio_chardev.cli import asking, control

    more = {} if reason is None else {"reason": reason}
    asking.run(socket, control.on_client, "chardev-kick", id, client, more)


@command("give")
@SOCKET
@ID
@click.argument("client", type=int)
def give_command(socket: str | None, id: str, client: int) -> None:
    """Give the CLIENT of the console ID the right to write.

    That is for consoles where not all have it: write=first and write=one.
    """
    from trio_chardev.cli import asking, control

    asking.run(socket, control.on_client, "chardev-give-write", id, client, {})
