"""``trio-chardev top``: consoles and other chardevs as they fare, once or live."""

from __future__ import annotations

import itertools
import os
import time
from typing import Final

import attrs
import trio

from trio_chardev.backends import borrowed
from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.client import Service, connected
from trio_chardev.cli.output import say, say_json
from trio_chardev.cli.running import run_until_signal
from trio_chardev.cli.table import say_table, terminal_width
from trio_chardev.cli.terminal import STANDARD, LocalTerminal, open_local_terminal
from trio_chardev.cli.top_rows import (
    HEADER,
    Row,
    as_json,
    blocks,
    cells,
    in_order,
    rows_of,
    with_rates,
)
from trio_chardev.cli.top_screen import ENTER, LEAVE, Key, Screen
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.client.client import QmpConnectionError

RETRY_DELAY: Final = 1.0  # seconds until a service that is gone is looked for again


@attrs.frozen(kw_only=True)
class Wish:
    """What the user wants to see."""

    name: str | None
    """Of one board; None for all."""
    sort: str
    is_reversed: bool
    interval: float
    """Seconds between two snapshots."""


async def _ask(service: Service, wish: Wish) -> list[Row]:
    """Ask how all fare. Raises OptionsError if the server can't say, or there is no such thing."""
    stats = await service.ask_if_known("query-chardev-stats")
    if stats is None:
        raise OptionsError("the server has no query-chardev-stats")
    return rows_of(stats, wish.name)


async def snapshots(service: Service, wish: Wish, count: int, in_json: bool) -> None:
    """Print *count* snapshots, each with the rates since the one before."""
    before, asked = await _ask(service, wish), trio.current_time()
    for number in range(count):
        await trio.sleep_until(asked + wish.interval)
        rows, now = await _ask(service, wish), trio.current_time()
        rated = with_rates(rows, before, now - asked)
        before, asked = rows, now
        shown = in_order(rated, wish.sort, wish.is_reversed)
        if in_json:
            say_json([as_json(row) for row in shown])
        else:
            if number:
                say("")
            _say(shown)


def _say(rows: list[Row]) -> None:
    """Print a table: on a terminal cut to its width, with errors in lines of their own."""
    now, width = time.time(), terminal_width()
    if width is None:
        say_table([HEADER, *(cells(row, now) for row in rows)])
        return
    for line in itertools.chain(*blocks(rows, HEADER, now, width)):
        say(line)


# ---------------------------------------------------------------- live


@attrs.define(eq=False, repr=False)
class Live:
    """One run at a terminal."""

    address: SocketAddress
    wish: Wish
    local: LocalTerminal
    screen: Screen
    _was_connected: bool = False
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    async def run(self) -> None:
        """Show it until the user leaves. Raises ChardevError if there is no service to begin with."""
        change = _OtherScreen(STANDARD[1])
        try:
            with self._scope:
                async with open_background_nursery() as nursery:
                    nursery.start_soon(self.local.write)
                    nursery.start_soon(self._read_keys)
                    nursery.start_soon(self._follow_size)
                    await self._ask_for_ever(change)
        finally:
            if self._was_connected:
                borrowed.remove(change)
                self.local.show(LEAVE)
                with trio.CancelScope(shield=True):  # its deadline is within
                    await self.local.finish()

    async def _ask_for_ever(self, change: _OtherScreen) -> None:
        while True:
            try:
                async with connected(self.address) as service:
                    rows = await _ask(service, self.wish)
                    if not self._was_connected:
                        borrowed.add(change)
                        self.local.show(ENTER)
                        self._was_connected = True
                    await self._show_on(service, rows)
            except QmpConnectionError as exc:
                if not self._was_connected:
                    raise
                self.screen.trouble = f"trying again: {exc}"
                self._draw()
                await trio.sleep(RETRY_DELAY)

    async def _show_on(self, service: Service, rows: list[Row]) -> None:
        while True:
            self.screen.take(rows, trio.current_time())
            await self.local.wait_room()
            self._draw()
            await trio.sleep(self.wish.interval)
            rows = await _ask(service, self.wish)

    async def _read_keys(self) -> None:
        while data := await self.local.read():
            if Key.LEAVE in [self.screen.press(code) for code in data]:
                break
            self._draw()
        self._scope.cancel()

    async def _follow_size(self) -> None:
        while True:
            resized, self.screen.size = self.local.resized, self.local.size
            self._draw()
            await resized.wait()

    def _draw(self) -> None:
        if self._was_connected:
            self.local.show(self.screen.draw(time.time()))


class _OtherScreen:
    """Leaves the terminal's other screen if the program is stopped or killed. A `borrowed.Change`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def redo(self) -> None:
        os.write(self._fd, ENTER)

    def undo(self) -> None:
        os.write(self._fd, LEAVE)


async def live(address: SocketAddress, wish: Wish) -> None:
    """See `Live.run`."""
    screen = Screen(where=address.name, sort=wish.sort, is_reversed=wish.is_reversed)
    with open_local_terminal(STANDARD) as local:
        await Live(address, wish, local, screen).run()


def run_live(socket: str | None, wish: Wish) -> None:
    """Run the command at a terminal; signals end it as in `run_until_signal`."""
    address = parse_address(socket)
    run_until_signal(lambda: live(address, wish), status_of_interrupt=0)
