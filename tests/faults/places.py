"""What a chardev can be: the soak test's places, and kinds that it does not use."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.soak.places import (
    LOOK_INTERVAL,
    PLACES as SOAK_PLACES,
    FilePeer,
    Peer,
    Place,
    Site,
    backend,
    listening,
)

CAST: Final = b'{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "x"]\n'


class NobodyPeer(Peer):
    """A peer that is not there."""

    can_send = False

    def __init__(self) -> None:
        pass

    async def receive(self) -> bytes:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class DatagramPeer(Peer):
    """A UDP socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def receive(self) -> bytes:
        return await self._sock.recv(1 << 16)

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), 1000):
            await self._sock.send(data[at : at + 1000])

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()


class StdioPeer(FilePeer):
    """The owner of the service's standard input, and of a file that is its standard output."""

    can_send = True

    def __init__(self, out: int, sink: int) -> None:
        super().__init__(out)
        self._sink = sink

    async def send(self, data: bytes) -> None:
        os.write(self._sink, data)
        await trio.lowlevel.checkpoint()


@attrs.frozen
class FaultsPlace:
    """A place with what a scenario has to know about it."""

    place: Place
    bases: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """The chardevs that it stands on, which are added first: id -> backend."""

    talks: bool = True
    """Can there be a peer, and does nothing come but what the peer sends?"""

    bulk: bool = True
    """Can more than a few bytes be sent at once?"""


Maker = Callable[[Site, int], FaultsPlace]
"""Makes a place; the number is a descriptor, the other end of the service's standard input."""


async def nobody() -> Peer:
    await trio.lowlevel.checkpoint()
    return NobodyPeer()


def null(site: Site, stdin: int) -> FaultsPlace:
    return FaultsPlace(Place("null", backend("null"), nobody), talks=False)


def replay(site: Site, stdin: int) -> FaultsPlace:
    path = site.path()
    path.write_bytes(CAST)
    return FaultsPlace(Place("replay", backend("replay", path=str(path)), nobody), talks=False)


def udp(site: Site, stdin: int) -> FaultsPlace:
    ours, theirs = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    for sock in (ours, theirs):
        sock.bind(("127.0.0.1", 0))
    address, there = ours.getsockname(), theirs.getsockname()
    theirs.close()
    ours.connect(there)

    async def join() -> Peer:
        return DatagramPeer(trio.socket.from_stdlib_socket(ours))

    def at(address: tuple[str, int]) -> dict[str, Any]:
        return {"type": "inet", "data": {"host": address[0], "port": str(address[1])}}

    options = backend("udp", remote=at(address), local=at(there))
    return FaultsPlace(Place("udp", options, join, clean_up=ours.close), bulk=False)


def _growing(path: Path) -> Callable[[], Any]:
    async def join() -> Peer:
        await trio.lowlevel.checkpoint()
        return FilePeer(os.open(path, os.O_RDONLY))

    return join


def parallel(site: Site, stdin: int) -> FaultsPlace:
    path = site.path()
    path.touch()
    place = Place("parallel", backend("parallel", device=str(path)), _growing(path))
    return FaultsPlace(place)


def file_with_input(site: Site, stdin: int) -> FaultsPlace:
    path, source = site.path(), site.path()
    source.touch()
    return FaultsPlace(
        Place(
            "file with input",
            backend("file", **{"in": str(source), "out": str(path)}),
            _growing(path),
        )
    )


def ring_file(site: Site, stdin: int) -> FaultsPlace:
    options = backend("ringbuf", size=1 << 16, path=str(site.path()))
    return FaultsPlace(Place("ringbuf in a file", options, nobody), talks=False)


def console(site: Site, stdin: int) -> FaultsPlace:
    options = backend("console", history=1 << 16, **{"history-file": str(site.path())})
    return FaultsPlace(Place("console", options, nobody), talks=False)


def stdio(site: Site, stdin: int) -> FaultsPlace:
    out = os.open(site.folder / "out", os.O_RDONLY)
    os.lseek(out, 0, os.SEEK_END)

    async def join() -> Peer:
        await trio.lowlevel.checkpoint()
        return StdioPeer(os.dup(out), stdin)

    place = Place("stdio", backend("stdio", signal=False), join, clean_up=lambda: os.close(out))
    return FaultsPlace(place, bulk=False)


def _unix(site: Site, **options: Any) -> tuple[dict[str, Any], Callable[[], Any]]:
    path = site.path()

    async def join() -> Peer:
        return Peer(await trio.open_unix_socket(str(path)))

    return listening({"type": "unix", "data": {"path": str(path)}}, **options), join


def logged(site: Site, stdin: int) -> FaultsPlace:
    options, join = _unix(site, logfile=str(site.path()), record=str(site.path()))
    return FaultsPlace(Place("unix with log and record", options, join, takes_another=True))


def mux(site: Site, stdin: int) -> FaultsPlace:
    options, join = _unix(site)
    place = Place("mux", backend("mux", chardev="base"), join, takes_another=True)
    return FaultsPlace(place, bases={"base": options})


def hub(site: Site, stdin: int) -> FaultsPlace:
    options, connect = _unix(site)

    async def join() -> Peer:
        peer: Peer = await connect()
        # What comes before the service has noticed the peer, the hub does not give to it.
        while "disconnected" in await _filename(site, "base"):  # noqa: ASYNC110 - no event
            await trio.sleep(LOOK_INTERVAL)
        return peer

    place = Place("hub", backend("hub", chardevs=["base", "ring"]), join, takes_another=True)
    return FaultsPlace(place, bases={"base": options, "ring": backend("ringbuf")})


async def _filename(site: Site, id: str) -> str:
    rows = await site.qmp.execute("query-chardev")
    return str(next(row["filename"] for row in rows if row["label"] == id))


def _of_soak(make: Callable[[Site], Place]) -> Maker:
    return lambda site, stdin: FaultsPlace(make(site))


PLACES: Final[dict[str, Maker]] = {
    **{make.__name__.replace("_", "-"): _of_soak(make) for make in SOAK_PLACES},
    **{
        make.__name__.replace("_", "-"): make
        for make in (
            null,
            replay,
            udp,
            parallel,
            file_with_input,
            ring_file,
            console,
            stdio,
            logged,
            mux,
            hub,
        )
    },
}
"""The places by the names that scenarios have."""
