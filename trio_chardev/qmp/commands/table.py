"""The table of QMP commands: name -> arguments class and handler.

A handler gets the `Context` of its client and an instance of its arguments class, and returns the
value of ``return``: JSON of the type that its row names. An async handler may wait; it is cancelled
when its client leaves. A user's error is a ChardevError, whose text becomes the ``desc``.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from trio_chardev.options.lazy import LazyTable
from trio_chardev.qmp.commands.context import Command, Context, NamedInfo, NoArguments
from trio_chardev.qmp.json.codec import Encoded, encode
from trio_chardev.qmp.server.events import EVENTS
from trio_chardev.workers import NoThreadError, run_in_worker

COMMANDS: LazyTable[Command] = LazyTable.of_groups(
    {
        "trio_chardev.qmp.commands.session:SESSION_COMMANDS": (
            "qmp_capabilities",
            "query-version",
            "quit",
        ),
        "trio_chardev.qmp.commands.table:TABLE_COMMANDS": ("query-commands", "query-qmp-schema"),
        "trio_chardev.qmp.commands.chardev:CHARDEV_COMMANDS": (
            "query-chardev",
            "query-chardev-details",
            "query-chardev-backends",
            "chardev-add",
            "chardev-change",
            "chardev-remove",
            "chardev-send-break",
        ),
        "trio_chardev.qmp.commands.ringbuf:RINGBUF_COMMANDS": ("ringbuf-write", "ringbuf-read"),
        "trio_chardev.qmp.commands.line:LINE_COMMANDS": (
            "chardev-get-line",
            "chardev-set-line",
            "chardev-line-sequence",
            "chardev-window-size-changed",
        ),
        "trio_chardev.qmp.commands.console:CONSOLE_COMMANDS": (
            "chardev-attach",
            "query-clients",
            "chardev-kick",
            "chardev-give-write",
        ),
        "trio_chardev.qmp.commands.history:HISTORY_COMMANDS": (
            "chardev-history",
            "chardev-mark",
            "query-marks",
        ),
        "trio_chardev.qmp.commands.client:CLIENT_COMMANDS": (
            "chardev-client-size",
            "chardev-client-break",
        ),
        "trio_chardev.qmp.commands.lending:LENDING_COMMANDS": ("chardev-lend", "chardev-return"),
        "trio_chardev.qmp.commands.log:LOG_COMMANDS": ("chardev-reopen-log",),
        "trio_chardev.qmp.commands.peer:PEER_COMMANDS": ("chardev-recheck-peers",),
        "trio_chardev.qmp.commands.stats:STATS_COMMANDS": ("query-chardev-stats", "chardev-retry"),
        "trio_chardev.qmp.commands.descriptor:FD_COMMANDS": (
            "getfd",
            "closefd",
            "add-fd",
            "remove-fd",
            "query-fdsets",
            "add_client",
            "query-yank",
            "yank",
        ),
        "trio_chardev.qmp.commands.object:OBJECT_COMMANDS": ("object-add", "object-del"),
        "trio_chardev.qmp.commands.device:DEVICE_COMMANDS": (
            "device_add",
            "device_del",
            "query-devices",
        ),
        "trio_chardev.qmp.commands.config:CONFIG_COMMANDS": ("config-reload",),
        "trio_chardev.qmp.commands.service_log:SERVICE_LOG_COMMANDS": (
            "log-level-set",
            "query-log-level",
        ),
    }
)
"""Each module of commands is imported when one of its commands is used."""


def query_commands(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the commands."""
    return [{"name": name} for name in COMMANDS]


async def query_qmp_schema(context: Context, arguments: NoArguments) -> Encoded:
    """Describe all commands and events, with their types, as QAPI's introspection."""
    if not make_schema.cache_info().currsize:  # it imports all modules that the tables name
        with contextlib.suppress(NoThreadError):
            return await run_in_worker(make_schema)
    return make_schema()


@functools.cache
def make_schema() -> Encoded:
    """Make the schema of all commands and events, once."""
    from trio_chardev.qmp.schema import qmp_schema

    return Encoded(encode(qmp_schema(COMMANDS, EVENTS))[:-2])


TABLE_COMMANDS: dict[str, Command] = {
    "query-commands": Command(NoArguments, query_commands, tuple[NamedInfo, ...]),
    # SchemaInfo is a union without "data", which no options class is.
    "query-qmp-schema": Command(NoArguments, query_qmp_schema, tuple[Any, ...]),
}
"""The rows of this module."""
