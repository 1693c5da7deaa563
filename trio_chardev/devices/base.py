"""A device: a frontend that is made by name, such as a bridge, and works until it is deleted.

QEMU's word, because device_add makes it: there it is an emulated serial port or the like.
What a device must offer is here; the kinds of device, its *drivers*, are in ``frontends/``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import BeChange, OnEvent, OnReceive
from trio_chardev.errors import ChardevBusyError, ChardevNotFoundError, OptionsError
from trio_chardev.options.documented import Documented


@attrs.frozen(kw_only=True)
class DeviceOptions(Documented):
    """What every driver takes."""

    id: str | None = None
    """Its name, for device_del; without one it gets a name that begins with '#'."""

    uses: ClassVar[tuple[str, ...]] = ("chardev",)
    """The properties that name chardevs."""

    @property
    def chardevs(self) -> tuple[str, ...]:
        """The ids of the chardevs that it uses."""
        return tuple(getattr(self, name) for name in self.uses)


@attrs.frozen(kw_only=True)
class DeviceInfo:
    """What query-devices tells of every device."""

    id: str
    """Its name."""


class AttachedMonitor(Protocol):
    """A QMP monitor that is its chardev's user already."""

    @property
    def is_current(self) -> bool:
        """Is a command of its own client at work?"""

    async def serve(self) -> None:
        """Work until cancelled."""

    async def serve_session(self, object_id: str) -> None:
        """Work, as the object of that id, until a client has left; then remove the chardev."""

    def detach(self) -> None:
        """Leave the chardev."""


@attrs.frozen(kw_only=True)
class DeviceRequest:
    """What a driver may use to make a device."""

    id: str
    driver: str
    chardevs: Mapping[str, Chardev]
    attach_monitor: Callable[[Chardev, bool, bool], AttachedMonitor] | None = None
    """Makes a QMP monitor the user of a chardev; None where there is no QMP.

    The flags: is it pretty, and is it for others than its owner? Raises ChardevBusyError, and
    BackendError if others could reach it.
    """


class Device(abc.ABC):
    """One device. `start` makes it the user of its chardevs, `run` is its task.

    Its handlers are called from `start` on, perhaps before `run`. One that raises, or `run`
    raising or returning, ends the device and nothing else.
    """

    def __init__(self, options: DeviceOptions, request: DeviceRequest) -> None:
        self.id = request.id
        self.driver = request.driver
        self.options = options
        """As they were given: an `id` that was not is not in them."""
        self.scope = trio.CancelScope()
        """That of `run`; to cancel it ends the device."""
        self.closed = trio.Event()
        """Set when it is gone."""
        self.is_done = False
        """Set by a `run` that returns because there is no more to do."""
        self._chardevs = request.chardevs
        self._frontends: list[Frontend] = []

    @property
    def moved(self) -> int | None:
        """How many bytes it has passed on by now; None if that is not what it does."""
        return None

    @property
    @abc.abstractmethod
    def info(self) -> DeviceInfo:
        """What query-devices shows."""

    @abc.abstractmethod
    def start(self) -> None:
        """`attach` to the chardevs. Raises OptionsError, ChardevBusyError, ChardevClosedError."""

    async def run(self) -> None:
        """Do what the handlers can't, until cancelled."""
        await trio.sleep_forever()

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
    ) -> Frontend:
        """Become the user of the chardev that the property *name* names, until `close`.

        See `Chardev.attach`. Raises as `taking`, and ChardevClosedError.
        """
        with self.taking(name) as chardev:
            frontend = chardev.attach(
                be_change=be_change,
                on_event=on_event,
                on_receive=on_receive,
                on_open=on_open,
                on_failure=self.scope.cancel,
            )
        self._frontends.append(frontend)
        return frontend

    @contextmanager
    def taking(self, name: str) -> Iterator[Chardev]:
        """Gives the chardev that the property *name* names, around becoming its user.

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
