"""One console: a bridge of which one side is changed without end, and the checker of its bytes.

The user's side is a UNIX socket that stays. What the user writes must come, complete and in
order, to the successive peers at the other side; what these write, to the user.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.soak.places import CHUNK, Peer, Place, PlaceMaker, Site, backend, listening, patiently
from trio_chardev import QmpError, open_qmp_client

WINDOW: Final = 1 << 17  # bytes in transit in one direction; less than a ring holds
HOLD: Final = {"when-closed": "hold"}
LATE: Final = 0.03  # seconds, after which most changes are over
PATIENCE: Final = 60.0  # seconds in which something must move
HISTORY: Final = 6  # changes
PERIOD: Final = 65521  # bytes; a prime number, so that no buffer's size divides it

Changed = Callable[[], None]


class LostOrRepeatedError(Exception):
    """The bytes that came are not those that were sent."""


@attrs.define
class Flow:
    """One direction, whose bytes are known by their positions."""

    name: str
    pattern: bytes
    sent: int = 0
    received: int = 0
    is_paused: bool = False
    is_busy: bool = False
    """Is its writer sending what is counted as sent already?"""
    moved: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def take(self, size: int) -> bytes:
        """Return the next bytes to send, and count them as sent."""
        start = self.sent % PERIOD
        self.sent += size
        return self.pattern[start : start + size]

    def check(self, data: bytes) -> None:
        """Check *data*, which has come. Raises LostOrRepeatedError."""
        while data:
            start = self.received % PERIOD
            piece, data = data[:CHUNK], data[CHUNK:]
            expected = self.pattern[start : start + len(piece)]
            if piece != expected or self.received + len(piece) > self.sent:
                raise LostOrRepeatedError(self._say(self.received, piece))
            self.received += len(piece)
        self.moved.unpark_all()

    def _say(self, at: int, piece: bytes) -> str:
        expected = self.pattern[at % PERIOD :]
        good = next((i for i, (a, b) in enumerate(zip(piece, expected, strict=False)) if a != b), 0)
        came = piece[good : good + 32]
        place = self.pattern.find(came)
        elsewhere = f"what stands at {place} modulo {PERIOD}" if place >= 0 else "what was not sent"
        return (
            f"{self.name}: {self.sent} sent, {at + good} ({(at + good) % PERIOD}) received, "
            f"then came {elsewhere}: {came.hex()}, not {expected[good : good + 32].hex()}"
        )

    @property
    def has_room(self) -> bool:
        return not self.is_paused and self.sent - self.received < WINDOW

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for *condition*, which progress in this direction may fulfil."""
        while not condition():
            before = self.sent, self.received
            with trio.move_on_after(PATIENCE) as patience:
                await self.moved.park()
            if patience.cancelled_caught and (self.sent, self.received) == before:
                missing = self.sent - self.received
                raise LostOrRepeatedError(f"{self.name}: {missing} bytes do not come")

    async def pause(self) -> None:
        """Stop the writer."""
        self.is_paused = True
        await self.until(lambda: not self.is_busy)

    async def settle(self) -> None:
        """Stop the writer, and wait until everything it has written has come."""
        await self.pause()
        await self.until(lambda: self.sent == self.received)

    def resume(self) -> None:
        self.is_paused = False
        self.moved.unpark_all()


def flow(name: str, chance: random.Random) -> Flow:
    pattern = chance.randbytes(PERIOD)
    return Flow(name, pattern + pattern + pattern[:CHUNK])


