"""The address of the service's own monitor, and how the command line names others."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.plain_errors import OptionsError, strerror
from trio_chardev.systemd import made_by_systemd

SYSTEM_MONITOR: Final = Path("/run/trio-chardev/qmp.sock")  # of the unit trio-chardev.service

# A host with colons is in brackets.
_HOST_PORT: Final = re.compile(r"(?:\[([^\]/]*)\]|([^:/\[\]]*)):([^:/\[\]]+)")


def parse_address(text: str | None) -> InetAddress | UnixAddress:
    """Parse the address of a QMP server: PATH, HOST:PORT, ``unix:PATH``, ``tcp:HOST:PORT``, or ``tls:``.

    A path that could be a host and a port needs a ``/`` in it, or ``unix:``. After ``tls:HOST:PORT``
    come options, see `tls_address`. None means `client_path`. Raises OptionsError.
    """
    if text is None:
        return UnixAddress(str(client_path()))
    if text.startswith("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    if text.startswith("tls:"):
        return _parse_tls(text.removeprefix("tls:"))
    match = _HOST_PORT.fullmatch(text.removeprefix("tcp:"))
    if match is not None:
        return InetAddress(match[1] or match[2] or "", match[3])
    if text.startswith("tcp:"):
        raise OptionsError(f"error parsing address '{text.removeprefix('tcp:')}'")
    return UnixAddress(text)


def _parse_tls(text: str) -> InetAddress:
    from trio_chardev.cli.errors import saying
    from trio_chardev.cli.tls_address import parse_tls

    where, _, options = text.partition(",")
    match = _HOST_PORT.fullmatch(where)
    if match is None:
        raise OptionsError(f"error parsing address '{where}'")
    with saying(f"--socket tls:{text}"):
        return parse_tls(match[1] or match[2] or "", match[3], options)


def tls_of(address: SocketAddress) -> dict[str, Any]:
    """Make the arguments about TLS with which a client is opened."""
    if isinstance(address, UnixAddress):
        return {}
    from trio_chardev.cli.tls_address import TlsAddress

    if not isinstance(address, TlsAddress):
        return {}
    return {"tls": address.credentials, "tls_hostname": address.peer_name}


def default_monitor_path() -> Path:
    """The path at which a service without monitor options listens.

    It is in systemd's $RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR, or else in a private folder where
    temporary files go. Makes the folder. Raises OptionsError if another user controls it.
    """
    if (made := made_by_systemd("RUNTIME")) is not None:
        return made / "qmp.sock"  # its mode is the unit's: consoles' sockets may be there, too
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        folder = Path(runtime) / "trio-chardev"
    else:
        import tempfile

        folder = Path(tempfile.gettempdir()) / f"trio-chardev-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as exc:
        raise OptionsError(f"Could not create '{folder}': {strerror(exc)}") from exc
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise OptionsError(f"'{folder}' is not a folder of yours alone")
    return folder / "qmp.sock"


def client_path() -> Path:
    """The path at which clients look for a service: one's own, or else the system's.

    Raises OptionsError as `default_monitor_path`.
    """
    own = default_monitor_path()
    if not own.exists() and os.access(SYSTEM_MONITOR, os.W_OK):
        return SYSTEM_MONITOR
    return own
