"""listener: lets clients in to a console, at one address, with one protocol and one role.

It is no user of the console's chardev: several can lead to one console, whose user is a bridge or a
program. While the chardev is no console, whoever comes is told so and let go.
"""

from __future__ import annotations

import logging
import socket

import attrs
import trio

from trio_chardev.backends.console.client import Newcomer
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.crowd import ConsoleFullError
from trio_chardev.backends.console.goodbye import Goodbye, say_goodbye, see_off
from trio_chardev.backends.console.options import Role
from trio_chardev.backends.socket.access import peer_uid
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
)
from trio_chardev.backends.socket.door import who
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.listening import listen, listen_on
from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.reception import Reception
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.devices.base import Device, DeviceInfo, DeviceRequest
from trio_chardev.devices.listener_options import ListenerOptions as ListenerOptions
from trio_chardev.devices.registry import Driver
from trio_chardev.errors import ChardevError, OptionsError

log = logging.getLogger(__name__)

REMOVED = Goodbye("stopping", "the listener is closed")
STOPPING = Goodbye("stopping", "the service stops")
NO_CONSOLE = Goodbye("gone", "there is no console now")
BACKLOG = 128  # clients that the kernel lets wait: many come at once when a network is back
MAX_SEEN_OFF = 64  # of those who are refused, at the same time; more are closed without a word


@attrs.frozen(kw_only=True)
class ListenerInfo(DeviceInfo):
    """What query-devices shows of a listener."""

    console: str
    address: str
    """Where it listens, with the port in fact."""
    role: Role
    tls: bool
    """Do clients have to speak TLS?"""
    clients: int
    """How many of the console's clients have come here."""


class ListenerDevice(Device):
    """One listener."""

    options: ListenerOptions
    begins_later = True

    def __init__(self, options: ListenerOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        self._objects = request.objects
        self._files = request.files
        self._socket_options = options.socket_options
        self._manner = options.manner
        options.check()
        Stack(self._socket_options, self._objects)  # raises what can't be
        self._address = self._socket_options.addr
        self._seen_off = 0
        self._farewell = REMOVED

    @property
    def info(self) -> ListenerInfo:
        return ListenerInfo(
            id=self.id,
            console=self.options.console,
            address=self._socket_options.named(self._address.name),
            role=self._manner.role,
            tls=self._socket_options.tls_creds is not None,
            clients=len(self._clients()),
        )

    @property
    def port(self) -> int | None:
        """The TCP port that it listens at, chosen by the system if 0 was."""
        port = self._address.port if isinstance(self._address, InetAddress) else ""
        return int(port) if port.isdecimal() else None

    @property
    def _console(self) -> ConsoleBackend | None:
        chardev = self._chardevs.get(self.options.console)
        if chardev is None or not chardev.is_started or chardev.is_closed:
            return None
        backend = chardev.backend
        return backend if isinstance(backend, ConsoleBackend) else None

    def _clients(self) -> list[object]:
        console = self._console
        crowd = () if console is None else console.crowd
        return [client for client in crowd if client.newcomer.listener is self]

    def start(self) -> None:
        with self.taking("console"):
            if self._console is None:
                raise OptionsError(
                    f"Property '{self.driver}.console' can't take value '{self.options.console}': "
                    "it is no console"
                )

    async def run(self) -> None:
        try:
            listener = await self._listen()
        except ChardevError as exc:
            self.fail(exc)
            return
        try:
            self._address = listener.address
            listener.activate()
            reception = Reception(
                self._socket_options, self._objects, listener, f"listener '{self.id}'"
            )
            self.note_ready()
            try:
                async with trio.open_nursery() as nursery:
                    await self._admit_all(reception, nursery)
            finally:
                reception.close()
        finally:
            await listener.remove_file()  # noqa: ASYNC102 - it shields itself, with a deadline
            listener.close()

    async def _listen(self) -> Listener:
        address = self._socket_options.addr
        if isinstance(address, FdAddress):
            listener = listen_on(
                address, socket_from_fd(self._files.take_fd(address.str_), address.str_)
            )
        else:
            listener = await listen(address, None, None, self._files.sandbox)
        listener.let_pass_descriptors(False)
        listener.set_backlog(BACKLOG)
        return listener

    async def _admit_all(self, reception: Reception, nursery: trio.Nursery) -> None:
        while True:
            await self._wait_for_room()  # nobody is accepted before
            await reception.wait()
            await self._wait_for_room()  # others may have come in elsewhere
            self._admit(*reception.take(), nursery)

    async def _wait_for_room(self) -> None:
        """With on-full=wait, let newcomers wait in the kernel's queue until there is room."""
        while (
            (console := self._console) is not None
            and console.crowd.is_full
            and console.crowd.options.on_full == "wait"
        ):
            await console.crowd.has_left.wait()

    def _admit(self, link: Link, stack: Stack, nursery: trio.Nursery) -> None:
        console = self._console
        if console is None:
            self._refuse(link, NO_CONSOLE, nursery)
            return
        try:
            address = name_of(link.sock)
            newcomer = Newcomer(
                link=link,
                who=stack.name_of(link) or address,
                address=address,
                manner=self._manner,
                refusal_of=stack.refusal_of,
                port=stack.port if self.options.rfc2217 else None,
                listener=self,
            )
            console.admit(newcomer)
        except ConsoleFullError as exc:
            self._refuse(link, Goodbye("full", str(exc)), nursery)
        except OptionsError as exc:  # such as a mark that there is not
            self._refuse(link, Goodbye("refused", str(exc)), nursery)
        except OSError:  # it has left
            link.close()

    def _refuse(self, link: Link, goodbye: Goodbye, nursery: trio.Nursery) -> None:
        log.info("listener '%s': %s is refused: %s", self.id, link.name, goodbye.text)
        if self._seen_off >= MAX_SEEN_OFF:
            link.close()
            return
        unsaid = say_goodbye(link, goodbye, is_person=self._manner.is_told)
        self._seen_off += 1
        nursery.start_soon(self._see_off, link, goodbye, unsaid)

    async def _see_off(self, link: Link, goodbye: Goodbye, unsaid: bytes) -> None:
        try:
            await see_off(link, goodbye, unsaid)
        finally:
            self._seen_off -= 1

    def finish(self) -> None:
        self._farewell = STOPPING

    def close(self) -> None:
        """Let those go who have come here."""
        if (console := self._console) is not None:
            console.crowd.remove_all(self._farewell, listener=self)
        super().close()


def name_of(sock: socket.socket) -> str:
    """Name the peer of *sock*: a user or an address. Raises OSError if it has left."""
    if sock.family == socket.AF_UNIX:
        return f"uid {peer_uid(sock)}"
    return who(sock)


LISTENER = Driver("listener", ListenerOptions, ListenerDevice, ListenerInfo)
