"""A QMP monitor: the frontend of a chardev that runs commands.

Input is handled in the task that read it: it is decoded there, and the `Dispatcher` answers at once
what need not wait, so that a round trip costs no second task. While a command waits nothing more is
read. So a client that pipelines without end meets the backpressure
of its socket, and one that sends its commands, shuts down its side and waits for the answers
(``printf ... | socat - UNIX:...``) gets them all, as its end of file is not read before. When a
command takes longer than PATIENCE, the monitor does read on, to notice if the client leaves. Then
the command is cancelled: at once, or, if the client may only have shut down its side, as soon as
the backend finds it gone.

A client that does not read its replies is not read either. If even its events overflow the
`Output`, it is disconnected.

What comes at once may be much work. After a `Turn` of it the monitor stops reading, the remaining
bytes stay at the front of the chardev's queue, and other tasks run first.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.events import BackendEvent, Event
from trio_chardev.qmp.commands.context import Command, Context, Direction, Host
from trio_chardev.qmp.json.codec import Malformed
from trio_chardev.qmp.server.descriptors import NamedFds
from trio_chardev.qmp.server.dispatcher import OUTPUT_SUSPENDS, Dispatcher
from trio_chardev.qmp.server.monitor_client import MonitorClient
from trio_chardev.qmp.server.output import Output
from trio_chardev.qmp.server.turn import OUTPUT, PRETTY_OUTPUT, Turn
from trio_chardev.qmp.version import VERSION

log = logging.getLogger(__name__)

OUTPUT_LIMIT = OUTPUT_SUSPENDS + (1 << 20)  # unsent bytes at which the client is disconnected
READ_AHEAD = 1 << 16  # about how many bytes of commands are read meanwhile
LEAVING_INTERVAL = 0.01  # seconds between looks at a client that waits for its last answers
SILENCE = 30.0  # seconds without qmp_capabilities until a client has to make way for others


@attrs.define(eq=False, repr=False)
class Monitor:
    """A monitor on *chardev*, served by `run`."""

    chardev: Chardev
    commands: Mapping[str, Command]
    host: Host
    pretty: bool = False
    dispatcher: Dispatcher = attrs.field(init=False)
    """Runs the client's commands; it is the `Origin` of what they cause."""
    _frontend: Frontend | None = attrs.field(default=None, init=False)
    _held: int = attrs.field(default=0, init=False)  # this client's part of host.quota
    _out: Output = attrs.field(init=False)
    _came: trio.Event = attrs.field(factory=trio.Event, init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)
    _fds: NamedFds = attrs.field(factory=NamedFds, init=False)
    _turn: Turn = attrs.field(init=False)
    _half_closed: trio.lowlevel.ParkingLot = attrs.field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    _turner: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _newcomer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._out = Output(self.pretty)
        if self.host.trace is not None:
            self._out.on_put = self._trace_out
        self._turn = Turn(PRETTY_OUTPUT if self.pretty else OUTPUT)
        self.dispatcher = Dispatcher(self.commands, self._out, self._turn)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the chardev's clients, one after another, until cancelled.

        Raises ChardevBusyError, through start(), if the chardev has a user already.
        """
        self.attach()
        try:
            task_status.started()
            await self.serve()
        finally:
            self.detach()

    def attach(self) -> None:
        """Become the chardev's user. Raises ChardevBusyError."""
        self._frontend = self.chardev.attach(on_event=self._on_event, on_receive=self._on_receive)
        self._out.frontend = self._frontend
        self._out.flush()
        self._read_or_pause()

    def detach(self) -> None:
        """Stop being the chardev's user."""
        self.host.quota.total -= self._held
        self._held = 0
        if self._frontend is not None:
            self.chardev.detach(self._frontend)

    async def serve(self) -> None:
        """Serve clients until cancelled, after `attach`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._out.run, self._go_on)
                nursery.start_soon(self.dispatcher.run, self._go_on)
                nursery.start_soon(self._take_turns)
                nursery.start_soon(self.dispatcher.watch, self._read_or_pause)
                nursery.start_soon(self._watch_leaving)
                if self.chardev.is_started:  # its backend has one client after another
                    nursery.start_soon(self._watch_silence)
        finally:
            self._fds.close_all()

    def send_event(self, message: dict[str, Any]) -> None:
        """Send a QMP event, if there is a client that has negotiated."""
        if self._client is not None and self._client.context.session.is_negotiated:
            self._out.put(message)
            if len(self._out) > OUTPUT_LIMIT:
                self._disconnect("does not read")
            self._out.flush()
            self._count_memory()

    @property
    def is_silent(self) -> bool:
        """Is there a client that has not negotiated within `SILENCE`?"""
        client = self._client
        return (
            client is not None
            and not client.context.session.is_negotiated
            and trio.current_time() >= client.came + SILENCE
        )

    async def wait_client(self) -> None:
        """Wait until a client has come."""
        await self._came.wait()

    async def wait_left(self) -> None:
        """Wait until a client has left, after the answers to what it sent."""
        await self._left.wait()

    async def wait_drained(self) -> None:
        """Wait until the client, if there is one, has taken all its output."""
        if self._client is not None:
            await self._out.wait_drained()

    # ------------------------------------------------------------ clients

    @property
    def _client(self) -> MonitorClient | None:
        return self.dispatcher.client

    def _on_event(self, event: BackendEvent) -> None:
        if event is Event.OPENED:
            self._end_client()
            context = Context(self.host, chardev=self.chardev, fds=self._fds)
            self.dispatcher.client = MonitorClient(context, self.chardev.backend.peer.who)
            self._out.put({"QMP": {"version": VERSION, "capabilities": ["oob"]}})
            self._out.flush()
            self._newcomer.unpark_all()
            self._came.set()
        elif event is Event.CLOSED:
            if self._client is not None and self._is_owed(self._client):
                self._client.is_leaving = True
                self._half_closed.unpark_all()
            else:
                self._see_off()

    def _end_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self.dispatcher.drop_client()
        self._out.clear()
        self._count_memory()

    def _disconnect(self, why: str) -> None:
        log.warning("monitor '%s': its client %s; it is let go", self.chardev.id, why)
        self._let_go()

    def _let_go(self) -> None:
        peer = self.chardev.backend.peer
        self._end_client()
        peer.disconnect(at_once=True)

    def _count_memory(self) -> None:
        """Account for the memory that the client uses, and disconnect it if that is too much."""
        client = self._client
        held = 0 if client is None else client.held + len(self._out)
        if held != self._held:
            before, self._held = self._held, held
            if self.host.quota.is_too_much(before, held):
                self._disconnect(f"has {held} bytes kept, and there are too many in all")

    def _is_owed(self, client: MonitorClient) -> bool:
        """Does *client*, which sends no more, wait for answers, and can it still read them?

        Commands that only wait for the next turn are run in any case.
        """
        if client.backlog and not self.dispatcher.is_suspended(client):
            return True
        owed = client.queue or client.backlog or len(self._out)
        return bool(owed) and self.chardev.backend.peer.is_lingering

    def _see_off(self) -> None:
        """End a client that sends no more and has all its answers."""
        if self.chardev.backend.peer.is_lingering:
            self._let_go()
        else:
            self._end_client()
        self._left.set()

    async def _watch_leaving(self) -> None:
        """End a client that sends no more, when it has its last answer or is gone."""
        while True:
            client = self._client
            if client is None or not client.is_leaving:
                await self._half_closed.park()
            elif self._is_owed(client):
                await trio.sleep(LEAVING_INTERVAL)
            else:
                self._see_off()

    async def _watch_silence(self) -> None:
        """Disconnect a silent client once others wait."""
        while True:
            client = self._client
            if client is None or client.context.session.is_negotiated:
                await self._newcomer.park()
                continue
            await trio.sleep(SILENCE)
            if client is self._client and self.is_silent and self.chardev.backend.peer.others_wait:
                self._disconnect("says nothing while others wait")

    # ------------------------------------------------------------ commands

    def _on_receive(self, data: bytes) -> int:
        client = self._client
        if client is None:  # the rest of the input of a client that was disconnected
            return len(data)
        if self._turn.is_over:
            self._pause()
            return 0
        if client.http_guard.is_browser(data):
            self._disconnect("is a web browser")
            return len(data)
        was_suspended = self.dispatcher.is_suspended(client)
        if was_suspended and client.ahead >= READ_AHEAD:
            return 0
        if was_suspended:
            client.set_fds_aside(first=False)
        taken = self._work_through(client, data)
        client.ahead = client.ahead + taken if was_suspended else 0
        if client.backlog and not was_suspended and client is self._client:
            client.set_fds_aside(first=True)
        self._out.flush()
        self._count_memory()
        if client is not self._client:
            return len(data)
        if self._turn.is_over or (not was_suspended and self.dispatcher.is_suspended(client)):
            self._pause()
        return taken

    def _work_through(self, client: MonitorClient, data: bytes) -> int:
        """Decode and run what is in *data*, until the turn is over; return how many bytes."""
        turn, decoder = self._turn, client.decoder
        pos = 0
        while pos < len(data) and not turn.is_over and client is self._client:
            before = decoder.effort
            known = len(client.backlog)
            pos = client.feed(data, pos)
            if self.host.trace is not None:
                self._trace_in(client, known)
            self.dispatcher.take_backlog(client)
            turn.spend(decoder.effort - before)
        return pos

    async def _take_turns(self) -> None:
        """Begin a new turn after each, when other tasks have run."""
        while True:
            if self._turn.is_over:
                await trio.lowlevel.checkpoint()
            else:
                await self._turner.park()
            self._turn.renew()
            self._go_on()

    def _go_on(self) -> None:
        """Take more commands, now that the client has taken output or a turn begins."""
        if self._client is not None:
            self.dispatcher.take_backlog(self._client)
            self._out.flush()
            self._count_memory()
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        """Read on, unless the client must wait: for other tasks, for the worker, for its output."""
        client = self._client
        if client is None:
            self._read()
        elif self._turn.is_over or (self.dispatcher.is_suspended(client) and not client.is_read_on):
            self._pause()
        else:
            self._read()

    def _read(self) -> None:
        if self._frontend is not None and self._frontend.is_attached:
            self._frontend.accept_input()

    def _pause(self) -> None:
        if self._turn.is_over:
            self._turner.unpark_all()
        if self._frontend is not None and self._frontend.is_attached:
            self._frontend.pause_input()

    # ------------------------------------------------------------ the trace

    def _trace_in(self, client: MonitorClient, known: int) -> None:
        """Note the messages of the backlog after the first *known*."""
        for message in itertools.islice(client.backlog, known, None):
            if isinstance(message, Malformed):
                self._trace("in", {"malformed": True})
            else:
                self._trace("in", message)

    def _trace_out(self, message: dict[str, Any]) -> None:
        self._trace("out", message)

    def _trace(self, direction: Direction, message: object) -> None:
        peer = "" if self._client is None else self._client.who
        if self.host.trace is not None:
            self.host.trace.note(direction, self.chardev.id, peer, message)
