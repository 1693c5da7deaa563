"""The parts of a chardev that outlive its backends: users, outbox, events.

`Chardev` and `Change` share them. All of it is synchronous. While a commit is under way nobody is
called: `Parts.tell` keeps the calls until the state is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

import attrs

from trio_chardev.core.backend import Backend
from trio_chardev.core.counts import Counts
from trio_chardev.core.effects import Effects
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.outbox import Outbox
from trio_chardev.core.runner import Runner
from trio_chardev.core.tap import Tap, show
from trio_chardev.core.users import Users
from trio_chardev.core.weak import weakly
from trio_chardev.errors import ChardevClosedError
from trio_chardev.events import BackendEvent, Event, WindowSize

log = logging.getLogger(__name__)
P = ParamSpec("P")


@attrs.define(eq=False, repr=False)
class Parts:
    """The state of one chardev."""

    id: str
    on_event: Callable[[BackendEvent, Backend], None]
    """Called with every event of the backend in place, whether a frontend is there or not."""
    row: bytes | None = attrs.field(default=None, init=False)
    """What a lister has kept of it; None once something that lists show has changed."""
    is_guarded: bool = attrs.field(default=False, init=False)
    """Later backends are guarded, too, see `Peer.guard`."""
    leaving: Runner | None = attrs.field(default=None, init=False)
    """The replaced backend, while its last bytes come before those of the one in place."""
    counts: Counts = attrs.field(factory=Counts, init=False)
    outbox: Outbox = attrs.field(init=False)
    users: Users[Frontend] = attrs.field(init=False)
    _effects: Effects | None = attrs.field(default=None, init=False)
    """Those of the commit under way, until they are done: later calls are added after them."""

    def __attrs_post_init__(self) -> None:
        self.users = Users(self.counts)
        self.outbox = Outbox(
            self.id, counts=self.counts, on_line=weakly(Users.tell_line, self.users)
        )

    @property
    def runner(self) -> Runner:
        """The runner of the backend in place."""
        return self.outbox.runner

    @property
    def backend(self) -> Backend:
        """The backend in place."""
        return self.outbox.runner.backend

    @property
    def frontends(self) -> list[Frontend]:
        """The users now; more than one only with a mux."""
        return self.users.frontends

    def check_not_closed(self) -> None:
        """Raise ChardevClosedError if the chardev is closed."""
        if self.outbox.is_closed:
            raise ChardevClosedError(f"Chardev '{self.id}' is closed")

    def touch(self) -> None:
        """Note that something that lists show has changed, here or in what it stands on."""
        self.row = None
        if self.runner.started:
            self.backend.stacking.touch()

    # ------------------------------------------------------------ events

    def backend_event(self, runner: Runner, event: BackendEvent) -> None:
        """Handle an event of *runner*; ignored unless that is in place."""
        if isinstance(event, WindowSize):
            self.resized(runner, event)
        elif runner is self.runner:
            self.row = None
            self.note(runner, event)
            if event is Event.OPENED:
                runner.look_again()
        elif (
            runner is self.leaving and event is Event.BREAK
        ):  # it has its place among the last bytes
            self.note(runner, event)

    def resized(self, runner: Runner, size: WindowSize) -> None:
        """Note the window *size* of *runner*; tell of it if it is another and somebody is there."""
        if size != runner.window_size:
            runner.window_size = size
            if runner is self.runner and self.outbox.is_open:
                self.note(runner, size)

    def note(self, runner: Runner, event: BackendEvent) -> None:
        """Report *event* of *runner*, and queue it for the frontends, after the bytes."""
        self.tell(self.on_event, event, runner.backend)
        self.tell(show_event, self.users.taps, event)
        self.users.event(event)

    def note_end(self, runner: Runner) -> None:
        """Note that the task of *runner* is over; if it was in place, the frontend is told."""
        if runner is self.runner and not self.outbox.is_closed:
            log.error("chardev '%s': the backend is gone: %s", self.id, runner.error)
            self.counts.note_failure()
            self.outbox.interrupt()
            runner.backend.set_open(False)

    # ------------------------------------------------------------ what others are told

    def tell(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call others at once, or while a commit is under way after the calls that it has added."""
        if self._effects is None:
            call(*args, **kwargs)
        else:
            self._effects.add(call, *args, **kwargs)

    def begin_effects(self) -> Effects:
        """Keep the calls to others, as a commit begins, until `tell_all`."""
        self._effects = Effects()
        return self._effects

    def tell_all(self, effects: Effects) -> None:
        """Make the calls of a commit; raises nothing."""
        effects.run()
        self._effects = None


def show_received(taps: Iterable[Tap], data: bytes) -> None:
    """Show *taps* what has come."""
    show(taps, lambda tap: tap.received(data))


def show_event(taps: Iterable[Tap], event: BackendEvent) -> None:
    """Show *taps* an event."""
    show(taps, lambda tap: tap.event(event))
