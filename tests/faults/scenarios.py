"""Scenarios: what is done while a call fails, and what must be true afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.faults.places import PLACES, FaultsPlace, Maker, _unix
from tests.faults.service import PATIENCE
from tests.faults.world import BrokenPromiseError, World, soon
from tests.soak.places import Place, backend

BULK: Final = 100_000  # bytes
OLD: Final = ("unix-server", "pty")  # kinds that are changed to every other kind, and back


@attrs.define(eq=False)
class Scenario:
    """A scenario that does nothing, the base class; each scenario is used once."""

    is_start: bool = False
    """Does it act while the service is starting?"""
    is_end: bool = False
    """Does it tell the service to end?"""

    def arguments(self, folder: Path) -> list[str]:
        """Return the arguments of ``serve``."""
        return []

    async def set_up(self, world: World) -> None:
        """Prepare, before anything fails."""

    async def act(self, world: World) -> None:
        """Act; a call of the service fails meanwhile."""

    async def check(self, world: World) -> None:
        """Check, when nothing fails any more. Raises BrokenPromiseError."""

    async def clean_up(self, world: World) -> None:
        """Remove everything."""
        for row in await world.insist("query-devices"):
            if row["id"] != "echo":
                await world.insist("device_del", id=row["id"])
        names = [id for id in await world.filenames() if id != "witness"]
        for id in sorted(names, key=lambda id: (id in ("base", "ring"), id)):
            await world.insist("chardev-remove", id=id)


async def add(world: World, where: FaultsPlace) -> None:
    """Add the chardev, with a peer and a user."""
    await world.insist("chardev-add", id="x", backend=where.place.backend)
    await use(world, where)


async def add_bases(world: World, where: FaultsPlace) -> None:
    for id, options in where.bases.items():
        await world.insist("chardev-add", id=id, backend=options)


async def add_user(world: World) -> None:
    address = {"type": "unix", "data": {"path": str(world.folder / "user")}}
    options = backend("socket", addr=address, server=True, wait=False)
    await world.insist("chardev-add", id="user", backend=options)
    await world.meet_user()


BRIDGE: Final = {
    "driver": "bridge",
    "id": "b",
    "chardev": "x",
    "peer": "user",
    "when-closed": "hold",
}


async def use(world: World, where: FaultsPlace) -> None:
    """Join *where*, which is in place, and bridge it to the user."""
    await world.insist("device_add", **BRIDGE)
    if where.talks:
        if not await world.join(where):
            raise BrokenPromiseError("nobody can come")
        await world.talk(where)


async def be_usable(world: World, where: FaultsPlace) -> None:
    """Let peers that were disconnected come again, and check that all works."""
    if not where.talks:
        return
    if "b" not in [row["id"] for row in await world.insist("query-devices")]:
        if "b-ever" in world.marks:
            raise BrokenPromiseError("the bridge is gone")
        await world.insist("device_add", **BRIDGE)
    with trio.move_on_after(ACT_AGAIN) as cut:
        while True:
            if _is_over(world, where) or await _talks(world, where):
                break
            await trio.sleep(0.01)
    if cut.cancelled_caught:
        raise BrokenPromiseError("who was disconnected can't come again, or is not served")


ACT_AGAIN: Final = 1.5 * PATIENCE  # seconds


def _is_over(world: World, where: FaultsPlace) -> bool:
    """Was the peer of a place disconnected that takes no other?"""
    return bool(world.ends) and world.ends[-1].has_left and not where.place.takes_another


async def _talks(world: World, where: FaultsPlace) -> bool:
    if world.user.has_left:
        try:
            await world.meet_user()
        except OSError:
            return False
    if (not world.ends or world.ends[-1].has_left) and not await world.join(where):
        return False
    await world.talk(where)
    return not (world.user.has_left or world.ends[-1].has_left)


@attrs.define(eq=False, kw_only=True)
class OnPlace(Scenario):
    """A scenario with one kind."""

    make: Maker
    where: FaultsPlace = attrs.field(init=False)

    async def set_up(self, world: World) -> None:
        self.where = world.make(self.make)
        await add_user(world)
        await add_bases(world, self.where)


class Add(OnPlace):
    """Adds a chardev, and is the first to use it."""

    async def act(self, world: World) -> None:
        if await world.attempt("chardev-add", id="x", backend=self.where.place.backend):
            world.marks.add("x")
            if await world.attempt("device_add", **BRIDGE):
                world.marks.add("b-ever")
            if self.where.talks and await world.join(self.where) and "b-ever" in world.marks:
                await world.talk(self.where)

    async def check(self, world: World) -> None:
        if "x" not in await world.filenames():
            if "x" in world.marks:
                raise BrokenPromiseError("the chardev is gone")
            await world.insist("chardev-add", id="x", backend=self.where.place.backend)
        await be_usable(world, self.where)


class Use(OnPlace):
    """Talks."""

    async def set_up(self, world: World) -> None:
        await super().set_up(world)
        await add(world, self.where)
        world.marks.add("b-ever")

    async def act(self, world: World) -> None:
        if self.where.talks:
            for size in (20, 20, BULK):
                await world.talk(self.where, size)

    async def check(self, world: World) -> None:
        if self.where.talks:
            await world.check_bytes()
        await be_usable(world, self.where)


class Remove(OnPlace):
    """Removes a chardev that is in use."""

    async def set_up(self, world: World) -> None:
        await super().set_up(world)
        await world.insist("chardev-add", id="x", backend=self.where.place.backend)
        if self.where.talks:
            await world.join(self.where)

    async def act(self, world: World) -> None:
        await world.attempt("chardev-remove", id="x")

    async def check(self, world: World) -> None:
        if "x" in await world.filenames():
            await world.insist("chardev-remove", id="x")


@attrs.define(eq=False, kw_only=True)
class Change(OnPlace):
    """Changes one kind to another, while both sides write."""

    make_new: Maker
    new: FaultsPlace = attrs.field(init=False)
    before: str = attrs.field(init=False)

    async def set_up(self, world: World) -> None:
        await super().set_up(world)
        self.new = world.make(self.make_new)
        await add_bases(world, self.new)
        await add(world, self.where)
        world.marks.add("b-ever")
        self.before = await self._filename(world)

    async def act(self, world: World) -> None:
        if self.where.talks:
            await world.ends[-1].send(b"up to the change")
        await world.user.send(b"down to the change")
        options = {"drain-timeout": 2, "carry": not self.where.place.keeps}
        await world.attempt("chardev-change", id="x", backend=self.new.place.backend, **options)

    async def check(self, world: World) -> None:
        where = self.where
        if await self._filename(world) != self.before:
            where = self.new
            for end in world.ends:
                end.peer.is_replaced = True
            if where.talks and not await world.join(where):
                raise BrokenPromiseError("nobody can come to the new one")
        if where is self.new and "base" in self.where.bases and self.new.talks:
            await world.check_left("base")
        elif where is self.new and "ring" in self.new.bases:
            await be_usable(world, where)  # after it nothing is in transit
            await world.check_ring("ring")
        elif self.where.talks and self.new.talks:
            await world.check_bytes()
        await be_usable(world, where)

    async def _filename(self, world: World) -> str:
        """Return the file name without the peer's state."""
        filename = (await world.filenames())["x"]
        return filename.removeprefix("disconnected:").partition(",")[0].partition(" <-> ")[0]


