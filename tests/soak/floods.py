"""Peers that flood the service at full speed, and how long a QMP client waits meanwhile."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.hostile.beside import ask, flooding, leave
from tests.hostile.floods import FLOODS, QMP_FLOODS
from tests.services import Qmp

QUIET: Final = 0.2  # seconds without a flood
LOUD: Final = 0.5  # seconds of a flood
FEWEST: Final = 200  # round trips that are enough for a judgement
TYPICAL: Final = 0.05  # seconds that 99 of 100 round trips may take
MOST_ANSWERED: Final = tuple(
    f"qmp: {name}" for name in ("brace", "accents", "long and wrong", "much to tell")
)
RATIO: Final = 5  # ... or times as long as without a flood, where the machine is busy


@attrs.define(eq=False)
class Floods:
    """The floods of one service, which listens in *folder*."""

    folder: Path
    chance: random.Random
    quiet: list[float] = attrs.Factory(list)
    loud: list[float] = attrs.Factory(list)
    """Seconds of round trips."""

    async def begin(self) -> None:
        """Begin with the floods of the most answers: the heap keeps what it once had."""
        for name in MOST_ANSWERED:
            await self._flood(name)

    async def one(self) -> None:
        """Run a random flood."""
        await self._flood(self.chance.choice([*FLOODS, *QMP_FLOODS]))

    async def _flood(self, name: str) -> None:
        try:
            await trio.to_thread.run_sync(self._one, name)
        except Exception as exc:
            exc.add_note(f"in the flood '{name}'")
            raise

    def _one(self, name: str) -> None:
        path = self.folder / "qmp.sock"
        with tempfile.TemporaryDirectory(dir=self.folder) as own, Qmp(path) as qmp:
            is_qmp = name in QMP_FLOODS
            make = QMP_FLOODS[name] if is_qmp else FLOODS[name]
            place = make(self.folder if is_qmp else Path(own))
            self.quiet += ask(qmp, QUIET)
            with flooding(qmp, place):
                self.loud += ask(qmp, LOUD)
            leave(qmp, place)

    @property
    def most(self) -> tuple[float, float]:
        """Return what 99 of 100 round trips took at most, without and with floods."""
        return _most(self.quiet), _most(self.loud)

    @property
    def wrong(self) -> list[str]:
        """Return what is wrong with that."""
        quiet, loud = self.most
        if min(len(self.quiet), len(self.loud)) < FEWEST or loud <= max(TYPICAL, RATIO * quiet):
            return []
        return [f"beside floods a round trip takes {loud * 1e3:.0f} ms, not {quiet * 1e3:.0f}"]


def _most(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))] if times else 0.0
