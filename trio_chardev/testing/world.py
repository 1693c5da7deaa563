"""The state behind a fake backend, with its faults."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from trio_chardev.core.backend import Backend
from trio_chardev.events import LineRequest, LineSettings, ModemLines


@attrs.define(eq=False, repr=False)
class FakeWorld:
    """What a fake backend was sent, what it will receive, and its faults."""

    name: str
    opens: bool = True
    """False: opening raises BackendError."""
    opens_late: bool = False
    """Opening never ends."""
    at_once: bool = False
    """It neither waits when it opens nor when it closes, see `AtOnce`; `dies_early` has no effect."""
    is_silent: bool = False
    """Nothing comes from it, and no task reads it."""
    connected: bool = True
    """Is somebody at the other end, so that the backend is open?"""
    stuck: bool = False
    """Sending blocks for ever."""
    eager: bool = False
    """`send_nowait` takes everything; if False, two bytes at a time, and only after a wait."""
    room: int | None = None
    """How many bytes an eager device takes until `make_room`, like a kernel's buffer."""
    gulp: int | None = None
    """The most bytes that an eager device takes at once; offered again, it takes more."""
    has_line: bool = False
    """The backend has line settings, modem lines, break and echo."""
    polled: frozenset[str] = frozenset()
    """What of the line has to be looked at, see `Line.polled`."""
    looks: int = 0
    """How often its line was looked at."""
    line_fails: bool = False
    """Line settings raise BackendError."""
    line: LineSettings | None = None
    """What its line is set to; None: neither that nor its outputs can be read."""
    modem: ModemLines = ModemLines.CTS | ModemLines.DSR
    """Which of its modem lines are on."""
    line_refuses: object = None
    """What a line call raises BackendError for, in the form that `line_calls` has."""
    gives_all: bool = True
    """What was fed is read as a whole, see `Backend.gives_all`."""
    is_polled: bool = False
    """Its input is polled before it is waited for, see `Polling`."""
    can_splice: bool = False
    """A `SplicePipe` can be used both ways; what is sent by it is taken as if `eager`."""
    endless: bool = False
    """There is always more to receive."""
    dies_after: int | None = None
    """After how many checkpoints `wait_readable` raises."""
    dies_early: bool = False
    """The backend dies before it is in place."""
    activates: bool = True
    """False: the commit raises BackendError."""
    lets_go: bool = True
    """False: `Leaving.prepare` raises BackendError."""
    slow_close: bool = True
    """Closing takes a shielded checkpoint."""
    close_seconds: float = 0
    """How long closing takes; it is shielded."""
    holds: bool = False
    """What it was sent can be taken back until `take_all`, as from a ring or a FIFO."""
    settle_seconds: float | None = None
    """Its peer is reading what it was sent, and takes that long to read all."""
    is_taking: bool = False
    """Its peer has begun to read again after `settle`."""
    drains: bool = True
    """False: its peer never takes the last bytes."""
    last_words: bytes = b""
    """What its peer sends when it is replaced, before it can know of that."""
    answers: bool = True
    """False: when it is replaced, its peer goes on sending what it is fed, until the deadline."""
    max_frontends: int = 1
    """How many users its chardev may have."""
    on_touch: Callable[[], None] = lambda: None
    """Called by the backend's `Stacking.touch`."""
    keeps_peer: bool = False
    """Does its backend take over the peer of another, if asked to (`keep_peer`)?"""

    is_held_open: bool = False
    """Is there a backend on it that is not closed yet?"""
    holders: int = 0
    """How many backends are on it; two while one takes the place of the other."""
    is_active: bool = False
    """Was the backend put in place?"""
    is_leaving: bool = False
    """Was the backend asked to `Leaving.prepare`, and not to `stay` since?"""
    is_settling: bool = False
    """Was it asked to `Leaving.settle`, and neither to prepare nor to stay since?"""
    has_left: bool = False
    """See `hang_up`."""
    sent: bytearray = attrs.Factory(bytearray)
    fed: bytearray = attrs.Factory(bytearray)
    line_calls: list[object] = attrs.Factory(list)
    """The arguments of the line calls that went well, in order."""
    acknowledged: list[tuple[LineRequest, LineRequest | None]] = attrs.Factory(list)
    """The arguments of `Line.acknowledge`, in order."""
    backend: Backend | None = None
    _taken: int = 0  # how many of the bytes sent can't be taken back
    _coming: bytearray = attrs.Factory(bytearray)
    _reader: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _writer: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def feed(self, data: bytes) -> None:
        """Have *data* arrive, as in a kernel's buffer."""
        self.fed += data
        self._coming += data
        self._reader.unpark_all()

    @property
    def unread(self) -> int:
        """How many of the bytes fed have not been read."""
        return len(self._coming)

    def make_room(self, size: int) -> None:
        """Have the peer read *size* bytes from the kernel's buffer."""
        self.room = size
        self._writer.unpark_all()

    def hang_up(self) -> None:
        """Have the peer leave; what was fed can still be read."""
        self.has_left = True
        self._reader.unpark_all()

    def take_all(self) -> None:
        """Have the peer read what was sent, so that it can't be taken back any more."""
        self._taken = len(self.sent)

    def take_back(self) -> bytes:
        """Take back what was sent since `take_all`; the peer will never see it."""
        if not self.holds:
            return b""
        data = bytes(self.sent[self._taken :])
        del self.sent[self._taken :]
        return data

    def connect(self, connected: bool = True) -> None:
        """Have the peer come, or go."""
        self.connected = connected
        if self.backend is not None:
            self.backend.set_open(connected)

    def take(self, max_bytes: int) -> bytes:
        """Read what has arrived."""
        if self.endless:
            return b"~" * max_bytes
        data = bytes(self._coming[:max_bytes])
        del self._coming[:max_bytes]
        return data

    def take_fed(self) -> bytes:
        """Read all that has arrived."""
        return self.take(len(self._coming))

    def put(self, data: memoryview) -> int:
        """Take as much of *data* as there is room for, and return how much."""
        room = len(data) if self.room is None else self.room
        if self.room is not None:
            self.room -= len(data[:room])
        self.sent += data[:room]
        return len(data[:room])

    async def wait_fed(self) -> None:
        """Wait for `feed`."""
        await self._reader.park()

    async def wait_room(self) -> None:
        """Wait for `make_room`, if there is none."""
        await trio.lowlevel.checkpoint()
        while self.room == 0:
            await self._writer.park()
