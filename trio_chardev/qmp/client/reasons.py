"""Why a QMP server can't be reached, does not answer or has gone: the texts, for all clients."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from trio_chardev.backends.socket.addresses import SocketAddress, UnixAddress
from trio_chardev.plain_errors import strerror

if TYPE_CHECKING:
    from trio_chardev.backends.socket.access import AnySocket


def name_of(address: SocketAddress) -> str:
    """What errors call the server at *address*."""
    return f"The QMP server '{address}'"


def slow_to_connect(address: SocketAddress) -> str:
    """It did not take the connection in time."""
    text = f"Failed to connect to '{address}': {os.strerror(errno.ETIMEDOUT)}"
    if isinstance(address, UnixAddress):  # the only cause is a full backlog (unix(7))
        text += "; it is busy or stopped, and others wait for it already"
    return text


def slow_tls(peer: str, timeout: float) -> str:
    """It did not speak TLS in time."""
    return f"{peer} did not answer the TLS handshake {_within(timeout)}"


def slow_to_greet(peer: str, timeout: float, sock: AnySocket | None) -> str:
    """It did not greet in time; *sock* is the UNIX socket, if it is one."""
    return f"{peer} sent no greeting {_within(timeout)}: {_why_mute(sock)}"


def slow_to_negotiate(peer: str, timeout: float, sock: AnySocket | None) -> str:
    """It did not answer the first command in time; *sock* is the UNIX socket, if it is one."""
    return f"{slow_to_answer(peer, 'qmp_capabilities', timeout)}: {_why_mute(sock)}"


def slow_to_answer(peer: str, command: str, timeout: float) -> str:
    """It did not answer in time."""
    return f"{peer} did not answer {command} {_within(timeout)}"


def gone(peer: str, cause: BaseException | None, *, greeted: bool) -> str:
    """The connection is over, at the end of what it sent or because of *cause*."""

    # A server that closes with input unread resets the connection.
    if cause is None or isinstance(cause, ConnectionError):
        return f"{peer} closed the connection{'' if greeted else ' before its greeting'}"
    import ssl

    if isinstance(cause, ssl.SSLError):  # its number is none of the kernel's
        from trio_chardev.qmp.client.secure import reason_of_end

        return f"{peer}: {reason_of_end(cause)}"
    return f"{peer}: {strerror(cause) if isinstance(cause, OSError) else cause}"


def unix_only(sock: AnySocket) -> AnySocket | None:
    """*sock*, if it is a UNIX socket: descriptors can be passed, and the peer's process be found."""
    return sock if sock.family == socket.AF_UNIX else None


def _within(timeout: float) -> str:
    return f"within {timeout:g} seconds"


def _why_mute(sock: AnySocket | None) -> str:
    """Guess why the server says nothing."""
    from trio_chardev.backends.socket.access import peer_pid

    if sock is not None:
        with contextlib.suppress(OSError):
            pid = peer_pid(sock)
            if pid and _is_stopped(pid):
                return f"its process {pid} is stopped"
    return "it is busy with another client, or hangs"


def _is_stopped(pid: int) -> bool:
    """Is the process *pid* stopped, by a signal or a debugger (proc(5))? Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] in b"Tt"
