"""What a command runs with: the service, the monitor and the client that sent it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, Protocol

import attrs
import trio

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.core.chardev import Chardev
from trio_chardev.errors import BackendError
from trio_chardev.options.structure import structure
from trio_chardev.qmp.server.descriptors import FdSets, NamedFds, close_quietly
from trio_chardev.qmp.server.events import ShutdownReason
from trio_chardev.qmp.server.quota import Quota
from trio_chardev.qmp.server.session import QmpError, Session
from trio_chardev.qmp.server.state import StateFile
from trio_chardev.registry import Registry
from trio_chardev.service_log.options import HasLevels

ROWS_AT_ONCE = 20  # they take half a millisecond


Direction = Literal["in", "out"]


class Tracer(Protocol):
    """Notes each message of QMP, see `trio_chardev.qmp.server.trace`."""

    def note(self, direction: Direction, monitor: str, peer: str, message: Any) -> None:
        """Note *message*; *monitor* and *peer* say who it is."""

    async def reopen(self) -> None:
        """Go on in the file that has the name now. Raises BackendError."""


@attrs.define(eq=False, repr=False)
class Host:
    """The service, as far as commands act on it."""

    registry: Registry
    on_quit: Callable[[ShutdownReason], None]
    is_quitting: bool = False
    fdsets: FdSets = attrs.Factory(FdSets)
    quota: Quota = attrs.Factory(Quota)
    sandbox: Sandbox = EVERYWHERE
    """The paths that clients may name."""
    state_file: StateFile = attrs.Factory(StateFile)
    """Keeps what clients set up."""
    client_chardevs: Callable[[], Iterable[Chardev]] = tuple
    """Gives the chardevs of QMP listeners' clients, which are in no registry."""

    reload: Callable[[], Awaitable[Any]] | None = None
    """Applies what the configuration's files say now, and returns a `Reloaded`."""

    log: HasLevels | None = None
    """The service's log; None where another program has its own."""

    trace: Tracer | None = None
    """Where each message of QMP is noted."""

    async def reopen_logs(self, id: str | None = None) -> None:
        """Open the log of chardev *id* anew, or all logs and the trace; see `Registry.reopen_logs`."""
        error: BackendError | None = None
        try:
            await self.registry.reopen_logs(id)
        except BackendError as exc:
            error = exc
        if id is None and self.trace is not None:
            await self.trace.reopen()
        if error is not None:
            raise error

    def quit(self, reason: ShutdownReason) -> None:
        """Begin to stop. Only the first call counts."""
        if not self.is_quitting:
            self.is_quitting = True
            self.on_quit(reason)


async def rows_of(
    registry: Registry, chardevs: Iterable[Chardev], make_row: Callable[[Chardev], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Make a row of each of *chardevs*, but of those that are removed meanwhile.

    After some of them other tasks run. Cancelled ends it.
    """
    rows = []
    for number, chardev in enumerate(list(chardevs), 1):
        if registry.get(chardev.id) is chardev:
            rows.append(make_row(chardev))
        if number % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return rows


@attrs.define(eq=False, repr=False)
class Context:
    """One client of a monitor, for the commands that it sends."""

    host: Host
    session: Session = attrs.Factory(Session)
    chardev: Chardev | None = None
    """The monitor's own chardev, which receives descriptors."""
    fds: NamedFds = attrs.field(factory=NamedFds)
    """The descriptors of the monitor; they outlive its clients."""

    passed: list[int] = attrs.field(factory=list)
    """Descriptors that came with messages before the last read."""

    def take_passed_fd(self) -> int:
        """Take the first of the descriptors that came last with a message, and close the others.

        Raises QmpError if none came.
        """
        if fds := self.take_read_fds():
            self.keep_passed(fds)
        if not self.passed:
            raise QmpError("No file descriptor supplied via SCM_RIGHTS")
        fd = self.passed.pop(0)
        self.keep_passed([])
        return fd

    def take_read_fds(self) -> list[int]:
        """Take the descriptors that came with the last bytes read; the caller then owns them."""
        return [] if self.chardev is None else self.chardev.backend.peer.take_fds()

    def keep_passed(self, fds: list[int]) -> None:
        """Keep *fds* for `take_passed_fd`, and close those kept before."""
        for fd in self.passed:
            close_quietly(fd)
        self.passed = fds


@attrs.frozen(repr=False)
class Command:
    """An entry of the table of commands."""

    arguments: type[Any] | Any
    handler: Callable[[Context, Any], Any]
    returns: Any = None
    """The type of the result, a hint that `trio_chardev.options.members` reads; None for ``{}``."""

    allow_oob: bool = False
    may_wait: Callable[[Context, dict[str, Any]], bool] | None = None
    """Does the handler, though not async, return a coroutine for these arguments?"""
    is_async: bool = attrs.field(init=False)

    @is_async.default
    def _is_coroutine_function(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)

    def waits(self, context: Context, arguments: dict[str, Any]) -> bool:
        """Will `run` return a coroutine?"""
        return self.is_async or (self.may_wait is not None and self.may_wait(context, arguments))

    def run(self, context: Context, arguments: dict[str, Any]) -> Any:
        """Call the handler; return its result or coroutine. Raises OptionsError."""
        return self.handler(context, structure(self.arguments, arguments))


@attrs.frozen(kw_only=True)
class NoArguments:
    """No arguments."""


@attrs.frozen(kw_only=True)
class IdArguments:
    """Arguments of a command about one chardev."""

    id: str
    """The chardev."""


@attrs.frozen
class NamedInfo:
    """An element of a list of names."""

    name: str


@attrs.frozen
class ChardevReturn:
    """The path of the terminal, if the chardev is a PTY now."""

    pty: str | None = None

    @classmethod
    def of(cls, chardev: Chardev) -> dict[str, Any]:
        """Make it, as JSON."""
        return {} if chardev.pty is None else {"pty": chardev.pty}
