"""The command line of the soak test, its run and its figures."""

from __future__ import annotations

import argparse
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.certificates import authority, server_certificate, write_folder
from tests.soak.console import Console
from tests.soak.crowd import Crowd
from tests.soak.faults import Faults
from tests.soak.floods import Floods
from tests.soak.meter import InUse, Service
from tests.soak.places import HALF_CLOSED, PLACES, PlaceMaker, Site
from tests.soak.shortage import SHORTAGES, Spells
from trio_chardev import QmpClient, open_qmp_client

ALL_PLACES: Final = (*PLACES, *HALF_CLOSED)
LAYERS: Final = (*["none"] * 6, *["mux"] * 2, *["hub"] * 2)  # a console for each
SAMPLE_INTERVAL: Final = 1.0  # seconds
WARM_UP: Final = 0.2  # of the time, after which all has been used and memory is first measured
MORE_BLOCKS: Final = 3000  # that may be in use at the end: one in four changes would be a leak
MORE_MALLOCED: Final = 1 << 20  # bytes


@attrs.define
class Soak:
    """One run."""

    minutes: float
    seed: int
    places: tuple[str, ...]
    layers: tuple[str, ...]
    folder: Path
    crowds: int = 1
    short: str | None = None
    """The resource that the service goes short of, instead of all other faults."""
    changes: int = 0
    counts: Counter[str] = attrs.Factory(Counter)
    faults: Counter[str] = attrs.Factory(Counter)
    memory: list[int] = attrs.Factory(list)
    in_use: list[InUse] = attrs.Factory(list)
    """The memory after the warm-up and at the end, with nothing open."""
    descriptors: list[int] = attrs.Factory(list)
    floods: Floods = attrs.field(init=False)
    bytes_checked: int = 0
    seconds: float = 0.0
    stalls: dict[str, Any] = attrs.Factory(dict)
    """How long the steps of the service's tasks took."""

    def __attrs_post_init__(self) -> None:
        self.floods = Floods(self.folder, random.Random(self.seed))

    async def run(self) -> list[str]:
        """Run; returns what is wrong at the end, and raises what goes wrong before."""
        credentials = write_folder(self.folder / "tls", server=server_certificate())
        service = Service.start(
            self.folder,
            "--object",
            f"tls-creds-x509,id=tls,dir={credentials},endpoint=server,verify-peer=off",
            prefix=SHORTAGES[self.short].prefix if self.short else (),
        )
        try:
            await self._drive(service)
            status = service.stop()
        finally:
            service.kill()
        wrong = [f"the service's exit status is {status}"] if status else []
        return wrong + self._growth() + self.floods.wrong

    async def _drive(self, service: Service) -> None:
        chance = random.Random(self.seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample, service)
            for share in (WARM_UP, 1 - WARM_UP):
                await self._act(service, chance, share * self.minutes * 60)
                await self._look_at_what_is_left(service)
            nursery.cancel_scope.cancel()
        self.seconds = service.seconds
        self.stalls = service.stalls()
        if self.short is not None:
            words = (self.folder / "service.log").read_text()
            self.faults["lines of the log about it"] = words.count(SHORTAGES[self.short].words)

    async def _act(self, service: Service, chance: random.Random, seconds: float) -> None:
        """Change the consoles, and cause faults, for *seconds*; then take everything down."""
        deadline = trio.current_time() + seconds

        def is_over() -> bool:
            return trio.current_time() > deadline

        async with open_qmp_client(service.path) as qmp, trio.open_nursery() as nursery:
            faults = self._faults(service, qmp, random.Random(chance.random()))
            async with trio.open_nursery() as actors:
                actors.start_soon(faults.run, is_over)
                for number, layer in enumerate(self.layers):
                    own = random.Random(chance.random())
                    console = self._console(number, layer, service, nursery, own)
                    actors.start_soon(self._run, console, is_over)
                for number in range(self.crowds):
                    own = random.Random(chance.random())
                    crowd = self._crowd(number, service, nursery, own)
                    actors.start_soon(self._run, crowd, is_over)
            nursery.cancel_scope.cancel()

    async def _look_at_what_is_left(self, service: Service) -> None:
        async with open_qmp_client(service.path) as qmp:
            rows = await qmp.execute("query-chardev")
            if rows:
                raise AssertionError(f"chardevs are left: {rows}")
            await trio.sleep(0.5)
            self.descriptors.append(service.lasting_descriptors)
            self.in_use.append(service.measure())

    def _faults(self, service: Service, qmp: QmpClient, chance: random.Random) -> Faults | Spells:
        if self.short is None:
            return Faults(service, qmp, self.folder, chance, self.faults, self.floods)
        return Spells(SHORTAGES[self.short](service), qmp, self.folder, chance, self.faults)

    def _console(
        self,
        number: int,
        layer: str,
        service: Service,
        nursery: trio.Nursery,
        chance: random.Random,
    ) -> Console:
        name = f"console{number}"
        site = self._site(f"{name}-base" if layer != "none" else name, service, nursery)
        return Console(name, layer, site, self._places, chance, self.counts)

    def _crowd(
        self, number: int, service: Service, nursery: trio.Nursery, chance: random.Random
    ) -> Crowd:
        name = f"crowd{number}"
        site = self._site(name, service, nursery)
        return Crowd(name, "none", site, self._places, chance, self.counts)

    def _site(self, changed: str, service: Service, nursery: trio.Nursery) -> Site:
        context = ssl.create_default_context()
        authority().configure_trust(context)
        return Site(self.folder, service.path, changed, nursery, context)

    @property
    def _places(self) -> tuple[PlaceMaker, ...]:
        return tuple(place for place in ALL_PLACES if place.__name__ in self.places)

    async def _run(self, console: Console, is_over: Callable[[], bool]) -> None:
        async with open_qmp_client(console.site.service) as console.site.qmp:
            await console.run(self._changed, is_over)
        self.bytes_checked += console.bytes_checked

    def _changed(self) -> None:
        self.changes += 1

    async def _sample(self, service: Service) -> None:
        while True:
            await trio.sleep(SAMPLE_INTERVAL)
            self.memory.append(service.memory)
            if sys.stdout.isatty():
                print(f"\r{self.changes} changes, {self.memory[-1] >> 10} KiB ", end="", flush=True)

    def _growth(self) -> list[str]:
        before, after = self.in_use
        wrong = []
        if self.minutes >= 1 and after.blocks > before.blocks + MORE_BLOCKS:
            wrong.append(f"Python's blocks: {before.blocks} before, {after.blocks} after")
        if self.minutes >= 1 and after.malloced > before.malloced + MORE_MALLOCED:
            wrong.append(f"bytes of malloc: {before.malloced} before, {after.malloced} after")
        if self.descriptors[0] != self.descriptors[-1]:
            wrong.append(f"descriptors: {self.descriptors[0]} before, {self.descriptors[-1]} after")
        return wrong

    def figures(self) -> str:
        """Return the table."""
        before, after = self.in_use
        quiet, loud = (f"{seconds * 1e3:.1f}" for seconds in self.floods.most)
        rows = [
            ("seed", self.seed),
            ("minutes", f"{self.minutes:g}"),
            ("bridges, and consoles with a crowd", f"{len(self.layers)}, {self.crowds}"),
            ("changes and what was done instead", self.changes),
            *((f"  {name}", count) for name, count in sorted(self.counts.items())),
            ("short of", self.short) if self.short else ("faults", sum(self.faults.values())),
            *((f"  {name}", count) for name, count in sorted(self.faults.items())),
            ("99 of 100 round trips, without and beside floods, ms", f"{quiet}, {loud}"),
            ("steps of tasks", f"{self.stalls['steps']:,}"),
            ("  999 of 1,000 took at most, ms", f"{self.stalls['p99.9'] * 1e3:.2f}"),
            *(("  the longest", stall) for stall in self.stalls["longest"][:3]),
            ("bytes checked", f"{self.bytes_checked:,}"),
            ("lost, repeated", "0, 0"),
            ("Python's blocks in use, before, after", f"{before.blocks}, {after.blocks}"),
            ("malloc's KiB in use", f"{before.malloced >> 10}, {after.malloced >> 10}"),
            ("resident at most, KiB", max(self.memory, default=0) >> 10),
            ("descriptors before and after", f"{self.descriptors[0]}, {self.descriptors[-1]}"),
            ("processor time of the service, s", f"{self.seconds:.0f}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=20.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--crowds", type=int, default=2, help="consoles with many clients")
    parser.add_argument("--layers", nargs="*", choices=("none", "mux", "hub"), default=LAYERS)
    names = tuple(place.__name__ for place in ALL_PLACES)
    parser.add_argument("--places", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--short", choices=SHORTAGES, help="have too little of it for spells, and no other faults"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        soak = Soak(
            arguments.minutes,
            arguments.seed,
            tuple(arguments.places),
            tuple(arguments.layers),
            Path(folder),
            arguments.crowds,
            arguments.short,
        )
        try:
            wrong = trio.run(soak.run)
        except BaseException:
            print((Path(folder) / "service.log").read_text()[-4000:], file=sys.stderr)
            raise
    print(soak.figures())
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
