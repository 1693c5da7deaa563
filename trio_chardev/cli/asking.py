"""Commands that ask a service, or QEMU, and print the answers: how they connect, ask and end.

They need no event loop, so they don't import Trio, which would be most of their time. Those that do
several things at a time are in `trio_chardev.cli.client`. The server's answers go to standard
output, errors to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from trio_chardev.backends.socket.addresses import SocketAddress, UnixAddress
from trio_chardev.cli.address import parse_address, tls_of
from trio_chardev.cli.errors import STATUS_OF_INTERRUPT
from trio_chardev.cli.output import complain, printable
from trio_chardev.garbage import collect_again
from trio_chardev.qmp.client.messages import Reply
from trio_chardev.qmp.client.plain import PlainQmpClient, open_plain_client
from trio_chardev.qmp.errors import QmpConnectionError, QmpError, QmpTimeoutError

ANSWER_TIMEOUT = 5.0  # seconds for what an idle server does at once
START_TIMEOUT = 1.0  # seconds in which a service that was just started begins to listen
RETRY_INTERVAL = 0.05  # seconds
_NOBODY: Final = (errno.ENOENT, errno.ECONNREFUSED)


class Service:
    """The service that a command is connected to; or QEMU."""

    def __init__(self, qmp: PlainQmpClient, address: SocketAddress) -> None:
        self.qmp = qmp
        self.address = address

    @property
    def is_local(self) -> bool:
        """Is it of this machine, so that it has the same files?"""
        return isinstance(self.address, UnixAddress)

    def execute(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command that may take long. Raises QmpError, QmpConnectionError."""
        return self.qmp.execute(name, arguments)

    def ask(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command that never blocks. Raises as `execute`, also if it does."""
        return self.qmp.execute(name, arguments, timeout=ANSWER_TIMEOUT)

    def ask_if_known(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Do as `ask`; return None if the server has no such command, as QEMU has not all."""
        try:
            return self.ask(name, arguments)
        except QmpError as exc:
            if not exc.is_unknown_command:
                raise
            return None

    def ask_each(self, name: str, each: Iterable[Mapping[str, Any]]) -> Iterator[Reply]:
        """Run a command with *each* of the arguments; yield the replies that come in time."""
        with contextlib.suppress(QmpTimeoutError):
            yield from self.qmp.execute_each(name, each, timeout=ANSWER_TIMEOUT)

    def leave(self) -> None:
        """Disconnect, if there is nothing more to be asked."""
        self.qmp.close()


def run(
    socket: str | None,
    function: Callable[..., None],
    *arguments: Any,
    in_qmp: bool = False,
    **more: Any,
) -> None:
    """Run *function* with the `Service` at *socket*; exit with 1 if it answers with an error.

    It gets *arguments* and *more*, too. With *in_qmp* the error's class is told. Raises
    ChardevError if there is no server.
    """
    address = parse_address(socket)
    collect_again()
    with ended_by_signals(), telling_errors(in_qmp), connected(address) as service:
        function(service, *arguments, **more)


def execute(service: Service, name: str, arguments: Mapping[str, Any]) -> None:
    """Run a command that returns nothing of interest."""
    service.execute(name, arguments)


@contextmanager
def connected(address: SocketAddress) -> Iterator[Service]:
    """Connect to a service; one that was just started is waited for a moment.

    Raises QmpConnectionError if nobody listens, or if the server is busy or stopped.
    """
    until = time.monotonic() + START_TIMEOUT
    while True:
        try:
            qmp = open_plain_client(address, timeout=ANSWER_TIMEOUT, **tls_of(address))
            break
        except QmpConnectionError as exc:
            check_may_come(exc, address, is_late=time.monotonic() >= until)
        time.sleep(RETRY_INTERVAL)
    with contextlib.closing(qmp):
        yield Service(qmp, address)


# ---------------------------------------------------------------- also for those with an event loop


def check_may_come(error: QmpConnectionError, address: SocketAddress, *, is_late: bool) -> None:
    """Raise *error* unless a service that was just started may yet listen."""
    if not _is_nobody_there(error):
        raise error
    if is_late:
        raise QmpConnectionError(f"{error}; {_how_to_start(address)}") from error


@contextmanager
def telling_errors(in_qmp: bool) -> Iterator[None]:
    """Print a QmpError of the block, with *in_qmp* its class, too, and exit with 1."""
    try:
        yield
    except QmpError as exc:
        complain(printable(f"{exc.error_class if in_qmp else 'trio-chardev'}: {exc}"))
        sys.exit(1)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have ctrl-C and SIGTERM end the program, silently, even where they are ignored."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(STATUS_OF_INTERRUPT)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _is_nobody_there(error: BaseException) -> bool:
    """Was the connection refused, or is there no such socket?"""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None and cause.errno in _NOBODY


def _how_to_start(address: SocketAddress) -> str:
    if address == parse_address(None):
        return "start a service with 'trio-chardev serve'"
    options = f"tcp:{address},tls-creds=ID" if tls_of(address) else address.name
    return f"start a service with 'trio-chardev serve --qmp {options},server=on,wait=off'"
