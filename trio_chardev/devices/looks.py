"""Looks at lines that don't report their changes: one task does so for all bridges of a Trio run.

A look costs 5 us, and a task that wakes up for it 40 us. Where nothing has moved for some time, and
a byte would be a reason to look in any case, as at a PTY, it is looked rarely.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count

import attrs
import trio

from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.errors import ChardevError

log = logging.getLogger(__name__)

LOOK_INTERVAL = 0.1  # seconds between looks at a line
RESTS_AFTER = 100  # looks, while nothing has moved
RARELY = 10  # a line that rests is looked at each tenth time
AT_ONCE = 50  # looks; then other tasks run
ON_FAILURE = ChardevError, trio.ClosedResourceError
"""Raised by a line that lacks something, or whose backend or chardev is gone."""


@attrs.define(eq=False, repr=False)
class Looked:
    """What is looked at."""

    look: Callable[[], None]
    on_failure: Callable[[], None]
    """Called when *look* has raised, which it must not."""
    moved: Callable[[], int] | None = None
    """How much has moved until now; None if it may not rest."""
    _before: int = -1
    _still: int = 0
    _phase: int = attrs.field(factory=count().__next__, init=False)
    """Which tenth it belongs to while it rests, so that not all are looked at together."""

    def stir(self) -> None:
        """Rest no more for the time being."""
        self._still = 0

    def is_due(self, number: int) -> bool:
        """Is it to be looked at, the *number*th time?"""
        if self.moved is None:
            return True
        if self._still > RESTS_AFTER and (number + self._phase) % RARELY:
            return False
        before, self._before = self._before, self.moved()
        self._still = self._still + 1 if before == self._before else 0
        return True


class Looks:
    """All that are looked at in one Trio run."""

    def __init__(self) -> None:
        self._all: dict[Looked, None] = {}
        self._looking = trio.CancelScope()
        self._looking.cancel()  # nobody does

    @contextmanager
    def at(self, looked: Looked) -> Iterator[None]:
        """Look at *looked* now and then in the block."""
        self._all[looked] = None
        if self._looking.cancel_called:
            self._looking = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._look, self._looking)
        try:
            yield
        finally:
            self._all.pop(looked, None)
            if not self._all:
                self._looking.cancel()

    async def _look(self, scope: trio.CancelScope) -> None:
        number = 0
        with scope:
            while True:
                await trio.sleep(LOOK_INTERVAL)
                number += 1
                done = 0
                for looked in list(self._all):
                    if looked in self._all and looked.is_due(number):
                        self._look_at(looked)
                        done += 1
                        if done % AT_ONCE == 0:
                            await trio.lowlevel.checkpoint()

    def _look_at(self, looked: Looked) -> None:
        try:
            looked.look()
        except Exception:
            log.exception("a look at a line failed; it is looked at no more")
            self._all.pop(looked, None)
            looked.on_failure()


_looks_of_run: trio.lowlevel.RunVar[Looks] = trio.lowlevel.RunVar("looks at lines")


def get_looks() -> Looks:
    """Return those of this Trio run."""
    try:
        return _looks_of_run.get()
    except LookupError:
        looks = Looks()
        _looks_of_run.set(looks)
        return looks


def looked_of(
    sources: Sequence[Frontend], on_failure: Callable[[], None], moved: Callable[[], int]
) -> Looked:
    """Return what is looked at of *sources*; only a PTY is looked at when bytes come, and may rest."""

    def look() -> None:
        for source in sources:
            with suppress(*ON_FAILURE):
                source.line.look()

    may_rest = False
    with suppress(*ON_FAILURE):
        may_rest = not any("modem" in source.line.polled for source in sources)
    return Looked(look, on_failure, moved if may_rest else None)


def look_for(
    user: Controls | Frontend, source: Frontend, ignored: frozenset[str], *, anew: bool = False
) -> bool:
    """Look at *source*, if it may have changed unnoticed in a way that *user* can follow.

    Or *anew*, if *user* may not know yet how it is.
    """
    try:
        is_polled = not source.line.polled - ignored <= user.line.missing
        anew = anew and user.line.is_notified
        if is_polled or anew:
            source.line.look(anew=anew)
    except ON_FAILURE:
        return False
    return is_polled
