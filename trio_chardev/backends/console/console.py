"""console: many clients at once, who watch together, and type in turn; with a history.

What is printed is written once, into a ring, and each client is a reader with a position in it. So
nobody waits for anybody, a newcomer's replay is an earlier position, and one that the ring overtakes
goes on further down.

The parts:

    History          the ring and its marks
    Client           one reader: what it is to be sent
    Keyboard         who may type, and what was typed
    Crowd            who is there, who is told what
    Serving          the tasks that read from clients and send to them
    ConsoleBackend   joins them

One console that replaces another takes over the crowd and the history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_chardev.backends.console.client import PIECE, Client, Newcomer
from trio_chardev.backends.console.crowd import Crowd
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.options import ConsoleOptions as ConsoleOptions
from trio_chardev.backends.console.serving import Serving
from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.ringbuf.ring import Ring, open_ring
from trio_chardev.backends.socket.codec import WindowCodec
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.link import Link
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.weak import weakly
from trio_chardev.errors import BackendError
from trio_chardev.events import LineRequest, WindowSize
from trio_chardev.files import work_on_files

STOPPING = Goodbye("stopping", "the console is closed")
REPLACED = Goodbye("replaced", "the console is replaced")
GONE = Goodbye("gone", "the device is gone")
INPUTS_AT_ONCE = 64  # events that one read reports


class ConsoleBackend(Backend):
    """A crowd of clients, and what they can see."""

    def __init__(
        self, request: OpenRequest, options: ConsoleOptions, ring: Ring, nursery: trio.Nursery
    ) -> None:
        super().__init__(request)
        self._users = request.users
        self._original = request.replaces if isinstance(request.replaces, ConsoleBackend) else None
        self.is_replaced = False
        """Does another backend take its place, in a commit or after it?"""
        self._new = Crowd(request.id, options, History(ring), request.environment.tell)
        self.crowd: Crowd = self._new if self._original is None else self._original.crowd
        """The clients; before the commit those of the console that it replaces."""
        self._serving = Serving(
            self._new,
            nursery,
            note=weakly(ConsoleBackend._note, self),
            line_changed=weakly(ConsoleBackend._tell_line, self),
        )
        self._new.host = self._serving
        self.set_open(True)

    @property
    def filename(self) -> str:
        return "console"

    @property
    def history(self) -> History:
        """What was printed."""
        return self.crowd.history

    @property
    def is_in_charge(self) -> bool:
        """Are the clients this backend's? Not before it is in place, nor when it was replaced."""
        return self.crowd.host is self._serving

    def activate(self) -> None:
        original, self._original = self._original, None
        if original is not None:
            crowd, new = original.crowd, self._new
            goes_on = new.history.go_on_from(crowd.history)
            self._serving.crowd = crowd
            crowd.take_over(new, goes_on=goes_on)
        else:
            self.history.mark("started")

    def _note(self, text: str) -> None:
        for tap in self.taps:
            tap.note(text)

    # ------------------------------------------------------------ clients

    def admit(self, newcomer: Newcomer) -> Client:
        """Make *newcomer*, whose handshakes are over, a client; its link is owned from now on.

        Raises ConsoleFullError, OptionsError; then the caller still owns the link.
        """
        if newcomer.size is None:
            newcomer.size = _size_told(newcomer.link)
        client = self.crowd.admit(newcomer)
        newcomer.link.hand_over(
            partial(self.crowd.line.hear, client), nodelay=True, keep_alive=True
        )
        self.crowd.line.show_newcomer(client)
        if newcomer.port is not None:
            self._tell_line()
        return client

    def _tell_line(self) -> None:
        if self._users is not None:
            self._users.tell_line()

    # ------------------------------------------------------------ bytes

    def receive_nowait(self, max_bytes: int) -> bytes:
        if not self.is_in_charge:
            return b""
        for _ in range(INPUTS_AT_ONCE):
            item = self.crowd.keyboard.take(max_bytes)
            if item is None or isinstance(item, bytes):
                return item or b""
            self._on_event(item)
            if isinstance(item, LineRequest) and not self._answers_line():
                self.crowd.line.acknowledge(item, item)
        return b""

    def _answers_line(self) -> bool:
        return self._users is not None and self._users.answers_line

    async def wait_readable(self) -> None:
        await self._serving.wait_input()

    def send_nowait(self, data: memoryview) -> int:
        self.crowd.printed(data)
        return len(data)

    @property
    def line(self) -> Line:
        return self.crowd.line

    @property
    def peer(self) -> Peer:
        return _ConsolePeer(self)

    @property
    def leaving(self) -> Leaving:
        return _ConsoleLeaving(self)

    @property
    def _goodbye(self) -> Goodbye:
        return REPLACED if self.is_replaced else STOPPING

    async def finish(self, take: Callable[[bytes], None]) -> None:
        """Let the clients go; see `Leaving.finish`."""
        await self._serving.finish(self._goodbye, lambda: self.receive_nowait(PIECE), take)

    def close(self) -> None:
        """Let the clients go, unless another console has them."""
        if self.is_in_charge:
            self.crowd.remove_all(self._goodbye)
            self.history.wake()  # nothing more will come


