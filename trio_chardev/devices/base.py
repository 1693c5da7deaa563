"""A device: a frontend that is made by name, such as a bridge, and works until it is deleted.

The word is QEMU's, because device_add makes it: there it is an emulated serial port or the like.
This file says what a device must offer; the kinds of device, its *drivers*, are in `table`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Files
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import BeChange, OnEvent, OnReceive
from trio_chardev.core.waiting import Once
from trio_chardev.errors import (
    ChardevBusyError,
    ChardevError,
    ChardevNotFoundError,
    OptionsError,
)
from trio_chardev.options.documented import Documented


@attrs.frozen(kw_only=True)
class DeviceOptions(Documented):
    """The options of every driver."""

    id: str | None = None
    """Its name, for device_del; without one it gets a name that begins with '#'."""

    uses: ClassVar[tuple[str, ...]] = ("chardev",)
    """The properties that are ids of chardevs."""

    @property
    def chardevs(self) -> tuple[str, ...]:
        """The ids of the chardevs that it uses."""
        return tuple(getattr(self, name) for name in self.uses)

    def check(self) -> None:
        """Raise OptionsError for values that make no sense, whatever they would open."""


@attrs.frozen(kw_only=True)
class DeviceInfo:
    """What query-devices shows of every device."""

    id: str
    """Its name."""


class AttachedMonitor(Protocol):
    """A QMP monitor that has become its chardev's user."""

    @property
    def is_current(self) -> bool:
        """Is a command of this monitor's own client being run?"""

    async def serve(self) -> None:
        """Serve clients until cancelled."""

    async def serve_session(self, object_id: str) -> None:
        """Serve until a client has left, as object *object_id*; then remove the chardev."""

    def detach(self) -> None:
        """Leave the chardev."""


@attrs.frozen(kw_only=True, repr=False)
class DeviceRequest:
    """What a driver may use to make a device."""

    id: str
    driver: str
    chardevs: Mapping[str, Chardev]
    objects: Mapping[str, object] = attrs.field(factory=dict)
    """What options name by an id beside chardevs, such as TLS credentials."""
    files: Files = attrs.Factory(Files)
    """The files and descriptors that its options may name."""
    attach_monitor: Callable[[Chardev, bool, bool], AttachedMonitor] | None = None
    """Makes a QMP monitor the user of a chardev; None where there is no QMP.

    The flags: is its output indented, and may others than its owner use it? Raises
    ChardevBusyError, and BackendError if others could reach it and may not.
    """


class Device(abc.ABC):
    """One device. `start` makes it the user of its chardevs, and `run` is its task.

    Its handlers are called from `start` on, perhaps before `run`. If one raises, or `run` raises
    or returns, the device ends, and nothing else.
    """

    begins_later: ClassVar[bool] = False
    """Does `run` have something to open, before it calls `note_ready`, or `fail`?"""

    def __init__(self, options: DeviceOptions, request: DeviceRequest) -> None:
        self.id = request.id
        self.driver = request.driver
        self.options = options
        """As they were given: without an `id` if none was given."""
        self.scope = trio.CancelScope()
        """The scope of `run`; cancelling it ends the device."""
        self.closed = Once()
        """Set when the device is gone."""
        self.is_done = False
        """Set by a `run` that returns because there is nothing more to do."""
        self.error: ChardevError | None = None
        """Why it could not begin."""
        self._begun = Once()
        self._chardevs = request.chardevs
        self._frontends: list[Frontend] = []

    @property
    def moved(self) -> int | None:
        """How many bytes it has passed on until now; None if it passes nothing on."""
        return None

    @property
    @abc.abstractmethod
    def info(self) -> DeviceInfo:
        """What query-devices shows."""

    @abc.abstractmethod
    def start(self) -> None:
        """Attach to the chardevs. Raises OptionsError, ChardevBusyError, ChardevClosedError."""

    async def run(self) -> None:
        """Do what the handlers can't do, until cancelled."""
        await trio.sleep_forever()

    async def wait_ready(self) -> None:
        """Wait until it works. Raises what kept it from beginning; then it is gone."""
        if self.begins_later:
            await self._begun.wait()
        if self.error is not None:
            await self.closed.wait()
            raise self.error

    def note_ready(self) -> None:
        """Note that it works; called by `run` where it `begins_later`."""
        self._begun.set()

    def fail(self, error: ChardevError) -> None:
        """Note that it can't begin; `run` returns then."""
        self.error = error
        self.is_done = True
        self._begun.set()

    def finish(self) -> None:  # noqa: B027 - most have nothing to do
        """Hold nothing back any more that could be passed on: everything ends soon."""

    def close(self) -> None:
        """Leave the chardevs."""
        for frontend in self._frontends:
            frontend.detach()

    def attach(
        self,
        name: str,
        *,
        be_change: BeChange | None = None,
        on_event: OnEvent | None = None,
        on_receive: OnReceive | None = None,
        on_open: Callable[[], None] = lambda: None,
        on_line: Callable[[], None] = lambda: None,
        answers_line: bool = False,
    ) -> Frontend:
        """Become the user of the chardev that the property *name* names, until `close`.

        See `Chardev.attach`. Raises as `taking` does, and ChardevClosedError.
        """
        with self.taking(name) as chardev:
            frontend = chardev.attach(
                be_change=be_change,
                on_event=on_event,
                on_receive=on_receive,
                on_open=on_open,
                on_line=on_line,
                on_failure=self.scope.cancel,
                answers_line=_yes if answers_line else _no,
            )
        self._frontends.append(frontend)
        return frontend

    @contextmanager
    def taking(self, name: str) -> Iterator[Chardev]:
        """Give the chardev that the property *name* names, in which the body attaches to it.

        Raises OptionsError if there is none, ChardevBusyError if it has a user.
        """
        id = getattr(self.options, name)
        what = f"Property '{self.driver}.{name}'"
        try:
            yield self._chardevs[id]
        except ChardevNotFoundError:
            raise OptionsError(f"{what} can't find value '{id}'") from None
        except ChardevBusyError as exc:
            raise ChardevBusyError(f"{what} can't take value '{id}': {exc}") from exc


def _yes() -> bool:
    return True


def _no() -> bool:
    return False
