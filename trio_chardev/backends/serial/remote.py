"""A serial line of another host, by the addresses that pySerial has for it.

``rfc2217://HOST:PORT`` is a line with all its settings, ``socket://HOST:PORT`` its bytes alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.socket.socket import SocketBackend
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import OptionsError
from trio_chardev.events import ModemLines

SCHEMES: Final = ("rfc2217", "socket")

WORKAROUNDS: Final = frozenset({"ign_set_control", "poll_modem"})
"""Options of pySerial's for servers that do not answer, or do not notify; here that is not asked
for, as such a server is noticed."""


def is_remote(device: str) -> bool:
    """Is *device* the address of a line of another host?"""
    scheme, separator, _ = device.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def socket_options(options: SerialOptions) -> SocketOptions:
    """Return the options of the socket that leads to the line. Raises OptionsError."""
    return SocketOptions(
        addr=_address_of(options.path),
        server=False,
        nodelay=True,
        rfc2217=urlsplit(options.path).scheme == "rfc2217",
        reconnect_ms=options.reopen_ms or None,
    )


def check_remote(options: SerialOptions) -> None:
    """Raise OptionsError if *options* want what only a line of this machine has."""
    local = {
        "exclusive": options.exclusive,
        "hupcl": not options.hupcl,
        "rs485": options.rs485 is not None,
        "low-latency": options.low_latency is not None,
    }
    if options.path.lower().startswith("socket:"):
        local |= {"dtr": options.dtr != "keep", "rts": options.rts != "keep"}
    for name, is_wanted in local.items():
        if is_wanted:
            raise OptionsError(f"'{options.path}' has no {name}")


def _outputs_of(options: SerialOptions) -> ModemLines:
    """The outputs that are on when the line was opened."""
    dtr = ModemLines(0) if options.dtr == "off" else ModemLines.DTR
    return dtr if options.rts == "off" else dtr | ModemLines.RTS


def _address_of(device: str) -> InetAddress:
    try:
        url = urlsplit(device)
        host, port = url.hostname, url.port
        wanted = {name for name, _ in parse_qsl(url.query, keep_blank_values=True)}
    except ValueError as exc:
        raise OptionsError(f"'{device}': {exc}") from exc
    if not host or port is None or url.path.strip("/") or url.username is not None:
        raise OptionsError(f"'{device}' is no address such as '{url.scheme}://HOST:PORT'")
    if unknown := sorted(wanted - WORKAROUNDS):
        raise OptionsError(f"'{device}': there is no option '{unknown[0]}' here")
    return InetAddress(host=host, port=str(port))


@asynccontextmanager
async def open_remote(options: SerialOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Connect to the line, and set it as *options* say.

    When the connection ends it is made anew, and the line is set as it was. With ``wait=off`` the
    first connection, too, may come later. Raises OptionsError, BackendError.
    """
    check_remote(options)
    async with aclosing(SocketBackend(request, socket_options(options))) as backend:
        backend.com_port.line = options.line
        backend.com_port.outputs = _outputs_of(options)
        backend.com_port.is_wanted = True
        await backend.connect(request, is_needed_now=options.wait is not False)
        async with backend.flushing():
            yield backend
