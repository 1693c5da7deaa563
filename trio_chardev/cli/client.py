"""Commands that are clients of a service and do several things at a time; see `trio_chardev.cli.asking`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.backends.socket.addresses import SocketAddress, UnixAddress
from trio_chardev.cli import asking
from trio_chardev.cli.address import parse_address, tls_of
from trio_chardev.cli.errors import STATUS_OF_INTERRUPT
from trio_chardev.cli.running import run_until_signal
from trio_chardev.qmp.client import reasons
from trio_chardev.qmp.client.client import (
    QmpClient,
    QmpConnectionError,
    QmpError,
    open_qmp_client,
)


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
        with trio.move_on_after(asking.ANSWER_TIMEOUT):
            return await self.qmp.execute(name, arguments)
        peer = reasons.name_of(self.address)
        raise QmpConnectionError(reasons.slow_to_answer(peer, name, asking.ANSWER_TIMEOUT))

    async def ask_if_known(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Do as `ask`; return None if the server has no such command, as QEMU has not all."""
        try:
            return await self.ask(name, arguments)
        except QmpError as exc:
            if not exc.is_unknown_command:
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

    with asking.telling_errors(in_qmp):
        run_until_signal(main, status_of_interrupt)


@asynccontextmanager
async def connected(address: SocketAddress, *, negotiate: bool = True) -> AsyncIterator[Service]:
    """Connect to a service; one that was just started is waited for a moment.

    Raises QmpConnectionError if nobody listens, or if the server is busy or stopped.
    """
    tls = tls_of(address)
    deadline = trio.current_time() + asking.START_TIMEOUT
    while True:
        is_connected = False
        try:
            async with open_qmp_client(
                address, timeout=asking.ANSWER_TIMEOUT, negotiate=negotiate, **tls
            ) as qmp:
                is_connected = True
                yield Service(qmp, address)
            return
        except QmpConnectionError as exc:
            if is_connected:
                raise
            asking.check_may_come(exc, address, is_late=trio.current_time() >= deadline)
        await trio.sleep(asking.RETRY_INTERVAL)
