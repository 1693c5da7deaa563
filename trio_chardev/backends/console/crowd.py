"""The clients of a console: who is there, who may type, who is told what. Without I/O of its own.

The crowd outlives the backends: one console that replaces another goes on with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import attrs

from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.keyboard import Keyboard
from trio_chardev.backends.console.line import ConsoleLine
from trio_chardev.backends.console.options import (
    ALL,
    NO_REPLAY,
    ConsoleOptions,
    Manner,
    Replay,
    parse_replay,
)
from trio_chardev.backends.console.tally import Tally
from trio_chardev.core.waiting import Waiters
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.notices import (
    ChardevClientAttached,
    ChardevClientDetached,
    ChardevClientTold,
    ChardevMark,
    ChardevWriterChanged,
)
from trio_chardev.version import __version__

WRITTEN_AT_ONCE = 1 << 14  # bytes; then it is looked whether the ring would overtake somebody


class ConsoleFullError(BackendError):
    """They: the console has as many clients as it may have."""


class Host(Protocol):
    """The backend in place, which runs the clients' tasks."""

    def serve(self, client: Client) -> None:
        """Begin to read from *client* and to send to it."""

    def see_off(self, client: Client, goodbye: Goodbye) -> None:
        """Tell *client*, which is in the crowd no more, and close its connection."""

    def input_came(self) -> None:
        """Wake the reader of `Crowd.keyboard`."""

    def line_changed(self) -> None:
        """Have the user look what the clients can be told of the line."""

    def note(self, text: str) -> None:
        """Note *text* in the logs that want to know what happens beside the bytes."""

    def output_came(self) -> None:
        """Have sent to the clients what there is for them."""

    def send_up_to(self, client: Client, cursor: int) -> None:
        """Send to *client* at once what is before *cursor*, as far as it takes it."""


