"""Where the peers of a socket backend come in, one at a time: found, checked, handshakes done.

They are accepted, dialled, or passed in as connected sockets. Who is the peer, and what is done
with it, is the backend's task.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import trio

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.socket.access import PRIVATE, Access, check_peer, check_remote
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    connection_name,
    fixed_endpoint,
    path_of,
)
from trio_chardev.backends.socket.dialer import Backoff, Nobody, Peers, Redialer, connect
from trio_chardev.backends.socket.door import Door
from trio_chardev.backends.socket.handshaking import Handshaking, ending
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.listening import listen, listen_on
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.socket.passed import SharedSocket, socket_from_fd
from trio_chardev.backends.socket.rights import close_socket
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.backends.socket.tcp import set_tcp_options
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.peer import Outlook
from trio_chardev.core.turns import take_turn
from trio_chardev.core.weak import weakly
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent
from trio_chardev.files import work_on_files


class Entrance:
    """Gives one peer after another: `wait` until there may be one, then `take` it."""

    __slots__ = (
        *("__weakref__", "_access", "_door", "_handshaking", "_id", "_on_event", "_options"),
        *("_peers", "_stack", "_waiting", "address"),
    )

    def __init__(
        self,
        id: str,
        options: SocketOptions,
        stack: Stack,
        *,
        on_event: Callable[[BackendEvent], None],
        on_waiting: Callable[[], None],
    ) -> None:
        """*on_event* gets what peers say by the protocols of *stack*.

        *on_waiting* is called for each one more who waits for the peer to leave.
        """
        self.address: SocketAddress = options.addr
        """The address that it connects to, or listens at, with the port once it does."""
        self._id = id
        self._options = options
        self._stack = stack
        self._on_event = on_event
        self._peers: Peers = Nobody()
        self._handshaking = Handshaking(
            f"chardev '{id}'", on_failure=weakly(Entrance.note_failure, self)
        )
        self._waiting: trio.CancelScope | None = None  # for a peer; `add` cancels it
        self._access: Access | None = None
        self._door = Door(
            id,
            check=weakly(Entrance.check, self),
            link_on=stack.link_on,
            refuses=options.on_busy == "refuse",
            on_waiting=on_waiting,
        )

    # ------------------------------------------------------------ where peers come from

    @property
    def _listener(self) -> Listener | None:
        return self._peers if isinstance(self._peers, Listener) else None

    async def listen(self, request: OpenRequest, replaced: Entrance | None) -> None:
        """Accept peers from now on, if need be together with *replaced*. Raises BackendError."""
        if isinstance(self.address, FdAddress):
            passed = socket_from_fd(request.files.take_fd(self.address.str_), self.address.str_)
            listener = listen_on(self.address, passed)
        else:
            listener = await listen(
                self.address,
                None if replaced is None else replaced._listener,
                PRIVATE if request.is_guarded else None,
                sandbox=request.files.sandbox,
            )
        self._peers = listener
        if not listener.is_taking_over:
            listener.let_pass_descriptors(self._stack.is_empty)
        self.address = listener.address

    async def keep_dialling(self, request: OpenRequest) -> None:
        """Connect whenever `wait` finds nobody. Raises BackendError if that can't ever be."""
        if not isinstance(self.address, InetAddress):
            fixed_endpoint(self.address)  # what is wrong now would always be
        sandbox, path = request.files.sandbox, path_of(self.address)
        if path is not None and sandbox.is_limited:
            with slow_errors(f"Failed to connect to '{self.address}'"):
                await work_on_files(sandbox.check, path)
        backoff = Backoff(self._options.reconnect_delay, self._options.longest_reconnect_delay)
        self._peers = Redialer(
            self._id, self.address, backoff, request.files.sandbox, request.on_failure
        )

    async def dial(self, request: OpenRequest) -> Link:
        """Connect, and give the peer, after its handshakes, to the caller. Raises BackendError."""
        if isinstance(self.address, FdAddress):
            sock = socket_from_fd(request.files.take_fd(self.address.str_), self.address.str_)
        else:
            sock = await connect(self.address, request.files.sandbox)
        try:
            with self._ending(sock):
                link = self._meet(sock)
            if not self._stack.is_empty:
                self._handshaking.let_in(link)
                await self._handshaking.shake_hands(link)
                self._handshaking.leave(link)
                self._check_again(link)
        except OSError as exc:
            raise BackendError.from_os_error(f"Failed to connect to '{self.address}'", exc) from exc
        return link

    @property
    def is_taking_over(self) -> bool:
        """Do its peers come to the entrance that it replaces, until `activate`?"""
        return self._listener is not None and self._listener.is_taking_over

    def activate(self) -> None:
        """Take the place of the entrance that it replaces."""
        self._peers.activate()
        if self._listener is not None:  # perhaps one of a backend with other protocols
            self._listener.let_pass_descriptors(self._stack.is_empty)

    @property
    def outlook(self) -> Outlook:
        """See `Peer.outlook`."""
        if isinstance(self._peers, Redialer):
            return self._peers.outlook
        return Outlook(may_come=self._options.server)

    def retry(self) -> bool:
        """Dial now, unless somebody is there. Return False if it does not dial again and again."""
        if not isinstance(self._peers, Redialer):
            return False
        self._peers.retry()
        return True

    def note_failure(self, error: Exception) -> None:
        """Note what ends the peer, or keeps somebody from becoming one."""
        if isinstance(self._peers, Redialer):
            self._peers.failed(str(error))

    async def aclose(self) -> None:
        """Let nobody in any more; the newcomers are closed. It can't be Cancelled."""
        if self._listener is not None:
            await self._listener.remove_file()
        self._peers.close()
        self._handshaking.close()

    # ------------------------------------------------------------ one after another

    async def wait(self) -> None:
        """Wait until there may be a peer to take. When Cancelled, nothing is lost."""
        self._door.leave()
        with trio.CancelScope() as self._waiting:
            if not self._handshaking:
                await self._peers.wait()
                if self._listener is not None:
                    await take_turn()
            elif self._options.server:
                await self._handshaking.wait(self._peers.wait)
            else:
                await self._handshaking.wait(trio.sleep_forever)  # a client makes one connection
        self._waiting = None

    def take(self) -> Link | None:
        """Return the next peer, whom the caller owns, if there is one."""
        try:
            if (newcomer := self._handshaking.take()) is not None:
                self._check_again(newcomer)
                return newcomer
            if (sock := self._peers.take()) is not None:
                with self._ending(sock):
                    return self._let_in(sock)
        except OSError as exc:  # it may not come, or has left already
            self.note_failure(exc)
        return None

    def add(self, sock: socket.socket) -> Link | None:
        """Own *sock*, a connected stream socket, and do as `take`.

        If it raises anything, the caller still owns it.
        """
        if self._handshaking and not self._options.server:
            raise BackendError("failed to add client")
        if not isinstance(sock, SharedSocket):
            sock.setblocking(False)
        link = self._let_in(sock)
        if self._waiting is not None:
            self._waiting.cancel()
        return link

    def _let_in(self, sock: socket.socket) -> Link | None:
        """Own *sock*. Return it as a peer, or None if it has to shake hands first.

        Raises as `_meet`; then the caller still owns it.
        """
        newcomer = self._meet(sock)
        if self._stack.is_empty:
            return newcomer
        self._handshaking.let_in(newcomer)
        return None

    def _meet(self, sock: socket.socket) -> Link:
        """Put the protocols on *sock*. Raises OSError if it may not come, or has left."""
        self.check(sock)
        name = connection_name(self.address, sock, is_server=self._options.server)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            set_tcp_options(sock, nodelay=self._options.nodelay, keep_alive=self.keep_alive)
        return self._stack.link_on(sock, self._options.named(name), self._on_event)

    def _check_again(self, newcomer: Link) -> None:
        """Check *newcomer* again, whose handshakes are over, as the guard may have come meanwhile.

        Raises OSError, having closed it, if it is refused.
        """
        with ending(newcomer.close, f"chardev '{self._id}'"):
            self.check(newcomer.sock)

    def _ending(self, sock: socket.socket) -> AbstractContextManager[None]:
        """Close *sock*, of a newcomer, if the block raises; see `ending`."""
        return ending(partial(close_socket, sock), f"chardev '{self._id}'")

    @property
    def keep_alive(self) -> bool:
        """Is an idle peer probed?"""
        return isinstance(self.address, InetAddress) and self.address.keep_alive

    # ------------------------------------------------------------ while there is a peer

    def peer_came(self) -> None:
        """Note that one who was taken is the peer."""
        self._peers.connected()

    def watch(self, nursery: trio.Nursery, peer: Link) -> None:
        """Watch in *nursery* who else comes while *peer* is there; they are told, or kept."""
        if (listener := self._listener) is None:
            return
        with contextlib.suppress(OSError):  # it has left already
            newcomers = self._handshaking.empty() if self._door.refuses else self.newcomers
            self._door.watch(nursery, listener, peer.sock, newcomers)

    @property
    def is_watched(self) -> bool:
        """Does `watch` do anything?"""
        return self._listener is not None

    def peer_left(self) -> None:
        """Note that whoever comes now is the next peer."""
        self._door.leave()

    @property
    def waiting(self) -> int:
        """How many are known to wait for the peer to leave."""
        return 0 if self._listener is None else self._listener.waiting + len(self._handshaking)

    @property
    def others_wait(self) -> bool:
        """Does anybody wait for the peer to leave?"""
        return self._listener is not None and self._listener.has_waiting

    @property
    def newcomers(self) -> list[Link]:
        """Those who shake hands."""
        return list(self._handshaking)

    def shut_down_newcomers(self) -> None:
        """End their handshakes."""
        self._handshaking.shut_down()

    # ------------------------------------------------------------ who may come

    def guard(self, peer: Link | None) -> None:
        """Let in only peers that may control this service, see `Peer.guard`; *peer* is there.

        Raises BackendError if it can't tell who comes; then nothing has changed.
        """
        if not self._stack.proves_peers:
            if self._listener is not None:
                self._listener.check_local()
            elif not self._options.server:
                check_remote(self.address)
                if peer is not None:
                    check_peer(peer.sock)
        if self._listener is not None:
            self._listener.make_private()
        self._access = Access(f"chardev '{self._id}'")

    def check(self, sock: socket.socket) -> None:
        """Raise OSError if there is a guard, and it refuses the peer of *sock*."""
        if self._access is not None:
            self._access.check(sock, is_proved=self._stack.proves_peers)

    def refusal_of(self, link: Link) -> str | None:
        """Return why the peer on *link* would not be let in if it came now, or None."""
        try:
            self.check(link.sock)
        except OSError as exc:
            return exc.strerror or str(exc)
        return self._stack.refusal_of(link)
