"""The table of QMP commands: name -> arguments class and handler.

A handler gets the `Context` of its client and an instance of its arguments class, and returns the
value of ``return``: JSON of the type that its row names. An async handler may wait; it is cancelled
when its client leaves. A user's error is a ChardevError, whose text becomes the ``desc``.
"""

from __future__ import annotations

import functools
import os
from typing import Annotated, Any, Literal

import attrs

from trio_chardev.backends.table import BACKEND, KINDS, NOT_IN_QEMU
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.info import ChardevInfo
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.structure import unstructure
from trio_chardev.qmp.commands.client import CLIENT_COMMANDS
from trio_chardev.qmp.commands.config import CONFIG_COMMANDS
from trio_chardev.qmp.commands.console import CONSOLE_COMMANDS
from trio_chardev.qmp.commands.context import (
    ChardevReturn,
    Command,
    Context,
    Host,
    IdArguments,
    NoArguments,
    rows_of,
)
from trio_chardev.qmp.commands.descriptor import FD_COMMANDS
from trio_chardev.qmp.commands.device import DEVICE_COMMANDS
from trio_chardev.qmp.commands.history import HISTORY_COMMANDS
from trio_chardev.qmp.commands.lending import LENDING_COMMANDS
from trio_chardev.qmp.commands.line import LINE_COMMANDS
from trio_chardev.qmp.commands.log import LOG_COMMANDS
from trio_chardev.qmp.commands.object import OBJECT_COMMANDS
from trio_chardev.qmp.commands.peer import PEER_COMMANDS
from trio_chardev.qmp.commands.ringbuf import RINGBUF_COMMANDS
from trio_chardev.qmp.commands.service_log import SERVICE_LOG_COMMANDS
from trio_chardev.qmp.commands.stats import STATS_COMMANDS
from trio_chardev.qmp.json.codec import Encoded, encode
from trio_chardev.qmp.schema import qmp_schema
from trio_chardev.qmp.server.events import EVENTS
from trio_chardev.qmp.version import VERSION
from trio_chardev.registry import Registry


@attrs.frozen(kw_only=True)
class CapabilitiesArguments:
    """Arguments of qmp_capabilities."""

    enable: tuple[Literal["oob"], ...] = ()
    """`oob` allows commands that are sent out of band."""


@attrs.frozen(kw_only=True)
class BackendArguments:
    """Arguments of chardev-add."""

    id: str
    backend: Annotated[BackendOptions, BACKEND]


@attrs.frozen(kw_only=True)
class ChangeArguments(BackendArguments):
    """Arguments of chardev-change; QEMU has only those of chardev-add."""

    carry: bool = False
    """Pass on what the peer of the old backend has not taken."""
    keep_peer: bool = False
    """Keep a socket's client, at the same address."""
    drain_timeout: float = DRAIN_TIMEOUT
    """Seconds for the peer of the old backend to take its last bytes."""


@attrs.frozen(kw_only=True)
class ChardevDetails:
    """An element of query-chardev-details, which QEMU does not have."""

    label: str
    filename: str
    backend: Annotated[BackendOptions, BACKEND]
    """The backend with the options that it was added or changed with."""
    logfile: str | None = None
    """The path of its log file, from the root; or of a descriptor that was passed."""
    open: bool
    """Is a peer at its other end?"""
    others_wait: bool
    """Are more clients waiting for that peer to leave?"""
    lent: bool
    """Is its device lent? Then `backend` is what it will have again."""
    lent_to: str | None = None
    """The terminal whose user has it."""
    is_used: bool
    users: tuple[str, ...]
    """The ids of the devices, muxes and hubs that use it; a --monitor has no id."""


@attrs.frozen
class VersionTriple:
    """A version of QEMU."""

    major: int
    minor: int
    micro: int


@attrs.frozen
class VersionInfo:
    """What query-version returns."""

    qemu: VersionTriple
    """The version of QEMU whose commands these are."""
    package: str
    """The version of this program."""


@attrs.frozen
class NamedInfo:
    """An element of a list of names."""

    name: str


# ---------------------------------------------------------------- handlers


def qmp_capabilities(context: Context, arguments: CapabilitiesArguments) -> dict[str, Any]:
    """Leave negotiation mode, with the capabilities in `enable`; before it no other command is known."""
    context.session.negotiate(arguments.enable)
    return {}


