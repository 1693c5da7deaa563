"""What a name on the command line stands for: the one place where that is decided.

A *board* is a device and its console, joined by a bridge, or named NAME and NAME-console. Its name
is the console's, without that ending. A command takes the name of either side, or that of the
bridge, for the side that it is about: ``history board`` the console, ``lend board-console`` the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from trio_chardev.plain_errors import OptionsError

CONSOLE: Final = "console"
"""The kind of consoles."""
ENDING: Final = "-console"
STATS: Final = "query-chardev-stats"
"""The command that says what there is."""
MAX_NAMED = 20  # names in an error


@attrs.frozen(kw_only=True)
class Board:
    """A device and its console, or one of them; any other chardev counts as a device."""

    name: str
    device: str | None = None
    """The id of the chardev that leads to the device."""
    console: str | None = None
    """The id of the console."""
    bridge: str | None = None
    """The id of the bridge between them."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its chardevs."""
        return tuple(id for id in (self.device, self.console) if id is not None)

    @property
    def device_side(self) -> str:
        """The chardev for commands about the device: the console if there is nothing else."""
        return self.device or self.console or self.name

    @property
    def console_side(self) -> str:
        """The console. Raises OptionsError if there is none."""
        if self.console is None:
            raise OptionsError(
                f"'{self.name}' has no console: add one with 'trio-chardev add "
                f"{self.name}{ENDING} console' and 'trio-chardev bridge {self.name} "
                f"{self.name}{ENDING}'"
            )
        return self.console


def boards_of(kinds: Mapping[str, str], devices: Sequence[Mapping[str, Any]]) -> Iterator[Board]:
    """Yield the boards among chardevs of these *kinds*, in their order.

    *devices* is what query-devices says.
    """
    joined: dict[str, tuple[str, str | None]] = {}  # id -> the id of the other side, the bridge's
    for row in devices:
        if row["driver"] == "bridge":
            ends = row["chardev"], row["peer"]
            if [kinds.get(end) == CONSOLE for end in ends].count(True) == 1:
                joined |= {ends[0]: (ends[1], row["id"]), ends[1]: (ends[0], row["id"])}
    for id, kind in kinds.items():
        partner = id + ENDING
        if kind != CONSOLE and kinds.get(partner) == CONSOLE and not {id, partner} & set(joined):
            joined |= {id: (partner, None), partner: (id, None)}
    done: set[str | None] = set()
    for id in kinds:
        if id not in done:
            other, bridge = joined.get(id, (None, None))
            device, console = (other, id) if kinds[id] == CONSOLE else (id, other)
            yield Board(name=_name(device, console), device=device, console=console, bridge=bridge)
            done |= {id, other}


def _name(device: str | None, console: str | None) -> str:
    if console is None or console == f"{device}{ENDING}":
        return device or ""
    return console


def find(boards: Sequence[Board], name: str) -> Board:
    """Find the board that *name* means. Raises OptionsError."""
    for board in boards:
        if name in board.ids:
            return board
    for board in boards:
        if name == board.bridge:
            return board
    known = [board.name for board in boards]
    shown = ", ".join(known[:MAX_NAMED]) + (", ..." if len(known) > MAX_NAMED else "")
    raise OptionsError(f"there is no '{name}'; there is: {shown or 'nothing'}")


def board_in(stats: Mapping[str, Any] | None, name: str) -> Board:
    """Find the board that *name* means in what query-chardev-stats returns.

    Without *stats* the server is QEMU, which knows none, and takes the name as it is. Raises
    OptionsError if it is unknown.
    """
    if stats is None:
        return Board(name=name, device=name, console=name)
    kinds = {row["id"]: row["kind"] for row in stats["chardevs"]}
    return find(list(boards_of(kinds, stats["devices"])), name)
