"""The line of a hub, made of its members' lines.

Line settings, modem lines and breaks go to every member that has them and is not away; if one
refuses something, none has it. `HubLine.settings` are those of the first member that knows any, and
`HubLine.get_modem` shows a line as on if any member has it on. A member that only shows settings,
such as a PTY, is shown those that the others are set to.
"""

from __future__ import annotations

import functools
import operator
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import trio

from trio_chardev.backends.stacked.base import ON_FAILURE, Base, as_backend_error, base_errors
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import BackendDisconnectedError, NotSupportedError
from trio_chardev.events import BreakState, LineRequest, LineSettings, ModemLines, Purge, WindowSize

NONE_THERE = NotSupportedError, BackendDisconnectedError, trio.ClosedResourceError
"""Raised by a member that lacks something, or is away."""

MAX_ASKED = 64
"""Requests of members' peers that may wait for an answer; a later answer is one to those before."""

T = TypeVar("T")


class HubLine(Line):
    """Passes each call to the members, but for the echo, which is a terminal's own affair."""

    is_settable = True

    def __init__(self, filename: str, members: Sequence[Base]) -> None:
        super().__init__(filename)
        self._members = members
        self._shown: LineSettings | None = None  # kept for terminals that become members later
        self._asked: deque[tuple[Base, LineRequest, LineRequest]] = deque(maxlen=MAX_ASKED)

    @property
    def missing(self) -> frozenset[str]:
        """What is missing at every member, as a call succeeds if one member supports it."""
        missing = self._at_each(lambda line: line.missing)
        return frozenset.intersection(*missing)

    @property
    def settings(self) -> LineSettings:
        """The settings of the first member that knows them."""
        return self._at_each(lambda line: line.settings)[0]

    async def set(self, settings: LineSettings) -> None:
        """Set the line of each member that has one. If it raises, it has changed none."""
        before: list[tuple[Line, LineSettings]] = []
        for base in self._members:
            with suppress(*ON_FAILURE):
                before.append((base.frontend.line, base.frontend.line.settings))
        try:
            await self._do(settings, lambda line: line.set(settings))
        except BaseException:
            with trio.move_on_after(CLEANUP_TIMEOUT, shield=True):
                for line, its_settings in before:
                    with suppress(*ON_FAILURE):
                        await line.set(its_settings)
            raise
        self._shown = settings
        for base in self._members:
            self.show_at(base.frontend.line)

    def show(self, settings: LineSettings) -> None:
        """Show *settings* at each member that can show them, now or later."""
        self._shown = settings
        self._at_each(lambda line: line.show(settings))

    def show_at(self, line: Line) -> None:
        """Show the settings at one member, if it can show them."""
        if self._shown is not None:
            with suppress(*ON_FAILURE):
                line.show(self._shown)

    @property
    def polled(self) -> frozenset[str]:
        """What has to be polled at any member where somebody is."""
        there = [base.frontend.line for base in self._members if base.is_open]
        with base_errors():
            return frozenset[str]().union(*(line.polled for line in there))

    @property
    def is_notified(self) -> bool:
        """Are all members that have modem lines?"""
        lines = self._at_each(lambda line: line)
        with_modem = [line for line in lines if "modem" not in line.missing]
        return bool(with_modem) and all(line.is_notified for line in with_modem)

    def look(self, *, anew: bool = False) -> None:
        """Poll each member whose changes have to be polled."""
        self._at_each(lambda line: line.look(anew=anew))

    async def get_modem(self) -> ModemLines:
        """Return the modem lines that are on at any member."""
        return all_of(await self._on_each(lambda line: line.get_modem()))

    async def set_modem(self, lines: ModemLines) -> None:
        """Set the modem lines of each member that has some."""
        await self._do(lines, lambda line: line.set_modem(lines))

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Send a break at each member that can send one, at the same time."""
        await self._on_each(lambda line: line.send_break(duration))

    async def set_break(self, is_on: bool) -> None:
        """Turn the break on or off at each member that can."""
        await self._do(BreakState(is_on), lambda line: line.set_break(is_on))

    async def purge(self, buffers: Purge) -> None:
        """Discard what is in the buffers of each member that has some."""
        await self._on_each(lambda line: line.purge(buffers))

    async def set_window_size(self, size: WindowSize) -> None:
        """Tell *size* each member that can be told."""
        await self._do(size, lambda line: line.set_window_size(size))

    def keep(self, request: LineRequest) -> None:
        """Note it at each member, for its next backend."""
        for base in self._members:
            with suppress(*ON_FAILURE):
                base.frontend.line.keep(request)

    def asked(self, base: Base, request: LineRequest, together: LineRequest) -> None:
        """Note that the peer of *base* has made *request*, which the user gets as *together*."""
        self._asked.append((base, request, together))

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        """Tell the peer that has asked, and those that have asked before it and got no answer."""
        waiting = [together for _, _, together in self._asked]
        if request not in waiting:
            return
        for _ in range(waiting.index(request) + 1):
            base, its_request, _ = self._asked.popleft()
            with suppress(*ON_FAILURE):
                base.frontend.line.acknowledge(its_request, in_force)

    async def _do(self, request: LineRequest, do: Callable[[Line], Awaitable[None]]) -> None:
        """Do *request* at each member; one that lacks it or is away keeps it for later."""

        async def do_or_keep(line: Line) -> None:
            try:
                await do(line)
            except NONE_THERE:
                lacking.append(line)
                raise

        lacking: list[Line] = []
        await self._on_each(do_or_keep)
        for line in lacking:
            with suppress(*ON_FAILURE):
                line.keep(request)

    async def _on_each(self, use: Callable[[Line], Awaitable[T]]) -> list[T]:
        """Do as `_at_each`, with all members at the same time."""
        given: dict[Base, T] = {}
        failed: dict[Base, Exception] = {}

        async def use_one(base: Base) -> None:
            try:
                given[base] = await use(base.frontend.line)
            except ON_FAILURE as exc:
                failed[base] = exc

        async with trio.open_nursery() as nursery:
            for base in self._members:
                nursery.start_soon(use_one, base)
        return self._given(given, failed)

    def _at_each(self, use: Callable[[Line], T]) -> list[T]:
        """Return what *use* returns for each member that supports it and is not away.

        Raises a member's refusal; else NotSupportedError or BackendError if no member supports it.
        """
        given: dict[Base, T] = {}
        failed: dict[Base, Exception] = {}
        for base in self._members:
            try:
                given[base] = use(base.frontend.line)
            except ON_FAILURE as exc:
                failed[base] = exc
        return self._given(given, failed)

    def _given(self, given: dict[Base, T], failed: dict[Base, Exception]) -> list[T]:
        in_order = [failed[base] for base in self._members if base in failed]
        refused = [exc for exc in in_order if not isinstance(exc, NONE_THERE)]
        away = [exc for exc in in_order if not isinstance(exc, NotSupportedError)]
        if refused:
            raise as_backend_error(refused[0]) from refused[0]
        if not given and away:
            raise as_backend_error(away[0]) from away[0]
        if not given:
            raise in_order[0]
        return [given[base] for base in self._members if base in given]


def all_of(lines: Iterable[ModemLines]) -> ModemLines:
    """Return the lines that are in any of *lines*."""
    return functools.reduce(operator.or_, lines, ModemLines(0))