@attrs.define(eq=False, kw_only=True)
class Bridges(Scenario):
    """Bridges in bulk, between sockets."""

    where: FaultsPlace = attrs.field(init=False)

    async def set_up(self, world: World) -> None:
        options, join = _unix(world.site)
        self.where = FaultsPlace(Place("unix", options, join, takes_another=True))
        await add_user(world)
        await add(world, self.where)
        world.marks.add("b-ever")

    async def act(self, world: World) -> None:
        for _ in range(3):
            await world.talk(self.where, 10 * BULK)

    async def check(self, world: World) -> None:
        await world.check_bytes()
        await be_usable(world, self.where)


class State(Scenario):
    """Keeps what clients do in a file."""

    def arguments(self, folder: Path) -> list[str]:
        return ["--state", str(folder / "state")]

    async def act(self, world: World) -> None:
        await world.attempt("chardev-add", id="a", backend=backend("null"))
        await world.attempt("chardev-add", id="c", backend=backend("ringbuf"))
        await world.attempt("chardev-change", id="a", backend=backend("ringbuf"))
        await world.attempt("chardev-remove", id="c")

    async def check(self, world: World) -> None:
        names = set(await world.filenames()) - {"witness"}

        def is_kept() -> bool:
            try:
                kept = json.loads((world.folder / "state").read_text())
            except (OSError, ValueError):
                return False
            return {item["id"] for item in kept["chardevs"]} == names

        await soon(is_kept, f"the state does not have {sorted(names)}")


class Start(Scenario):
    """The start of a service with much to do."""

    def arguments(self, folder: Path) -> list[str]:
        (folder / "cast").write_bytes(b'{"version": 2, "width": 80, "height": 24}\n')
        return [
            *(
                "--chardev",
                f"socket,id=user,path={folder}/user,server=on,wait=off,logfile={folder}/log",
            ),
            *("--chardev", "socket,id=tcp,host=127.0.0.1,port=0,server=on,wait=off"),
            *("--chardev", f"pty,id=x,path={folder}/pty,record={folder}/record"),
            *("--chardev", f"ringbuf,id=r,path={folder}/ring,size=4096"),
            *("--chardev", f"file,id=f,path={folder}/file", "--chardev", "null,id=n,mux=on"),
            *("--chardev", f"replay,id=y,path={folder}/cast"),
            *("--device", "bridge,id=b,chardev=x,peer=user"),
            *("--pidfile", f"{folder}/pid", "--state", f"{folder}/state"),
        ]

    async def clean_up(self, world: World) -> None:
        pass


class End(Start):
    """The end of such a service."""

    async def set_up(self, world: World) -> None:
        await world.meet_user()


def _scenarios() -> dict[str, Callable[[], Scenario]]:
    found: dict[str, Callable[[], Scenario]] = {}

    def one(name: str, cls: type[Scenario], **arguments: Any) -> None:
        found[name] = lambda: cls(**arguments)

    for kind, make in PLACES.items():
        one(f"add {kind}", Add, make=make)
        one(f"use {kind}", Use, make=make)
        one(f"remove {kind}", Remove, make=make)
    for kind, make in PLACES.items():
        for old in OLD:
            one(f"change {old} to {kind}", Change, make=PLACES[old], make_new=make)
            if kind not in OLD:
                one(f"change {kind} to {old}", Change, make=make, make_new=PLACES[old])
    one("bridges in bulk", Bridges)
    one("state", State)
    one("start", Start, is_start=True)
    one("end", End, is_end=True)
    return found


SCENARIOS: Final = _scenarios()
"""The scenarios by name; each call makes one."""
