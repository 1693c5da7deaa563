"""Where the clients of a listener that serves many come in: accepted, checked, handshakes done."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from functools import partial

import attrs

from trio_chardev.backends.socket.access import Access
from trio_chardev.backends.socket.addresses import SocketAddress, connection_name
from trio_chardev.backends.socket.handshaking import Handshaking, ending
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.socket.rights import close_socket
from trio_chardev.backends.socket.stack import Stack


@attrs.define(eq=False, repr=False)
class Reception:
    """Lets clients in, several at the same time, so that a slow one keeps nobody out."""

    _options: SocketOptions
    _objects: Mapping[str, object]
    _listener: Listener
    _label: str
    """Begins the log's lines."""
    _guard: Access | None = None
    _ready: list[tuple[Link, Stack]] = attrs.Factory(list)
    _stacks: dict[Link, Stack] = attrs.Factory(dict)
    _handshaking: Handshaking = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._handshaking = Handshaking(self._label, serves_many=True)

    @property
    def address(self) -> SocketAddress:
        """Where it listens in fact."""
        return self._listener.address

    async def wait(self) -> None:
        """Wait until there is somebody to `take`. Those that have come stay here until `close`."""
        while not self._ready:
            if self._handshaking:
                await self._handshaking.wait(self._listener.wait)
            else:
                await self._listener.wait()
            if (link := self._handshaking.take()) is not None:
                self._ready.append((link, self._stacks.pop(link)))
            if (sock := self._listener.take()) is not None:
                close = partial(close_socket, sock)
                with contextlib.suppress(OSError), ending(close, self._label):
                    self._take_in(sock)
            self._forget_failed()

    def take(self) -> tuple[Link, Stack]:
        """Give the connection of the first who is here, which the caller owns then, and its protocols."""
        return self._ready.pop(0)

    def _take_in(self, sock: socket.socket) -> None:
        """Make the accepted *sock* a client, at once or after its handshakes.

        Raises OSError if it has no access or has left, BackendError if the credentials are gone;
        then the caller still owns it.
        """
        stack = Stack(self._options, self._objects)  # the credentials may have been replaced
        if self._guard is not None:
            self._guard.check(sock, is_proved=stack.proves_peers)
        name = connection_name(self.address, sock, is_server=True)
        link = stack.link_on(sock, self._options.named(name))
        if stack.is_empty:
            self._ready.append((link, stack))
        else:
            self._handshaking.let_in(link)
            self._stacks[link] = stack

    def _forget_failed(self) -> None:
        """Forget those whose handshakes have failed."""
        if len(self._stacks) > len(self._handshaking):
            shaking = set(self._handshaking)
            self._stacks = {link: s for link, s in self._stacks.items() if link in shaking}

    def close(self) -> None:
        """Close the connections of those who are not clients yet."""
        self._handshaking.close()
        for link, _ in self._ready:
            link.close()
        self._ready.clear()