def query_version(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Show the version of QEMU whose chardevs these are like, and that of this program."""
    return VERSION


def query_commands(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the commands."""
    return [{"name": name} for name in COMMANDS]


def query_qmp_schema(context: Context, arguments: NoArguments) -> Encoded:
    """Describe all commands and events, with their types, as QAPI's introspection."""
    return _schema()


@functools.cache
def _schema() -> Encoded:
    return Encoded(encode(qmp_schema(COMMANDS, EVENTS))[:-2])


def query_chardev(context: Context, arguments: NoArguments) -> Encoded:
    """List the chardevs, as QEMU does."""
    rows = [chardev.row or _row(chardev) for chardev in context.host.registry.values()]
    return Encoded(b"[%b]" % b", ".join(rows))


def _row(chardev: Chardev) -> bytes:
    """Print an element of query-chardev, and keep it until something in it changes."""
    info = unstructure(chardev.info)
    chardev.row = row = encode(info)[:-2]
    return row


async def query_chardev_details(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the chardevs with what QEMU's list lacks."""
    registry = context.host.registry
    users = registry.users
    return await rows_of(
        registry, registry.values(), lambda one: _details(registry, one, users.get(one.id, []))
    )


def _backend_of(options: BackendOptions) -> dict[str, Any]:
    """The ChardevBackend for *options*; a kind that only this program has is in no schema."""
    if any(kind.options is type(options) for kind in KINDS.values()):
        backend: dict[str, Any] = unstructure(options, BACKEND)
        return backend
    return {"type": type(options).__name__, "data": {}}


def _details(registry: Registry, chardev: Chardev, users: list[str]) -> dict[str, Any]:
    is_lent = registry.is_lent(chardev.id)
    logfile = registry.options_of(chardev.id).logfile
    more = {} if logfile is None else {"logfile": _from_root(logfile)}
    if is_lent and chardev.pty is not None:
        more["lent-to"] = chardev.pty
    return {
        "label": chardev.id,
        "filename": chardev.backend.filename,
        "backend": _backend_of(registry.options_of(chardev.id).meant),
        "open": chardev.is_open,
        "others-wait": chardev.backend.peer.others_wait,
        "lent": is_lent,
        "is-used": bool(chardev.frontends),
        "users": users,
        **more,
    }


def _from_root(path: str) -> str:
    """Make *path* absolute."""
    try:
        return os.path.abspath(path)
    except OSError:  # our working directory was removed
        return path


def query_chardev_backends(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the kinds of backend that QEMU has as well."""
    return [{"name": name} for name in KINDS if name not in NOT_IN_QEMU]


async def chardev_add(context: Context, arguments: BackendArguments) -> dict[str, Any]:
    """Add a chardev."""
    host = context.host
    added = await host.registry.add(
        arguments.id, arguments.backend, take_fd=context.fds.take, sandbox=host.sandbox
    )
    await _keep(host, arguments)
    return ChardevReturn.of(added)


async def chardev_change(context: Context, arguments: ChangeArguments) -> dict[str, Any]:
    """Give a chardev another backend; if that fails it keeps the one that it has."""
    host = context.host
    changed = await host.registry.change(
        arguments.id,
        arguments.backend,
        drain_timeout=arguments.drain_timeout,
        carry=arguments.carry,
        keep_peer=arguments.keep_peer,
        take_fd=context.fds.take,
        sandbox=host.sandbox,
    )
    await _keep(host, arguments)
    return ChardevReturn.of(changed)


async def _keep(host: Host, arguments: BackendArguments) -> None:
    if host.state_file.is_kept:
        await host.state_file.keep(
            "chardevs", arguments.id, unstructure(arguments.backend, BACKEND)
        )


async def chardev_remove(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Remove a chardev that nobody uses."""
    host = context.host
    try:
        await host.registry.remove(arguments.id)
    finally:
        if arguments.id not in host.registry:  # removed, even if this was cancelled
            host.state_file.note("chardevs", arguments.id, None)
    await host.state_file.flush()
    return {}


def chardev_send_break(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Send a break to the user of a chardev, as if it came from the other end."""
    context.host.registry.send_break(arguments.id)
    return {}


def quit_(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Stop the service."""
    context.host.quit("host-qmp-quit")
    return {}


# ---------------------------------------------------------------- the table


COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command(CapabilitiesArguments, qmp_capabilities),
    "query-version": Command(NoArguments, query_version, VersionInfo),
    "query-commands": Command(NoArguments, query_commands, tuple[NamedInfo, ...]),
    # SchemaInfo is a union without "data", which no options class is.
    "query-qmp-schema": Command(NoArguments, query_qmp_schema, tuple[Any, ...]),
    "query-chardev": Command(NoArguments, query_chardev, tuple[ChardevInfo, ...]),
    "query-chardev-details": Command(
        NoArguments, query_chardev_details, tuple[ChardevDetails, ...]
    ),
    "query-chardev-backends": Command(NoArguments, query_chardev_backends, tuple[NamedInfo, ...]),
    "chardev-add": Command(BackendArguments, chardev_add, ChardevReturn),
    "chardev-change": Command(ChangeArguments, chardev_change, ChardevReturn),
    "chardev-remove": Command(IdArguments, chardev_remove),
    "chardev-send-break": Command(IdArguments, chardev_send_break),
    **RINGBUF_COMMANDS,
    **LINE_COMMANDS,
    **CONSOLE_COMMANDS,
    **HISTORY_COMMANDS,
    **CLIENT_COMMANDS,
    **LENDING_COMMANDS,
    **LOG_COMMANDS,
    **PEER_COMMANDS,
    **STATS_COMMANDS,
    **FD_COMMANDS,
    **OBJECT_COMMANDS,
    **DEVICE_COMMANDS,
    **CONFIG_COMMANDS,
    **SERVICE_LOG_COMMANDS,
    "quit": Command(NoArguments, quit_),
}
