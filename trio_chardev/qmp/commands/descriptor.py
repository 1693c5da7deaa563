"""QMP commands about file descriptors and the connections of sockets."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.rights import close_socket
from trio_chardev.backends.socket.socket import SocketBackend
from trio_chardev.errors import BackendError
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.server.descriptors import AddfdInfo, FdsetInfo, close_quietly
from trio_chardev.qmp.server.session import QmpError


@attrs.frozen(kw_only=True)
class FdnameArguments:
    """Arguments of getfd and closefd."""

    fdname: str


@attrs.frozen(kw_only=True)
class AddFdArguments:
    """Arguments of add-fd."""

    fdset_id: int | None = None
    """The set; without it a new one is made."""
    opaque: str | None = None
    """A text that query-fdsets shows."""


@attrs.frozen(kw_only=True)
class RemoveFdArguments:
    """Arguments of remove-fd."""

    fdset_id: int
    fd: int | None = None
    """The descriptor; without it all of the set."""


@attrs.frozen(kw_only=True)
class AddClientArguments:
    """Arguments of add_client."""

    protocol: str
    """The chardev, a socket that listens."""
    fdname: str
    skipauth: bool | None = None
    """Of VNC and SPICE: refused."""
    tls: bool | None = None
    """Of VNC and SPICE: refused."""


@attrs.frozen(kw_only=True)
class YankInstance:
    """A chardev whose connection can be cut (QAPI's YankInstance)."""

    type: Literal["chardev"]
    id: str


@attrs.frozen(kw_only=True)
class YankArguments:
    """Arguments of yank."""

    instances: tuple[YankInstance, ...]


def getfd(context: Context, arguments: FdnameArguments) -> dict[str, Any]:
    """Receive a descriptor that comes with this message (SCM_RIGHTS), and give it a name."""
    context.fds.add(arguments.fdname, context.take_passed_fd())
    return {}


def closefd(context: Context, arguments: FdnameArguments) -> dict[str, Any]:
    """Close a descriptor that has a name."""
    context.fds.close(arguments.fdname)
    return {}


def add_fd(context: Context, arguments: AddFdArguments) -> dict[str, Any]:
    """Put a descriptor that comes with this message into a set, `/dev/fdset/N`."""
    fd = context.take_passed_fd()
    info = context.host.fdsets.add(fd, arguments.fdset_id, arguments.opaque)
    result: dict[str, Any] = unstructure(info)
    return result


def remove_fd(context: Context, arguments: RemoveFdArguments) -> dict[str, Any]:
    """Remove a descriptor from a set, or all of the set."""
    context.host.fdsets.remove(arguments.fdset_id, arguments.fd)
    return {}


def query_fdsets(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the sets of descriptors."""
    return [unstructure(info) for info in context.host.fdsets.query()]


def add_client(context: Context, arguments: AddClientArguments) -> dict[str, Any]:
    """Give a connected socket to a socket chardev that has no client.

    *skipauth* and *tls* are for the displays of an emulator; here they are errors.
    """
    if arguments.skipauth is not None or arguments.tls is not None:
        raise QmpError("'skipauth' and 'tls' are for VNC and SPICE, which are not here")
    try:
        fd = context.fds.take(arguments.fdname)
    except BackendError as exc:
        raise QmpError(str(exc)) from exc
    registry = context.host.registry
    if arguments.protocol not in registry:
        close_quietly(fd)
        raise QmpError(f"protocol '{arguments.protocol}' is invalid")
    sock = socket_from_fd(fd, arguments.fdname)
    backend = registry[arguments.protocol].backend
    try:
        if not isinstance(backend, SocketBackend):
            raise BackendError("not a socket")
        backend.add_client(sock)
    except BackendError as exc:
        close_socket(sock)
        raise QmpError("failed to add client") from exc
    return {}


def query_yank(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the connections that `yank` can cut."""
    return [
        {"type": "chardev", "id": id}
        for id, chardev in context.host.registry.items()
        if chardev.backend.peer.can_disconnect
    ]


def yank(context: Context, arguments: YankArguments) -> dict[str, Any]:
    """Cut the connection of each instance, as if its peer had left; none if one is unknown."""
    peers = []
    for instance in arguments.instances:
        chardev = context.host.registry.get(instance.id)
        if chardev is None or not chardev.backend.peer.can_disconnect:
            raise QmpError("Instance not found", "DeviceNotFound")
        peers.append(chardev.backend.peer)
    for peer in peers:
        peer.disconnect()
    return {}


FD_COMMANDS: dict[str, Command] = {
    "getfd": Command(FdnameArguments, getfd),
    "closefd": Command(FdnameArguments, closefd),
    "add-fd": Command(AddFdArguments, add_fd, AddfdInfo),
    "remove-fd": Command(RemoveFdArguments, remove_fd),
    "query-fdsets": Command(NoArguments, query_fdsets, tuple[FdsetInfo, ...]),
    "add_client": Command(AddClientArguments, add_client),
    "query-yank": Command(NoArguments, query_yank, tuple[YankInstance, ...], allow_oob=True),
    "yank": Command(YankArguments, yank, allow_oob=True),
}
