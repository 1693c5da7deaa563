"""Commands that are clients of a service, or of QEMU: how they connect, ask and end.

The server's answers go to standard output, errors to standard error.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trio_chardev.backends.socket.addresses import SocketAddress, UnixAddress
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.errors import STATUS_OF_INTERRUPT
from trio_chardev.cli.output import complain, printable
from trio_chardev.cli.running import run_until_signal
from trio_chardev.cli.tls_address import TlsAddress, tls_of
from trio_chardev.qmp.client.client import (
    QmpClient,
    QmpConnectionError,
    QmpError,
    open_qmp_client,
)

ANSWER_TIMEOUT = 5.0  # seconds for what an idle server does at once
START_TIMEOUT = 1.0  # seconds in which a service that was just started begins to listen
RETRY_INTERVAL = 0.05  # seconds
_NOBODY: Final = (errno.ENOENT, errno.ECONNREFUSED)


@attrs.frozen
class Service:
    """The service that a command is connected to; or QEMU."""

    qmp: QmpClient
    address: SocketAddress

    @property
    def is_local(self) -> bool:
        """Is it of this machine, so that it has the same files?"""
        return isinstance(self.address, UnixAddress)

    async def execute(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, fds: Sequence[int] = ()
    ) -> Any:
        """Run a command that may take long; see `QmpClient.execute`."""
        return await self.qmp.execute(name, arguments, fds=fds)

    async def ask(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command that never blocks. Raises QmpError, and QmpConnectionError if it does."""
        with trio.move_on_after(ANSWER_TIMEOUT):
            return await self.qmp.execute(name, arguments)
        raise QmpConnectionError(
            f"The QMP server '{self.address}' did not answer {name} "
            f"within {ANSWER_TIMEOUT:g} seconds"
        )

    async def ask_if_known(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Do as `ask`; return None if the server has no such command, as QEMU has not all."""
        try:
            return await self.ask(name, arguments)
        except QmpError as exc:
            if exc.error_class != "CommandNotFound":
                raise
            return None


def run(
    socket: str | None,
    function: Callable[..., Awaitable[None]],
    *arguments: Any,
    negotiate: bool = True,
    status_of_interrupt: int = STATUS_OF_INTERRUPT,
    in_qmp: bool = False,
    **more: Any,
) -> None:
    """Run *function* with the `Service` at *socket*; exit with 1 if it answers with an error.

    It gets *arguments* and *more*, too. With *in_qmp* the error's class is told. Signals end it as in `run_until_signal`. Raises ChardevError if there is no server.
    """
    address = parse_address(socket)

    async def main() -> None:
        async with connected(address, negotiate=negotiate) as service:
            await function(service, *arguments, **more)

    try:
        run_until_signal(main, status_of_interrupt)
    except QmpError as exc:
        complain(printable(f"{exc.error_class if in_qmp else 'trio-chardev'}: {exc}"))
        sys.exit(1)


async def execute(service: Service, name: str, arguments: Mapping[str, Any]) -> None:
    """Run a command that returns nothing of interest."""
    await service.execute(name, arguments)


@asynccontextmanager
async def connected(address: SocketAddress, *, negotiate: bool = True) -> AsyncIterator[Service]:
    """Connect to a service; one that was just started is waited for a moment.

    Raises QmpConnectionError if nobody listens, or if the server is busy or stopped.
    """
    tls = tls_of(address)
    deadline = trio.current_time() + START_TIMEOUT
    while True:
        is_connected = False
        try:
            async with open_qmp_client(
                address, timeout=ANSWER_TIMEOUT, negotiate=negotiate, **tls
            ) as qmp:
                is_connected = True
                yield Service(qmp, address)
            return
        except QmpConnectionError as exc:
            if is_connected or not _is_nobody_there(exc):
                raise
            if trio.current_time() >= deadline:
                raise QmpConnectionError(f"{exc}; {_how_to_start(address)}") from exc
        await trio.sleep(RETRY_INTERVAL)


def _is_nobody_there(error: BaseException) -> bool:
    """Was the connection refused, or is there no such socket?"""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None and cause.errno in _NOBODY


def _how_to_start(address: SocketAddress) -> str:
    if address == parse_address(None):
        return "start a service with 'trio-chardev serve'"
    options = f"tcp:{address},tls-creds=ID" if isinstance(address, TlsAddress) else address.name
    return f"start a service with 'trio-chardev serve --qmp {options},server=on,wait=off'"