@attrs.define(eq=False, repr=False)
class Crowd:
    """The clients of one console."""

    id: str
    options: ConsoleOptions
    history: History
    tell_registry: Callable[[object], None]
    """Called with notices about the clients."""
    host: Host = attrs.field(init=False)
    line: ConsoleLine = attrs.field(init=False)
    """The line, as the clients see it."""
    clients: dict[int, Client] = attrs.Factory(dict)
    """By number; the first who came is the first."""
    keyboard: Keyboard = attrs.field(init=False)
    """What they type."""
    has_left: Waiters = attrs.Factory(Waiters)
    """Where those wait who want to come in when somebody leaves."""
    came: int = 0
    """How many clients there ever were; their numbers go up to this one."""
    turned_away: int = 0
    """How many were not let in, as it was full."""
    let_go: int = 0
    """How many were let go, rather than leave."""
    _gone: Tally = attrs.Factory(Tally)
    """That of those who are here no more."""
    _overtakes_from: float = 0
    """Printing up to this cursor overtakes nobody who takes what he is sent."""

    def __attrs_post_init__(self) -> None:
        self.keyboard = Keyboard(self.id, self.options.write, self)
        self.line = ConsoleLine("console", self, self.keyboard)

    # ------------------------------------------------------------ coming and going

    @property
    def is_full(self) -> bool:
        """Are there as many clients as there may be, of whom none has ended its input?"""
        return len(self.clients) >= self.options.max_clients and self._ended is None

    @property
    def _ended(self) -> Client | None:
        """The first who has ended his input: he may have left, which TCP does not tell."""
        return next((client for client in self.clients.values() if client.has_ended), None)

    def admit(self, newcomer: Newcomer) -> Client:
        """Make *newcomer* a client.

        Raises ConsoleFullError, and OptionsError for a mark that there is not.
        """
        self._check_room(newcomer)
        first = self._first_cursor(newcomer.manner)
        if len(self.clients) >= self.options.max_clients:
            leaver = self._ended or next(iter(self.clients.values()))
            self.remove(leaver, Goodbye("replaced", f"{newcomer.who} has come in your place"))
        self.came += 1
        end = self.history.end
        client = Client(self.came, newcomer, max(first, self.history.start), end)
        self.clients[client.number] = client
        if self.options.banner is not None:
            self._say(client, self._banner(client))
        if client.position > first:
            client.skipped = client.position - first
            self._say(client, f"skipped {client.skipped} bytes")
        self._tell_all(f"{client.who} attached", but=client)
        self.tell_registry(
            ChardevClientAttached(self.id, client.number, client.who, newcomer.manner.role)
        )
        self.look_at_positions()
        self.host.serve(client)
        self.keyboard.client_came(client)
        return client

    def _check_room(self, newcomer: Newcomer) -> None:
        """Raise ConsoleFullError if *newcomer* is not to be admitted now."""
        if self.is_full and self.options.on_full != "kick":
            self.turned_away += 1
            self.tell_registry(ChardevClientDetached(self.id, newcomer.who, "full"))
            raise ConsoleFullError(f"console '{self.id}' is full: {len(self.clients)} clients")

    def _first_cursor(self, manner: Manner) -> int:
        """Return the cursor where a newcomer begins. Raises OptionsError."""
        history = self.history
        if manner.since is not None:
            if not 0 <= manner.since <= history.end:
                raise OptionsError(f"'since' must be from 0 to {history.end}")
            return manner.since
        replay = self._replay(manner)
        if not self.options.history or replay == NO_REPLAY:
            return history.end
        if replay.mark is not None:
            return history.safe_start(max(history.cursor_of(replay.mark), history.start))
        if replay.lines is not None:
            return history.line_start(replay.lines)
        return history.safe_start(history.start)

    def _replay(self, manner: Manner) -> Replay:
        for text in (manner.replay, self.options.replay):
            if text is not None:
                return parse_replay(text)
        return ALL

    def _banner(self, client: Client) -> str:
        assert self.options.banner is not None
        return self.options.banner.format(
            console=self.id,
            client=client.number,
            who=client.who,
            role=client.manner.role,
            clients=len(self.clients),
            time=time.strftime("%Y-%m-%d %H:%M:%S"),
            version=__version__,
        )

    def remove(self, client: Client, goodbye: Goodbye) -> None:
        """Let *client* go; what it has typed stays. Does nothing if it is gone already."""
        if self.clients.pop(client.number, None) is None:
            return
        client.is_gone = True
        client.scope.cancel()
        if goodbye.is_told and client.manner.is_exact:
            self._say(client, goodbye.text)
        self.host.see_off(client, goodbye)
        self._gone.add(client)
        self.let_go += goodbye.reason != "left"
        self.has_left.wake()
        why = "left" if goodbye.reason == "left" else f"is let go: {goodbye.text}"
        self._tell_all(f"{client.who} {why}")
        self.tell_registry(
            ChardevClientDetached(self.id, client.who, goodbye.reason, client.number)
        )
        self.keyboard.client_ends(client)
        if client.newcomer.port is not None:
            self.host.line_changed()

    @property
    def tally(self) -> Tally:
        """That of all clients that there ever were."""
        tally = attrs.evolve(self._gone)
        for client in self.clients.values():
            tally.add(client)
        return tally

    def remove_all(self, goodbye: Goodbye, listener: object = None) -> None:
        """Let all clients go, or those that came by *listener*."""
        for client in list(self.clients.values()):
            if listener is None or client.newcomer.listener is listener:
                self.remove(client, goodbye)

    def end_typing(self, client: Client) -> None:
        """Note that nothing more will come from *client*, which may still watch."""
        client.has_ended = True
        self.keyboard.client_ends(client)
        self.has_left.wake()  # who may give way to those who wait

    def take_over(self, other: Crowd, *, goes_on: bool) -> None:
        """Go on with what *other*, an empty crowd, has: its options, its history and its host.

        If its history *goes on* from this one's, the clients do, too; else they begin at its end.
        Nobody is told until `Keyboard.tell_writer`.
        """
        if not goes_on:
            for client in self.clients.values():
                client.leave(self.history, other.history.end)
        self.look_at_positions()
        self.history.wake()
        self.options, self.history, self.host = other.options, other.history, other.host
        self.keyboard.obey(self.options.write)
        for client in self.clients.values():
            self.host.serve(client)

    # ------------------------------------------------------------ around the keyboard

    def clients_in_order(self) -> Iterable[Client]:
        """See `People.clients_in_order`."""
        return self.clients.values()

    def input_came(self) -> None:
        """See `People.input_came`."""
        self.host.input_came()

    def writer_changed(self, writer: Client | None, *, is_told: bool) -> None:
        """See `People.writer_changed`."""
        if writer is not None:
            self._tell_all(f"{writer.who} writes", but=writer)
            if is_told:
                self._say(writer, "you have the right to write")
        number = None if writer is None else writer.number
        self.tell_registry(ChardevWriterChanged(self.id, number))

    def refused(self, client: Client, writer: Client | None) -> None:
        """See `People.refused`."""
        if writer is None:
            self._say(client, "you can only read: what you type goes nowhere")
            return
        self._say(client, f"{writer.who} writes: what you type goes nowhere")
        if self.options.notice:
            self._say(writer, f"{client.who} (client {client.number}) wants to write")

    # ------------------------------------------------------------ what is printed

    def printed(self, data: memoryview) -> None:
        """Keep what the device has printed, for everybody."""
        piece = bytes(data)
        for at in range(0, len(piece), WRITTEN_AT_ONCE):
            part = piece[at : at + WRITTEN_AT_ONCE]
            self._make_room(self.history.end + len(part))
            self.history.write(part)
        self.keyboard.note_printed(piece)
        if self.clients:
            self.host.output_came()

    def look_at_positions(self) -> None:
        """Note that a client may be further behind than was known, or takes something again."""
        self._overtakes_from = 0

    def _make_room(self, end: int) -> None:
        """Let printing up to *end* overtake nobody only because it was not his turn yet."""
        if end <= self._overtakes_from:
            return
        kept = len(self.history.ring)
        for client in self:
            if not client.is_blocked:
                self.host.send_up_to(client, end - kept)
        positions = [client.position for client in self if not client.is_blocked]
        self._overtakes_from = min(positions, default=math.inf) + kept

    def _tell_all(self, text: str, but: Client | None = None) -> None:
        """Tell people *text*, if they want to know such things, and the logs."""
        self.host.note(text)
        if self.options.notice:
            for client in self.clients.values():
                if client is not but:
                    self._say(client, text)

    def _say(self, client: Client, text: str) -> None:
        if client.manner.is_exact:
            self.tell_registry(ChardevClientTold(self.id, client.number, text))
        elif client.say(text):
            self.host.output_came()

    def tell_of_device(self, text: str, mark: str) -> None:
        """Tell people *text* of the device, and mark the place.

        Those that are told by notices are told in any case.
        """
        self._tell_all(text)
        if not self.options.notice:
            for client in self.clients.values():
                if client.manner.is_exact:
                    self._say(client, text)
        self.mark(mark)

    def lets_go(self, client: Client) -> bool:
        """Is *client* let go if it is too slow, rather than skipping what is gone?"""
        return self.options.slow == "kick" or client.manner.is_exact

    def mark(self, name: str) -> int:
        """Mark the place; see `History.mark`. Raises OptionsError."""
        cursor = self.history.mark(name)
        self.tell_registry(ChardevMark(self.id, name, cursor))
        return cursor

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self.clients.values()))
