"""``trio-chardev qmp COMMAND``: one command of QMP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trio_chardev.cli.asking import Service
from trio_chardev.cli.output import say_json
from trio_chardev.cli.schema import Schema, needs_schema, settle

SCHEMA: Final = "query-qmp-schema"
"""The command that says what arguments the commands have."""


def run_command(service: Service, name: str, arguments: dict[str, Any]) -> None:
    """Run a command and print its result as JSON. *arguments* are those of `parse_arguments`."""
    settle_by(service.ask_if_known(SCHEMA) if needs_schema(arguments) else None, arguments, name)
    say_json(service.execute(name, arguments))


def settle_by(
    entities: Sequence[dict[str, Any]] | None, arguments: dict[str, Any], name: str
) -> None:
    """Make values of what could be a string or JSON, by a server's schema; by ours, if it has none."""
    if not needs_schema(arguments):
        settle(arguments, None, name)
        return
    if entities is None:
        from trio_chardev.qmp.commands.table import COMMANDS
        from trio_chardev.qmp.schema import qmp_schema
        from trio_chardev.qmp.server.events import EVENTS

        entities = qmp_schema(COMMANDS, EVENTS)
    settle(arguments, Schema(entities), name)
