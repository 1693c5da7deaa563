"""A chardev's line: that of whichever backend is in place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from trio_chardev.core.boot_sequences import steps_of
from trio_chardev.core.kept_line import KeptLine
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.core.line_change import HeldLine, LineChange, LineState, drive, read_state
from trio_chardev.core.line_sequence import LineStep, plan_of, run_plan
from trio_chardev.core.outbox import Outbox
from trio_chardev.events import (
    BreakState,
    LineRequest,
    LineSettings,
    ModemLines,
    Purge,
    WindowSize,
)


class LineInPlace(Line):
    """Passes each call to the line of the backend in place, and keeps what was set.

    A change sets the new backend's line likewise, before its users' ``be_change``; if it refuses,
    the change is undone.

    The calls that may wait use the backend exclusively, like a change: a writer that is stuck gives
    way. They raise as `Frontend.send_all` too, and WriteInChangeError in a ``be_change`` handler.
    """

    def __init__(self, outbox: Outbox, check: Callable[[], None] = lambda: None) -> None:
        """*check* raises if who has this may not use it any more."""
        super().__init__(outbox.id)
        self._outbox = outbox
        self._check = check

    def _line(self) -> Line:
        self._check()
        return self._outbox.usable_runner().backend.line

    @property
    def kept(self) -> KeptLine:
        """What was set of it: what later backends are set to."""
        return self._outbox.line

    @property
    def missing(self) -> frozenset[str]:
        return self._line().missing

    @property
    def settings(self) -> LineSettings:
        return self._line().settings

    async def set(self, settings: LineSettings) -> None:
        await self._set(settings)

    def show(self, settings: LineSettings) -> None:
        self._line().show(settings)

    @property
    def polled(self) -> frozenset[str]:
        return self._line().polled

    @property
    def is_notified(self) -> bool:
        return self._line().is_notified

    def look(self, *, anew: bool = False) -> None:
        self._line().look(anew=anew)

    async def get_modem(self) -> ModemLines:
        async with self._outbox.exclusive():
            return await self._line().get_modem()

    async def set_modem(self, lines: ModemLines) -> None:
        await self._set(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        async with self._outbox.exclusive():
            await self._line().send_break(duration)
            self._outbox.runner.show_note("BREAK sent")

    async def set_break(self, is_on: bool) -> None:
        await self._set(BreakState(is_on))
        self._outbox.runner.show_note(f"BREAK {'on' if is_on else 'off'}")

    async def purge(self, buffers: Purge) -> None:
        await self._set(buffers)

    async def set_window_size(self, size: WindowSize) -> None:
        if size.is_known:
            await self._set(size)
        else:
            await trio.lowlevel.checkpoint()

    def keep(self, request: LineRequest) -> None:
        """Note that *request* is wanted, though the backend in place can't do it."""
        self._check()
        self._note(self._outbox.line.after(request))
        if not (self._outbox.is_closed or self._outbox.runner.closed.is_set()):
            self._line().keep(request)

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        self._line().acknowledge(request, in_force)

    async def set_echo(self, echo: bool) -> None:
        async with self._outbox.exclusive():
            await self._line().set_echo(echo)

    async def _set(self, request: LineRequest) -> None:
        async with self._outbox.exclusive():
            await drive(self._line(), request)
            self._note(self._outbox.line.after(request))

    def _note(self, kept: KeptLine) -> None:
        before, self._outbox.line = self._outbox.line, kept
        if kept.settings != before.settings:
            self._outbox.on_line()

    # ------------------------------------------------------------ several things at once

    async def read(self) -> LineState:
        """Return what it is like now. Raises BackendError."""
        async with self._outbox.exclusive():
            return await read_state(self._line(), self._outbox.line)

    async def change(self, change: LineChange) -> None:
        """Set what *change* names, and nothing else; what is in force already is not touched.

        Raises OptionsError, NotSupportedError, BackendError. When it raises anything, Cancelled
        included, the line is as it was.
        """
        change.check()
        await self._drive([change], lambda held: held.do(change))

    async def run_sequence(self, steps: Sequence[LineStep] | str) -> None:
        """Do *steps*, or those of that name in `boot_sequences`, one after the other.

        Each is done within 0.4 ms of its time, if the machine is idle. All that
        others write, set or change waits, for 10 s at most; what was set at the end is kept. Raises
        OptionsError, NotSupportedError, BackendError. When it raises anything, Cancelled included,
        the line is as it was.
        """
        plan = plan_of(steps_of(steps) if isinstance(steps, str) else steps)
        await self._drive(plan.changes, lambda held: run_plan(plan, held))

    async def _drive(
        self, changes: Sequence[LineChange], use: Callable[[HeldLine], Awaitable[None]]
    ) -> None:
        """Await *use*, which makes *changes*; if it raises, put the line back."""
        async with self._outbox.exclusive():
            held = HeldLine(self._line(), self._outbox.line, self._line)
            await held.look(*changes)
            try:
                await use(held)
            except BaseException:
                await held.put_back()  # noqa: ASYNC102 - it shields itself, with a deadline
                raise
            self._note(held.kept)