def _size_told(link: Link) -> WindowSize | None:
    """The size of the window that has come with the handshakes."""
    while isinstance(link, Layer):
        if isinstance(link.codec, WindowCodec) and link.codec.their_window_size.is_known:
            return link.codec.their_window_size
        link = link.lower
    return None


class _ConsolePeer(Peer):
    """The clients, for who asks about the one peer that others have."""

    can_disconnect = True
    takes_news = True

    def __init__(self, backend: ConsoleBackend) -> None:
        super().__init__(backend.filename)
        self._crowd = backend.crowd

    def recheck(self, *, drop: bool) -> list[tuple[str, str]]:
        """Name the clients that would not be let in now, and *drop* them."""
        refused = []
        for client in self._crowd:
            if (why := client.newcomer.refusal_of(client.link)) is not None:
                refused.append((client.who, why))
                if drop:
                    self._crowd.remove(client, Goodbye("refused", why))
        return refused

    def disconnect(self, *, at_once: bool = False) -> None:
        """Let all clients go."""
        self._crowd.remove_all(Goodbye("kicked", "all are disconnected"))

    def send_eof(self) -> None:
        """Let all clients go, as the device is gone for good."""
        self._crowd.remove_all(GONE)

    def tell(self, text: str, mark: str) -> None:
        self._crowd.tell_of_device(text, mark)


class _ConsoleLeaving(Leaving):
    """The clients go, unless the successor is a console and has them."""

    def __init__(self, backend: ConsoleBackend) -> None:
        self._backend = backend

    def prepare(self, *, carry: bool) -> None:
        self._backend.is_replaced = True

    def stay(self) -> None:
        self._backend.is_replaced = False

    @property
    def is_finished(self) -> bool:
        return not (self._backend.is_in_charge and self._backend.crowd.clients)

    async def finish(self, take: Callable[[bytes], None]) -> None:
        await self._backend.finish(take)


@asynccontextmanager
async def open_console(options: ConsoleOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open a console, empty or with its file's history. Raises OptionsError, BackendError."""
    options.check()
    ring = await _open_ring(options, request)
    ring.users += 1
    try:
        async with trio.open_nursery() as nursery:
            backend = ConsoleBackend(request, options, ring, nursery)
            try:
                yield backend
            finally:
                backend.close()
                nursery.cancel_scope.cancel()
    finally:
        await ring.release()  # noqa: ASYNC102 - it shields itself, with a deadline


async def _open_ring(options: ConsoleOptions, request: OpenRequest) -> Ring:
    original = request.replaces if isinstance(request.replaces, ConsoleBackend) else None
    size, path = options.ring_size, options.history_file
    if path is None:
        shared = None if original is None else original.history.ring
        if shared is not None and len(shared) == size and not shared.has_file:
            return shared
        try:
            return Ring(size)
        except OSError as exc:
            raise BackendError.from_os_error(f"no memory for {size} bytes of history", exc) from exc
    with slow_errors(f"Could not open '{path}'"):
        return await work_on_files(
            open_ring,
            path,
            size,
            request.files.open,
            None if original is None else original.history.ring,
            discard=Ring.close_unused,
        )


CONSOLE = Kind(ConsoleOptions, open_console)
