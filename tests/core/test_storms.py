"""Storms: many changes of one chardev, of many, and a remover in between.

With the environment variable TRIO_CHARDEV_SEEDS=N the first runs under N schedules.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import attrs
import pytest
import trio
import trio._core._run as trio_run

from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import ChardevClosedError, ChardevError, ChardevNotFoundError
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener

SEEDS = int(os.environ.get("TRIO_CHARDEV_SEEDS", "2"))
WRITERS = 8
CHANGERS = 2
PIECES = 40  # of each writer
CROWD = 1000
PATIENCE = 60  # seconds

trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]


@attrs.define(eq=False)
class Storm:
    """8 writers, 2 changers and a remover on one chardev."""

    seed: int
    devices: list[FakeDevice] = attrs.Factory(list)
    """In the order in which they were asked for, which is that of the commits."""
    confirmed: Counter[bytes] = attrs.Factory(Counter)
    changes: int = 0

    def make(self) -> FakeDevice:
        """Another device, of any kind there is."""
        n = len(self.devices)
        self.devices.append(
            device := FakeDevice(
                str(n),
                opens=n % 7 != 3,
                activates=n % 11 != 5,
                eager=n % 2 == 0,
                holds=n % 3 == 0,
            )
        )
        return device

    async def main(self) -> None:
        async with open_registry_with(fake_opener) as registry:
            await registry.add("c", FakeOptions(device=self.make()))
            frontend = registry["c"].attach(be_change=stateless)
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for n in range(WRITERS):
                        nursery.start_soon(self.write, frontend, n)
                    for _ in range(CHANGERS):
                        nursery.start_soon(self.change, registry)
                    nursery.start_soon(self.remove, registry, frontend)
            assert "c" not in registry
        assert not any(device.is_held_open for device in self.devices)

    async def write(self, frontend: Frontend, n: int) -> None:
        for i in range(PIECES):
            piece = b"<%d.%02d>" % (n, i)
            try:
                await frontend.send_all(piece)
            except (ChardevError, trio.ClosedResourceError):
                return
            self.confirmed[piece] += 1

    async def change(self, registry: Registry) -> None:
        while True:
            device = self.make()
            try:
                await registry.change("c", FakeOptions(device=device), carry=True)
            except (ChardevNotFoundError, ChardevClosedError):
                return
            except ChardevError:
                assert not (device.opens and device.activates), "nothing was wrong with it"
            else:
                self.changes += 1

    async def remove(self, registry: Registry, frontend: Frontend) -> None:
        for _ in range(300 + 20 * self.seed):
            with pytest.raises(ChardevError, match="^Chardev 'c' is busy$"):
                await registry.remove("c")
            await trio.lowlevel.checkpoint()
        await frontend.aclose()
        await registry.remove("c")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_writers_changers_and_a_remover_on_one_chardev(seed: int) -> None:
    trio_run._r.seed(seed)
    storm = Storm(seed)
    trio.run(storm.main)
    assert storm.changes > 10, "it was no storm"
    everything = b"".join(bytes(device.sent) for device in storm.devices)
    pieces = re.findall(rb"<\d\.\d\d>", everything)
    counted = Counter(pieces)
    assert not [piece for piece, n in counted.items() if n > 1], "repeated"
    assert not storm.confirmed - counted, "lost"


async def test_a_thousand_chardevs_are_changed_at_the_same_time() -> None:
    async with open_registry_with(fake_opener) as registry:
        old = [FakeDevice(f"old{i}", eager=True, holds=True) for i in range(CROWD)]
        new = [FakeDevice(f"new{i}", eager=True, opens=i % 10 != 9) for i in range(CROWD)]
        frontends = []
        for i in range(CROWD):
            await registry.add(f"c{i}", FakeOptions(device=old[i]))
            frontends.append(registry[f"c{i}"].attach(be_change=stateless))
            await frontends[i].send_all(b"%d" % i)
        failed = []

        async def change(i: int) -> None:
            try:
                await registry.change(f"c{i}", FakeOptions(device=new[i]), carry=True)
            except ChardevError:
                failed.append(i)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for i in range(CROWD):
                    nursery.start_soon(change, i)
        assert sorted(failed) == list(range(9, CROWD, 10))
        for i in range(CROWD):
            here, there = (old[i], new[i]) if i % 10 == 9 else (new[i], old[i])
            assert (bytes(here.sent), bytes(there.sent)) == (b"%d" % i, b"")
            assert here.is_held_open
            assert not there.is_held_open