@attrs.define(eq=False)
class Console:
    """A console of chardevs, a bridge, and a user that stays."""

    name: str
    layer: str
    """What stands between the bridge and the chardev that is changed: "none", "mux" or "hub"."""
    site: Site
    places: tuple[PlaceMaker, ...]
    """The places that it may be changed to."""
    chance: random.Random
    counts: Counter[str]
    _down: Flow = attrs.field(init=False)
    _up: Flow = attrs.field(init=False)
    _user: Peer = attrs.field(init=False)
    _user_path: Path = attrs.field(init=False)
    _place: Place = attrs.field(init=False)
    _peer: Peer = attrs.field(init=False)
    _history: deque[str] = attrs.field(factory=lambda: deque(maxlen=HISTORY), init=False)
    """The last changes, to find out what went wrong."""
    _reading: trio.Event = attrs.Factory(trio.Event)
    """Set while the peers read."""
    _joined: trio.Event = attrs.Factory(trio.Event)
    """Set while somebody is at the other end."""
    _next: trio.Event = attrs.Factory(trio.Event)
    """Set when the next peer is to come."""

    def __attrs_post_init__(self) -> None:
        self._down = flow(f"{self.name}, to the peers", self.chance)
        self._up = flow(f"{self.name}, from the peers", self.chance)
        self._up.is_paused = True
        self._reading.set()

    @property
    def bytes_checked(self) -> int:
        return self._down.received + self._up.received

    async def _execute(self, command: str, **arguments: Any) -> Any:
        return await patiently(self.site.qmp, command, arguments, self._starved)

    def _starved(self, what: str) -> None:
        self.counts[f"commands refused for want of {what}"] += 1

    async def run(self, changed: Changed, is_over: Callable[[], bool]) -> None:
        """Change it until *is_over*, then take it down. *changed* is called after each change."""
        await self._set_up()
        try:
            await self._change_until(is_over, changed)
        except BaseExceptionGroup as group:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                devices = await self._execute("query-devices")
                group.add_note(str([d for d in devices if self.name in d["id"]]))
            flows = [(flow.sent, flow.received, flow.is_paused) for flow in (self._up, self._down)]
            group.add_note(f"{self.name}: up, down {flows}; {', '.join(self._history)}")
            raise
        await self._take_down()

    async def _change_until(self, is_over: Callable[[], bool], changed: Changed) -> None:
        async with trio.open_nursery() as nursery:
            self._start_user(nursery)
            nursery.start_soon(self._write, self._up, self._send_up)
            nursery.start_soon(self._read_peers)
            await self._joined.wait()
            while not is_over():
                await trio.sleep(self.chance.random() * 0.05)
                await self._do_something()
                changed()
            await self._down.settle()
            await self._up.settle()
            nursery.cancel_scope.cancel()

    async def _set_up(self) -> None:
        self._place = self._choose()
        await self._execute("chardev-add", id=f"{self.name}-user", backend=self._user_side())
        await self._execute("chardev-add", id=self.site.id, backend=self._place.backend)
        if self.layer == "mux":
            above = backend("mux", chardev=self.site.id)
            await self._execute("chardev-add", id=self.name, backend=above)
        elif self.layer == "hub":
            await self._execute("chardev-add", id=f"{self.name}-null", backend=backend("null"))
            above = backend("hub", chardevs=[self.site.id, f"{self.name}-null"])
            await self._execute("chardev-add", id=self.name, backend=above)
        bridge = {"driver": "bridge", "id": f"{self.name}-bridge", "chardev": self.name}
        await self._execute("device_add", peer=f"{self.name}-user", **bridge, **HOLD)
        await self._join_user()

    def _user_side(self) -> dict[str, Any]:
        """Return the backend of the side that stays."""
        self._user_path = self.site.path()
        return listening({"type": "unix", "data": {"path": str(self._user_path)}})

    async def _join_user(self) -> None:
        """Have the user come."""
        self._user = Peer(await trio.open_unix_socket(str(self._user_path)))

    def _start_user(self, nursery: trio.Nursery) -> None:
        """Have the user write and read."""
        nursery.start_soon(self._write, self._down, self._user.send)
        nursery.start_soon(self._read, self._up, self._user)

    async def _part_user(self) -> None:
        """Have the user go, when all else is taken down."""
        await self._user.aclose()

    async def _take_down(self) -> None:
        await self._execute("device_del", id=f"{self.name}-bridge")
        if self.layer != "none":
            await self._execute("chardev-remove", id=self.name)
        if self.layer == "hub":
            await self._execute("chardev-remove", id=f"{self.name}-null")
        await self._execute("chardev-remove", id=self.site.id)
        await self._execute("chardev-remove", id=f"{self.name}-user")
        await self._part_user()
        await self._peer.aclose()
        self._place.clean_up()

    def _choose(self) -> Place:
        return self.chance.choice(self.places)(self.site)

    # ------------------------------------------------------------ bytes

    async def _write(self, flow: Flow, send: Callable[[bytes], Any]) -> None:
        while True:
            while not flow.has_room:
                await flow.moved.park()
            flow.is_busy = True
            await send(flow.take(self.chance.randrange(1, 1 << self.chance.randrange(1, 15))))
            flow.is_busy = False
            flow.moved.unpark_all()

    async def _send_up(self, data: bytes) -> None:
        """Send up, but only while there is a peer that can: see `_pause_up`."""
        await self._peer.send(escaped(data, self.layer))

    async def _read(self, flow: Flow, peer: Peer) -> None:
        while data := await peer.receive():
            flow.check(data)

    async def _read_peers(self) -> None:
        """Read what comes to one peer after the other."""
        while True:
            place = self._place
            peer = self._peer = await place.join()
            while not place.sends_no_more and (await self.site.filename()).startswith(
                "disconnected:"
            ):
                pass  # bytes for a client that the service has not accepted go with the backend
            self._joined.set()
            if peer.can_send:
                self._up.resume()
            await self._reading.wait()
            while data := await peer.receive():
                self._down.check(data)
                await self._reading.wait()
            await peer.aclose()
            await self._next.wait()
            self._next = trio.Event()
            if place is not self._place:
                place.clean_up()

    # ------------------------------------------------------------ what is done to the console

    async def _do_something(self) -> None:
        dice = self.chance.random()
        if dice < 0.15:
            await self._fail_to_change()
        elif dice < 0.25:
            await self._give_up_a_change()
        elif dice < 0.35 and self._place.takes_another:
            await self._have_the_peer_leave()
        else:
            await self._change()

    async def _change(self) -> None:
        """Change it while the user writes; its old peer may read, be slow, or not read at all."""
        old = self._place
        carries = self.chance.random() < 0.5
        if old.is_socket and self.chance.random() < 0.5:
            await self._up.pause()  # what was sent up is drained
        else:
            await self._up.settle()
        if not old.keeps and not carries:
            await self._down.settle()
        late = old.is_socket and self.chance.random() < 0.5
        new = self._choose()
        note = " carried" * carries + " read late" * late
        self._history.append(f"{old.kind} to {new.kind}{note}")
        async with trio.open_nursery() as nursery:
            if late:
                self._reading = trio.Event()
                nursery.start_soon(self._read_late)
            await self._execute(
                "chardev-change",
                id=self.site.id,
                backend=new.backend,
                carry=carries,
                **{"drain-timeout": PATIENCE},
            )
        self._peer.is_replaced = True
        self._place = new
        await self._meet_next()
        self.counts[f"changes to {new.kind}"] += 1

    async def _read_late(self) -> None:
        await trio.sleep(LATE)
        self._reading.set()

    async def _meet_next(self) -> None:
        """Replace the peer of the current place by another."""
        self._joined = trio.Event()
        self._next.set()
        self._down.resume()
        with trio.fail_after(PATIENCE):
            await self._joined.wait()

    async def _fail_to_change(self) -> None:
        nowhere = str(self.site.path() / "nowhere")
        bad = self.chance.choice(
            [
                backend("file", out=nowhere),
                backend("serial", device=nowhere),
                backend("pipe", device=nowhere),
                backend("ringbuf", size=3),
                backend("null", logfile=nowhere),
                backend("socket", addr={"type": "unix", "data": {"path": nowhere}}, server=False),
                listening({"type": "inet", "data": {"host": "127.0.0.1", "port": "70000"}}),
                backend("mux", chardev=self.site.id),
                backend("vc"),
            ]
        )
        try:
            await self._execute("chardev-change", id=self.site.id, backend=bad)
        except QmpError:
            self.counts["changes made to fail"] += 1
        else:
            raise LostOrRepeatedError(f"{self.name}: a change to {bad} did not fail")

    async def _give_up_a_change(self) -> None:
        """Ask, as a client, for a change that waits for somebody, and leave."""
        path = self.site.path()
        address = {"type": "unix", "data": {"path": str(path)}}
        waiting = backend("socket", addr=address, server=True, wait=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_elsewhere, self.site, waiting)
            await until(path.exists)
            nursery.cancel_scope.cancel()
        await until(lambda: not path.exists())
        self.counts["changes given up"] += 1

    async def _have_the_peer_leave(self) -> None:
        await self._up.settle()
        await self._down.settle()
        await self._peer.aclose()
        while self._place.is_tcp and "<->" in await self.site.filename():
            pass  # what is sent before the service has noticed gets lost
        await self._meet_next()
        self.counts["peers that left and came again"] += 1


def escaped(data: bytes, layer: str) -> bytes:
    """Escape *data* as it is typed at a mux, whose escape character is 0x01."""
    return data.replace(b"\x01", b"\x01\x01") if layer == "mux" else data


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what only the file system shows."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(0.002)


async def ask_elsewhere(site: Site, wanted: dict[str, Any]) -> None:
    """Ask for a change on a connection of its own, which is closed when Cancelled."""
    async with open_qmp_client(site.service) as qmp:
        await patiently(qmp, "chardev-change", {"id": site.id, "backend": wanted})
