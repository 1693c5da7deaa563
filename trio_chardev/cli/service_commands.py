"""The commands about the service itself and setting it up, with their texts for ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from trio_chardev.cli.errors import print_error
from trio_chardev.cli.group import JSON, SOCKET, command, load_plugins
from trio_chardev.cli.inherited import Inherited
from trio_chardev.cli.output import say, warn
from trio_chardev.plain_errors import ChardevError

CONFIG = click.option(
    "--config",
    "config",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="A configuration in TOML, or a folder with such files; may be given several times. The "
    "default is $XDG_CONFIG_HOME/trio-chardev, or else /etc/trio-chardev; for a service of systemd "
    "it is $CONFIGURATION_DIRECTORY.",
)


@command("serve", short_help="Run chardevs that QMP clients control.")
@CONFIG
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
    metavar="[chardev=]ID[,pretty=on][,insecure=on]",
    help="Serve QMP on that chardev, to one client at a time.",
)
@click.option(
    "--qmp",
    "listeners",
    multiple=True,
    metavar="unix:PATH|tcp:HOST:PORT|fd:NAME[,OPT...]",
    help="Listen for QMP clients, many at a time.",
)
@click.option(
    "--object",
    "objects",
    multiple=True,
    metavar="QOM-TYPE,id=ID[,KEY=VALUE...]",
    help="Make TLS credentials (tls-creds-x509, tls-creds-psk), a secret, an access list "
    "(authz-list), or a monitor (monitor-qmp).",
)
@click.option(
    "--sandbox",
    multiple=True,
    metavar="DIR",
    help="Let QMP clients name only paths in DIR, or DIR itself; may be given several times.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DRIVER[,id=ID][,KEY=VALUE...]",
    help="Make a user of chardevs, such as a bridge between two; 'help' lists the drivers.",
)
@click.option(
    "--metrics",
    "metrics",
    multiple=True,
    metavar="[HOST:]PORT|unix:PATH|fd:NAME[,OPT...]",
    help="Serve metrics for Prometheus at http://ADDRESS/metrics; 'help' lists the options.",
)
@click.option(
    "--echr",
    metavar="NUMBER",
    help="The escape character of muxes, instead of 1 (ctrl-a); with h it lists the commands.",
)
@click.option(
    "--state",
    metavar="FILE",
    help="Keep what QMP clients add, change and remove in FILE, and restore it at the next start. "
    "The default for a service of systemd is $STATE_DIRECTORY/state.json.",
)
@click.option("--pidfile", metavar="FILE", help="Write the process id to FILE; removed at exit.")
@click.option(
    "--log-level",
    metavar="[LEVEL][,AREA=LEVEL...]",
    help="Log from this level on: error, warning, notice (the default), info (who comes and goes) "
    "or debug (each QMP command); and for some areas from another, such as notice,console=info.",
)
@click.option(
    "--log-format",
    type=click.Choice(("auto", "text", "json", "journal")),
    help="How the log is written: text (key=value), json (an object a line), or journal (to that of "
    "systemd, with fields). Without it, and with auto, it is what standard error leads to.",
)
@click.option(
    "--qmp-trace",
    metavar="FILE",
    help="Write each QMP message to FILE, as JSON lines, without secrets.",
)
@click.option("-v", "--verbose", count=True, help="--log-level info; twice: debug.")
@click.pass_obj
def serve_command(
    inherited: Inherited,
    config: Sequence[str],
    chardevs: Sequence[str],
    monitors: Sequence[str],
    listeners: Sequence[str],
    objects: Sequence[str],
    sandbox: Sequence[str],
    devices: Sequence[str],
    metrics: Sequence[str],
    echr: str | None,
    state: str | None,
    pidfile: str | None,
    log_level: str | None,
    log_format: str | None,
    qmp_trace: str | None,
    verbose: int,
) -> None:
    """Run chardevs that QMP clients control, until SIGTERM, SIGINT or 'quit'.

    The options are those of qemu-storage-daemon, and --config. Without any that says what to serve
    it is the default configuration, if there is one. Without --monitor and --qmp it listens on
    $XDG_RUNTIME_DIR/trio-chardev/qmp.sock and prints that path; for a service of systemd that is the
    socket called 'qmp' if there is one, or else $RUNTIME_DIRECTORY/qmp.sock. SIGUSR2 opens log files anew; with a configuration SIGHUP reloads it.
    """
    load_plugins()
    from trio_chardev.cli.options import ServeOptions
    from trio_chardev.cli.running import run
    from trio_chardev.cli.serve import serve
    from trio_chardev.cli.service_log import printing_in_background
    from trio_chardev.options.keyval import HelpRequested
    from trio_chardev.service_log.options import LogOptions
    from trio_chardev.systemd import made_by_systemd

    if verbose and log_level is not None:
        raise click.UsageError("-v and --log-level are the same: give one of them")
    if verbose:
        log_level = "info" if verbose == 1 else "debug"
    try:
        log = LogOptions.parse(log_level, log_format)
    except ChardevError as exc:
        raise click.BadParameter(str(exc), param_hint="--log-level") from exc
    try:
        with printing_in_background(log) as service_log:
            folder = made_by_systemd("STATE")
            state_path = str(folder / "state.json") if state is None and folder else state
            is_told = chardevs or monitors or listeners or objects or devices
            takes_files = bool(config or not is_told)

            def parse() -> ServeOptions:
                configuration = None
                if takes_files:
                    from trio_chardev.config.configuration import read_configuration

                    configuration = read_configuration(config)
                return ServeOptions.parse(
                    chardevs,
                    monitors,
                    listeners,
                    pidfile,
                    warn,
                    objects,
                    sandbox,
                    devices,
                    echr,
                    state_path,
                    inherited,
                    configuration,
                    log,
                    qmp_trace,
                    metrics,
                )

            options = parse()
            service_log.apply(options.log)
            run(serve, options, parse if config or options.files else None, service_log)
    except HelpRequested as request:
        say(ServeOptions.help_text(request))


@command("check")
@CONFIG
@click.pass_obj
def check_command(inherited: Inherited, config: Sequence[str]) -> None:
    """Check a configuration, without opening anything.

    All that is wrong is printed, with file and line, and the exit status is 1; it is 66 if there is
    no such file.
    """
    load_plugins()
    from trio_chardev.cli.check import STATUS_OF_NO_FILE, check
    from trio_chardev.config.files import NoSuchFileError

    try:
        check(config, inherited)
    except NoSuchFileError as exc:
        print_error(exc)
        sys.exit(STATUS_OF_NO_FILE)


@command("config-from-ser2net", short_help="Convert a configuration of ser2net.")
@click.argument("file", type=click.Path())
def config_from_ser2net_command(file: str) -> None:
    """Print a configuration that does what one of ser2net's does.

    FILE is a ser2net.yaml, or a ser2net.conf of older versions. What can't be converted is listed
    on standard error, with file, line and reason, and the exit status is 1; it is 66 if there is no
    such file. YAML needs PyYAML, as 'pip install trio-chardev[convert]' brings.
    """
    from trio_chardev.cli.convert import print_converted
    from trio_chardev.convert.ser2net_file import convert

    print_converted(convert, file)


@command("config-from-conserver", short_help="Convert a configuration of conserver.")
@click.argument("file", type=click.Path())
def config_from_conserver_command(file: str) -> None:
    """Print a configuration that does what one of conserver's does.

    FILE is a conserver.cf. What can't be converted is listed on standard error, with file, line and
    reason, and the exit status is 1; it is 66 if there is no such file. The consoles have no
    listeners: 'trio-chardev attach' is what conserver's console is.
    """
    from trio_chardev.cli.convert import print_converted
    from trio_chardev.convert.conserver import convert

    print_converted(convert, file)


@command("install-units")
@click.option("--user", "for_user", is_flag=True, help="Install a unit for your own services.")
@click.option(
    "--root", default="", metavar="DIR", help="Install below DIR, for a package or an image."
)
@click.option("--force", is_flag=True, help="Replace files that differ.")
def install_units_command(for_user: bool, root: str, force: bool) -> None:
    """Install units for systemd.

    With the unit of the system come a socket, the user trio-chardev, the folder /run/trio-chardev
    and the rotation of logs. The files have the path of this program. They are in /etc, or with
    --user in $XDG_CONFIG_HOME/systemd/user; what to do then is printed.
    """
    from trio_chardev.cli.units import install_units

    install_units(root, for_user=for_user, force=force)


@command("qmp")
@SOCKET
@click.argument("command")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE|JSON]...")
def qmp_command(socket: str | None, command: str, words: Sequence[str]) -> None:
    """Run a QMP command and print what it returns.

    With '-' it is those in standard input. It is printed as JSON, indented on a terminal, else in one line. A VALUE is a string where
    the server's schema has one; else it is parsed as JSON if it is valid; dots nest; a JSON
    object is merged with the rest:

    \b
      trio-chardev qmp chardev-add id=l backend.type=file backend.data.out=/tmp/l
      trio-chardev qmp ringbuf-read device=console size=1024
      trio-chardev qmp chardev-remove '{"id": "log"}'
      trio-chardev qmp - < commands

    In standard input each line is a COMMAND with its words, as a shell would split it, or an
    object of JSON as QMP has it; it ends with the first that fails. An error from the server is
    printed as 'CLASS: TEXT', and the exit status is 1.
    """
    if command == "-":
        if words:
            raise click.UsageError("'-' takes no words")
        from trio_chardev.cli import client, qmp

        client.run(socket, qmp.run_script, in_qmp=True)
        return
    from trio_chardev.cli import asking
    from trio_chardev.cli.qmp_command import run_command
    from trio_chardev.cli.words import parse_arguments

    asking.run(socket, run_command, command, parse_arguments(words), in_qmp=True)


@command("version", short_help="Print the versions of this program and the service.")
@SOCKET
@JSON
def version_command(socket: str | None, as_json: bool) -> None:
    """Print the versions of this program and of the service."""
    from trio_chardev.cli import version

    version.show(socket, as_json)


@command("events", short_help="Print QMP events, until interrupted.")
@SOCKET
def events_command(socket: str | None) -> None:
    """Print QMP events, a line of JSON each, until interrupted."""
    from trio_chardev.cli import client, qmp

    client.run(socket, qmp.print_events, negotiate=False, status_of_interrupt=0, in_qmp=True)


@command("demo", short_help="Change a console again and again; count the bytes.")
@click.option(
    "--changes",
    default=50,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="How many.",
)
@click.option("--seed", default=2017, show_default=True, help="Chooses the order of the backends.")
def demo_command(changes: int, seed: int) -> None:
    """Change a console again and again, and count the bytes."""
    import logging

    from trio_chardev.cli.demo import demo
    from trio_chardev.cli.running import run_until_signal

    logging.basicConfig(level=logging.CRITICAL)  # failing changes are part of the show
    sys.exit(run_until_signal(lambda: demo(changes, seed)))
