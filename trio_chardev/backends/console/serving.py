"""The tasks of a console: they read from its clients, and send to them.

None of them holds a byte over a checkpoint, so they can be cancelled at any time, and those of
another backend can go on.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable

import trio

from trio_chardev.backends.console.client import Client
from trio_chardev.backends.console.crowd import Crowd
from trio_chardev.backends.console.goodbye import DEAD, LEFT, Goodbye, say_goodbye, see_off
from trio_chardev.backends.console.keyboard import MAX_QUEUED
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.tcp import count_unacknowledged, probe
from trio_chardev.core.waiting import Once, Waiters

log = logging.getLogger(__name__)

READ_SIZE = 1 << 14  # bytes
READS = 4  # in a row; then others have their turn


class Serving:
    """Serves the clients of a crowd, in *nursery*."""

    def __init__(
        self,
        crowd: Crowd,
        nursery: trio.Nursery,
        note: Callable[[str], None],
        line_changed: Callable[[], None],
    ) -> None:
        self.crowd = crowd
        """That of the console that is replaced, from the commit on."""
        self.note = note
        """See `Host.note`."""
        self.line_changed = line_changed
        """See `Host.line_changed`."""
        self._nursery = nursery
        self._printed = Once()
        self._is_fanning_out = False
        self._readers = Waiters()
        self._leaving = 0  # clients that are seen off
        self._take: Callable[[bytes], None] | None = None  # what they send meanwhile
        self._moved = Waiters()  # where `finish` waits

    # ------------------------------------------------------------ for the crowd

    def serve(self, client: Client) -> None:
        """See `Host.serve`; tasks of another backend that serve it end."""
        client.scope.cancel()
        client.scope = trio.CancelScope()
        self._nursery.start_soon(self._serve, client, client.scope)
        self.output_came()

    def see_off(self, client: Client, goodbye: Goodbye) -> None:
        """See `Host.see_off`."""
        link = client.link
        if not self.crowd.clients:
            self._printed.set()  # `fan_out` ends
        if not goodbye.is_told:
            link.close()
            return
        with contextlib.suppress(OSError):  # what was printed before comes first
            client.send_rest(self.crowd.history)
        unsaid = say_goodbye(link, goodbye, is_person=client.manner.is_told)
        self._leaving += 1
        is_heard = self.crowd.keyboard.may_type(client)
        self._nursery.start_soon(self._see_off, link, goodbye, unsaid, is_heard)

    async def _see_off(self, link: Link, goodbye: Goodbye, unsaid: bytes, is_heard: bool) -> None:
        def hear(data: bytes) -> None:
            if is_heard and self._take is not None:
                self._take(data)

        try:
            await see_off(link, goodbye, unsaid, hear)
        finally:
            self._leaving -= 1
            self._moved.wake()

    def input_came(self) -> None:
        """See `Host.input_came`."""
        self._readers.wake()
        self._moved.wake()

    def output_came(self) -> None:
        """See `Host.output_came`."""
        self._printed.set()
        if not self._is_fanning_out:
            self._is_fanning_out = True
            self._nursery.start_soon(self._fan_out)

    async def wait_input(self) -> None:
        """Wait until there may be something to take from the keyboard."""
        if self.crowd.keyboard.has_input:
            await trio.lowlevel.checkpoint()
        else:
            await self._readers.wait()

    async def finish(
        self, goodbye: Goodbye, receive: Callable[[], bytes], take: Callable[[bytes], None]
    ) -> None:
        """Let each client go when it has all that was printed; another backend is in place.

        What they have typed, which *receive* gives, and still send until they know, goes to *take*.
        """
        self._take = take
        try:
            while True:
                while data := receive():
                    take(data)
                for client in self.crowd:
                    if not (client.behind(self.crowd.history) or client.link.unsent):
                        self.crowd.remove(client, goodbye)
                if not (self.crowd.clients or self._leaving):
                    return
                await self._moved.wait()
        finally:
            self._take = None

    # ------------------------------------------------------------ to the clients

    async def _fan_out(self) -> None:
        """Send to all clients that take it what is printed, as long as there are clients.

        While that takes its time more is printed, so the pieces grow with the load.
        """
        self.crowd.keyboard.tell_writer()  # which another console may have chosen, in a commit
        while self.crowd.clients:
            await self._printed.wait()
            self._printed = Once()
            for client in self.crowd:
                if client.is_blocked:
                    if self.crowd.lets_go(client):
                        self._keep_up(client)
                else:
                    self._send(client)
                    if client.is_due(self.crowd.history) and not client.is_gone:
                        self._printed.set()
            self._moved.wake()
            await trio.lowlevel.checkpoint()
        self._is_fanning_out = False

    def send_up_to(self, client: Client, cursor: int) -> None:
        """See `Host.send_up_to`."""
        before = -1
        while before < client.position < cursor and not (client.is_blocked or client.is_gone):
            before = client.position
            self._send(client)

    def _send(self, client: Client) -> None:
        """Send to *client* what there is, as far as it takes it; one that has left is removed."""
        if client.is_gone or not self._keep_up(client):
            return
        try:
            client.send(self.crowd.history)
        except Exception as exc:  # whatever it is, it ends this client only
            self._lose(client, exc)

    def _keep_up(self, client: Client) -> bool:
        """Skip what is gone, or let *client* go; return whether it is still there."""
        history = self.crowd.history
        if client.is_overtaken(history):
            if self.crowd.lets_go(client):
                text = f"too slow, {client.behind(history)} bytes behind"
                if client.position < 0:
                    text = "the history is another"
                self.crowd.remove(client, Goodbye("slow", text))
                return False
            if not client.is_blocked:
                lost = client.skip(history)
                text = "console '%s': client %d, %s, has lost %d bytes"
                log.info(text, self.crowd.id, client.number, client.who, lost)
        return True

    def _lose(self, client: Client, exc: Exception) -> None:
        if not isinstance(exc, OSError):
            text = "console '%s': client %d, %s, is let go: %r"
            log.warning(text, self.crowd.id, client.number, client.who, exc)
        self.crowd.remove(client, DEAD if isinstance(exc, TimeoutError) else LEFT)

    async def _write(self, client: Client) -> None:
        """Go on when *client*, which was blocked, takes something again."""
        while True:
            while not client.is_blocked:
                await client.can_write.wait()
            if client.is_gone:  # meanwhile, when this task was to run already
                return
            if await self._wait_writable(client):
                client.blocked_at = None
                self.crowd.look_at_positions()
                self._send(client)
                self.output_came()

    async def _wait_writable(self, client: Client) -> bool:
        """Wait until *client* takes something; False if it was let go as it is dead."""
        patience = float(self.crowd.options.dead_timeout or math.inf)
        while True:
            before = _count_taken(client)
            with trio.move_on_after(patience):
                await client.link.wait_writable()
                return True
            if _count_taken(client) == before:
                self.crowd.remove(client, DEAD)
                return False

    # ------------------------------------------------------------ from the clients

    async def _serve(self, client: Client, scope: trio.CancelScope) -> None:
        with scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, client)
                    await self._read(client)
            except* (OSError, trio.ClosedResourceError):
                if not scope.cancel_called:
                    self.crowd.remove(client, LEFT)
            except* Exception as group:
                log.error(
                    "console '%s': client %d failed", self.crowd.id, client.number, exc_info=group
                )
                self.crowd.remove(client, LEFT)

    async def _read(self, client: Client) -> None:
        """Read from *client* until it sends no more, and then wait until it is gone."""
        while not (client.has_ended or client.is_gone):
            with trio.move_on_at(self._idle_at(client)) as idle:
                await self._wait_readable(client)
            if idle.cancelled_caught:
                self._check_idle(client)
                continue
            for _ in range(READS):
                if client.is_gone:  # meanwhile, when this task was to run already
                    return
                if client.queued >= MAX_QUEUED and not client.is_hung_up:
                    break
                if not self._receive(client):
                    break
        if not client.is_gone:
            await client.link.wait_gone()
            self.crowd.remove(client, LEFT)

    def _receive(self, client: Client) -> bool:
        """Read once; return whether there may be more. An end of its input is noted."""
        try:
            data = client.link.receive(READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._lose(client, exc)
            return False
        finally:
            client.note_unsent()
        if data:
            self.crowd.keyboard.typed(client, data)
            return True
        if client.link.takes_more:
            probe(client.link.sock)
            self.crowd.end_typing(client)
        else:
            self.crowd.remove(client, LEFT)
        return False

    async def _wait_readable(self, client: Client) -> None:
        """Wait for input, and before that until what was typed has been taken, or it has left."""
        if client.queued >= MAX_QUEUED and not client.is_hung_up:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_hangup, client, nursery.cancel_scope)
                await client.may_read.wait()
                nursery.cancel_scope.cancel()
        else:
            await client.link.wait_readable()

    async def _watch_hangup(self, client: Client, waiting: trio.CancelScope) -> None:
        try:
            await client.link.wait_hangup()
        except OSError:  # no descriptor to spare, so only reading notices it
            await trio.sleep_forever()
        client.is_hung_up = True
        waiting.cancel()

    def _idle_at(self, client: Client) -> float:
        timeout = self.crowd.options.idle_timeout
        if not timeout or not client.may_ever_type:
            return math.inf
        return client.typed_at + timeout

    def _check_idle(self, client: Client) -> None:
        if trio.current_time() >= self._idle_at(client):
            text = f"idle for {self.crowd.options.idle_timeout} s"
            self.crowd.remove(client, Goodbye("idle", text))


def _count_taken(client: Client) -> int:
    """How much the peer's kernel has acknowledged, counted from anywhere."""
    try:
        return -count_unacknowledged(client.link.sock)
    except OSError:
        return 0
