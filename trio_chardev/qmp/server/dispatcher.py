"""Runs the commands of a monitor's client, in order, and puts the replies into the output.

Commands that need not wait are run and answered by the task that has read them. One that waits goes
to the task of `run`, and so does all that comes after it, in order (except exec-oob).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from trio_chardev.qmp.commands.context import Command
from trio_chardev.qmp.server.answers import answer, answer_now, waits
from trio_chardev.qmp.server.monitor_client import MonitorClient
from trio_chardev.qmp.server.origin import Origin
from trio_chardev.qmp.server.output import Output
from trio_chardev.qmp.server.session import NOTHING, Request
from trio_chardev.qmp.server.turn import WAITING, Turn

log = logging.getLogger(__name__)

OUTPUT_SUSPENDS = 1 << 24  # unsent bytes at which no more commands are taken
PATIENCE = 0.5  # seconds of a command after which it is looked whether its client has left
OOB_QUEUE = 8  # commands that wait or run while oob is enabled (as in QEMU)


@attrs.define(eq=False, repr=False)
class Dispatcher:
    """Runs the commands of one client after another."""

    commands: Mapping[str, Command]
    out: Output
    turn: Turn
    client: MonitorClient | None = None
    """Whose commands are run, and who gets the replies."""
    _work_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _worker: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _watcher: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def drop_client(self) -> None:
        """Cancel the command that runs for the client, which is gone, and forget the others."""
        self.client = None
        self._work_scope.cancel()

    def is_suspended(self, client: MonitorClient) -> bool:
        """Must *client* wait? As in QEMU, with one command, or eight with oob, in the queue."""
        limit = OOB_QUEUE if client.context.session.is_oob_enabled else 1
        return len(client.queue) >= limit or len(self.out) >= OUTPUT_SUSPENDS

    def take_backlog(self, client: MonitorClient) -> None:
        """Run or queue the messages of the backlog, as far as the turn goes."""
        backlog = client.backlog
        size = len(self.out)
        most, most_size = self.turn.left, size + self.turn.left_for_output
        count = 0
        while backlog and client is self.client and count < most and not self.is_suspended(client):
            count += 1
            if (request := client.next_request()) is None:
                continue
            if not request.is_oob and (
                client.queue or waits(self.commands, client.context, request)
            ):
                client.queue.append(request)
                self._worker.unpark_all()
                self._watcher.unpark_all()
            else:
                with Origin(self):
                    reply = answer_now(self.commands, client.context, request)
                self._put_reply(client, request, reply)
                if len(self.out) >= most_size:
                    break
        self.turn.spend(count, len(self.out) - size)

    async def run(self, on_progress: Callable[[], None]) -> None:
        """Run the queued requests one after another.

        *on_progress*, which takes the backlog, is called after each, and when a client has left.
        """
        while True:
            client = self.client
            if client is None or not client.queue:
                await self._worker.park()
            else:
                with trio.CancelScope() as self._work_scope:
                    await self._run_for(client, on_progress)
                on_progress()

    async def _run_for(self, client: MonitorClient, on_progress: Callable[[], None]) -> None:
        """Run the requests of *client*, until it leaves."""
        while client is self.client:
            if not client.queue:
                await self._worker.park()
                continue
            request = client.queue[0]
            with Origin(self):
                reply = await answer(self.commands, client.context, request)
            if client is self.client:  # else it left
                client.queue.popleft()
                client.is_read_on = False
                self.turn.spend(WAITING)
                self._put_reply(client, request, reply)
            on_progress()
            if self.turn.is_over:
                await trio.lowlevel.checkpoint()

    async def watch(self, on_slow: Callable[[], None]) -> None:
        """Have a client read on, and call *on_slow*, when a command of it takes long."""
        while True:
            client = self.client
            if client is not None and client.queue:
                request = client.queue[0]
                await trio.sleep(PATIENCE)
                if client is not self.client or not client.queue or client.queue[0] is not request:
                    continue
                client.is_read_on = True
                on_slow()
            await self._watcher.park()

    def _put_reply(self, client: MonitorClient, request: Request, reply: dict[str, Any]) -> None:
        context = client.context
        if "error" in reply:
            id = "" if context.chardev is None else context.chardev.id
            log.debug("QMP '%s': %s: %s", id, request.name, reply["error"]["desc"])
        if request.reply_id is not NOTHING:
            reply["id"] = request.reply_id
        if not context.host.is_quitting or request.name == "quit":
            self.out.put(reply)
