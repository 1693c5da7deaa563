"""The commands that add, change, remove and show chardevs."""

from __future__ import annotations

import os
from typing import Annotated, Any

import attrs

from trio_chardev.backends.table import BACKEND, KINDS, NOT_IN_QEMU, name_in_use
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.info import ChardevInfo
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.members import flat_json
from trio_chardev.qmp.commands.context import (
    ChardevReturn,
    Command,
    Context,
    Host,
    IdArguments,
    NamedInfo,
    NoArguments,
    rows_of,
)
from trio_chardev.qmp.json.codec import Encoded, encode
from trio_chardev.registry import Registry


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


def query_chardev(context: Context, arguments: NoArguments) -> Encoded:
    """List the chardevs, as QEMU does."""
    rows = [chardev.row or _row(chardev) for chardev in context.host.registry.values()]
    return Encoded(b"[%b]" % b", ".join(rows))


def _row(chardev: Chardev) -> bytes:
    """Print an element of query-chardev, and keep it until something in it changes."""
    chardev.row = row = encode(flat_json(chardev.info))[:-2]
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
    if name_in_use(options) is not None:
        from trio_chardev.options.unstructure import unstructure

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
        from trio_chardev.options.unstructure import unstructure

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


CHARDEV_COMMANDS: dict[str, Command] = {
    "query-chardev": Command(NoArguments, query_chardev, tuple[ChardevInfo, ...]),
    "query-chardev-details": Command(
        NoArguments, query_chardev_details, tuple[ChardevDetails, ...]
    ),
    "query-chardev-backends": Command(NoArguments, query_chardev_backends, tuple[NamedInfo, ...]),
    "chardev-add": Command(BackendArguments, chardev_add, ChardevReturn),
    "chardev-change": Command(ChangeArguments, chardev_change, ChardevReturn),
    "chardev-remove": Command(IdArguments, chardev_remove),
    "chardev-send-break": Command(IdArguments, chardev_send_break),
}
