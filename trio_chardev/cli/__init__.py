"""``trio-chardev``: the command line. It exits with 1 when something fails, 2 for misuse.

A command is imported when it is used, and what it needs when it runs, so that small commands start
quickly.
"""

from __future__ import annotations

import gc
import sys

import click

from trio_chardev.cli.errors import status_of
from trio_chardev.cli.group import cli
from trio_chardev.cli.inherited import Inherited, fill_standard
from trio_chardev.options.lazy import LazyTable

__all__ = ["cli", "main"]

COMMANDS: LazyTable[click.Command] = LazyTable(
    {
        "attach": "trio_chardev.cli.attach_command:attach_command",
        "list": "trio_chardev.cli.chardev_commands:list_command",
        "top": "trio_chardev.cli.chardev_commands:top_command",
        "show": "trio_chardev.cli.chardev_commands:show_command",
        "add": "trio_chardev.cli.chardev_commands:add_command",
        "change": "trio_chardev.cli.chardev_commands:change_command",
        "remove": "trio_chardev.cli.chardev_commands:remove_command",
        "bridge": "trio_chardev.cli.chardev_commands:bridge_command",
        "break": "trio_chardev.cli.chardev_commands:break_command",
        "lend": "trio_chardev.cli.chardev_commands:lend_command",
        "return": "trio_chardev.cli.chardev_commands:return_command",
        "retry": "trio_chardev.cli.chardev_commands:retry_command",
        "reload": "trio_chardev.cli.chardev_commands:reload_command",
        "reopen-logs": "trio_chardev.cli.chardev_commands:reopen_logs_command",
        "clients": "trio_chardev.cli.console_commands:clients_command",
        "send": "trio_chardev.cli.console_commands:send_command",
        "expect": "trio_chardev.cli.console_commands:expect_command",
        "history": "trio_chardev.cli.console_commands:history_command",
        "logs": "trio_chardev.cli.console_commands:logs_command",
        "mark": "trio_chardev.cli.console_commands:mark_command",
        "kick": "trio_chardev.cli.console_commands:kick_command",
        "give": "trio_chardev.cli.console_commands:give_command",
        "serve": "trio_chardev.cli.service_commands:serve_command",
        "check": "trio_chardev.cli.service_commands:check_command",
        "config-from-ser2net": "trio_chardev.cli.service_commands:config_from_ser2net_command",
        "config-from-conserver": "trio_chardev.cli.service_commands:config_from_conserver_command",
        "install-units": "trio_chardev.cli.service_commands:install_units_command",
        "qmp": "trio_chardev.cli.service_commands:qmp_command",
        "version": "trio_chardev.cli.service_commands:version_command",
        "events": "trio_chardev.cli.service_commands:events_command",
        "demo": "trio_chardev.cli.service_commands:demo_command",
    }
)

cli.commands = COMMANDS  # type: ignore[assignment] # as none is added to the group


def main() -> None:
    """Run the console script: the user's mistakes, and closed outputs, give no traceback."""
    gc.disable()  # until Trio runs: what is imported stays, so there is nothing to be found
    inherited = Inherited.found()  # before anything is opened
    fill_standard()
    try:
        status = cli.main(prog_name="trio-chardev", standalone_mode=False, obj=inherited)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as exc:
        status = status_of(exc)
    gc.freeze()  # nor when all is let go
    sys.exit(status)
