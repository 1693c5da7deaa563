"""Where a socket server gets its clients: sockets that listen at one address.

They are made by `trio_chardev.backends.socket.listening`. A new listener may have the address of the
one that it replaces, and must not harm it, because the change may still fail: both have the same
socket then, by dup(2), and so the same queue. The new one does not accept before it is in place,
the old one not after. For a path, that includes the socket file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from collections.abc import Sequence
from functools import partial

import trio

from trio_chardev.backends.borrowed import NonBlocking
from trio_chardev.backends.holder import owned
from trio_chardev.backends.socket import rights
from trio_chardev.backends.socket.access import PRIVATE, check_listening, exposed_at
from trio_chardev.backends.socket.addresses import Endpoint, SocketAddress
from trio_chardev.backends.socket.socket_file import SocketFile
from trio_chardev.errors import backend_errors
from trio_chardev.files import end_on_files
from trio_chardev.readiness import wait_readable
from trio_chardev.workers import do_in_worker

log = logging.getLogger(__name__)

ACCEPT_PAUSE = 1.0  # seconds, after an error that leaves the client in the queue
MAX_LATE = 1024  # clients that wait when it stops listening; the kernel closes the others


class Listener:
    """Listens at *address*; `wait` for a client, then `take` it."""

    __slots__ = (
        *("_inherited", "_is_failing", "_is_over", "_is_passed", "_non_blocking", "_poll"),
        *("_replaced", "_sockets"),
        *("address", "file"),
    )

    def __init__(
        self,
        address: SocketAddress,
        sockets: Sequence[socket.socket],
        *,
        file: SocketFile | None = None,
        replaced: Listener | None = None,
        is_passed: bool = False,
    ) -> None:
        """Take *sockets* over, also if it raises BackendError; *replaced* has the same address.

        *is_passed* says that others may have them open, too.
        """
        self._is_passed = is_passed
        self.address = address
        """The address in fact: with the port that the system chose."""
        self.file = file
        self._sockets = sockets
        self._replaced = replaced
        self._inherited: list[socket.socket] = []
        # clients that wait here or waited at the replaced listener
        self._is_failing = False
        self._is_over = False
        self._poll: select.epoll | None = None
        self._non_blocking: list[NonBlocking] = []  # passed sockets may be shared with others
        with backend_errors("Failed to listen on socket"), owned(self.close):
            self._make_ready()

    def _make_ready(self) -> None:
        """Make the sockets non-blocking, and what is waited for. Raises OSError."""
        for sock in self._sockets:
            self._non_blocking.append(NonBlocking(sock.fileno()))
            if sock.gettimeout() != 0:
                sock.setblocking(False)
        if len(self._sockets) > 1:  # so that one descriptor can be waited for
            self._poll = select.epoll(len(self._sockets))
            for sock in self._sockets:
                self._poll.register(sock, select.EPOLLIN)

    @property
    def is_taking_over(self) -> bool:
        """Do its clients go to the listener that it replaces, until `activate`?"""
        return self._replaced is not None

    def share(self, endpoint: Endpoint) -> socket.socket | None:
        """Duplicate the socket that listens at *endpoint*; None if there is none."""
        for sock in self._sockets:
            if sock.family == endpoint.family and sock.getsockname() == endpoint.address:
                return sock.dup()
        return None

    def share_all(self) -> list[socket.socket]:
        """Duplicate its sockets. Raises OSError."""
        with contextlib.ExitStack() as made:
            sockets = [made.enter_context(sock.dup()) for sock in self._sockets]
            made.pop_all()
        return sockets

    async def wait(self) -> None:
        """Wait until there may be a client to take."""
        if self._is_over:
            await trio.sleep_forever()
        if self._inherited:
            await trio.lowlevel.checkpoint()
            return
        await self.wait_for_more()

    async def wait_for_more(self) -> None:
        """Wait as `wait` does, disregarding those that were given to `keep`."""
        if self._is_over:
            await trio.sleep_forever()
        while True:
            if self._is_failing:
                await trio.sleep(ACCEPT_PAUSE)
            try:
                return await wait_readable(self._poll or self._sockets[0])
            except OSError as exc:
                self._note_failure(exc, self._is_failing)

    def take(self) -> socket.socket | None:
        """Return the next client, or None if there is none after all."""
        if self._is_over:  # it was woken for a client that its successor gets
            return None
        if self._inherited:
            return self._inherited.pop(0)
        return self.accept()

    def keep(self, client: socket.socket) -> None:
        """Own *client*, to be taken later, after those that are kept already."""
        self._inherited.append(client)

    @property
    def waiting(self) -> int:
        """How many clients are kept."""
        return len(self._inherited)

    def accept(self) -> socket.socket | None:
        """Return the next client of the kernel's queue, or None if there is none after all."""
        if self._is_over:
            return None
        was_failing, self._is_failing = self._is_failing, False
        for sock in self._sockets:
            try:
                if sock.family == socket.AF_UNIX and rights.CLOSER.is_full:
                    raise OSError(errno.EMFILE, "too many descriptors wait to be closed")
                client, _ = sock.accept()
                with owned(client.close):
                    client.setblocking(False)
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except (
                OSError
            ) as exc:  # such as EMFILE: the client stays queued, and waiting would spin
                self._note_failure(exc, was_failing)
                continue
            return client
        return None

    def _note_failure(self, error: OSError, was_failing: bool) -> None:
        self._is_failing = True
        if not was_failing:
            log.warning("can't accept a client of %s: %s", self.address.name, error)

    def connected(self) -> None:
        """Do nothing."""

    def activate(self) -> None:
        """Take the place of the replaced listener."""
        if (replaced := self._replaced) is not None:
            self._replaced = None
            self.file, replaced.file = replaced.file, None
            self._inherited.extend(replaced._inherited)
            replaced._inherited.clear()
            replaced._is_over = True

    def check_local(self) -> None:
        """Raise BackendError if clients may come from another machine."""
        for sock in self._sockets:
            check_listening(sock)

    @property
    def exposed_at(self) -> str | None:
        """Where clients may come from another machine; None if none may. Raises BackendError."""
        return next(filter(None, map(exposed_at, self._sockets)), None)

    def make_private(self) -> None:
        """Let only this user connect to its socket file, if any; a thread changes its mode."""
        if self.file is not None:
            do_in_worker(partial(self.file.restrict, PRIVATE))

    @property
    def has_waiting(self) -> bool:
        """Does a client wait, here or in the kernel's queue?"""
        if self._inherited:
            return True
        poll = select.poll()
        for sock in self._sockets:
            poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def set_backlog(self, backlog: int) -> None:
        """Let *backlog* clients wait in the kernel's queue, not only the few that QEMU lets."""
        for sock in self._sockets:
            sock.listen(backlog)

    def let_pass_descriptors(self, is_allowed: bool) -> None:
        """Allow or refuse descriptors from clients from now on, if the kernel can refuse them."""
        for sock in self._sockets:
            if sock.family == socket.AF_UNIX:
                (rights.allow if is_allowed else rights.refuse)(sock)

    def _turn_all_away(self) -> None:
        """Close the clients that wait, also in the kernel's queue unless that is shared.

        The kernel would close the descriptors that they passed, and wait for that, in this thread.
        """
        for client in self._inherited:
            rights.close_socket(client)
        is_shared = self._is_over or self._replaced is not None or self._is_passed
        if not is_shared and any(sock.family == socket.AF_UNIX for sock in self._sockets):
            self.let_pass_descriptors(False)
            for _ in range(MAX_LATE):
                if (late := self.accept()) is None:
                    break
                rights.close_socket(late)

    async def remove_file(self) -> None:
        """Remove the socket file before closing, so nobody finds it dead; see `end_on_files`."""
        file, self.file = self.file, None
        if file is not None:
            await end_on_files(f"socket {self.address}", file.unlink)

    def close(self) -> None:
        """Stop listening."""
        if self.file is not None:
            do_in_worker(self.file.unlink)
        self._turn_all_away()
        if self._poll is not None:
            trio.lowlevel.notify_closing(self._poll)
            self._poll.close()
        for sock in self._sockets:
            trio.lowlevel.notify_closing(sock)
            sock.close()
        for non_blocking in self._non_blocking:
            non_blocking.release()
