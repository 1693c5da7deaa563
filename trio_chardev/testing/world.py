"""The world behind a fake backend, with its faults."""

from __future__ import annotations

import attrs
import trio

from trio_chardev.core.backend import Backend


@attrs.define(eq=False)
class FakeWorld:
    """What a fake backend was sent, what it will receive, its faults."""

    name: str
    opens: bool = True
    """False: opening raises BackendError."""
    opens_late: bool = False
    """Opening never ends."""
    connected: bool = True
    """Is somebody at the other end, so that the backend is open?"""
    stuck: bool = False
    """Sending blocks for ever."""
    eager: bool = False
    """`send_nowait` takes everything, else two bytes at a time, and those only after a wait."""
    room: int | None = None
    """An eager device takes so many bytes until `make_room`, as a kernel's buffer does."""
    gulp: int | None = None
    """An eager device takes so many bytes at once at most, and more when it is offered them again."""
    has_line: bool = False
    """The backend has line settings, modem lines, break and echo."""
    line_fails: bool = False
    """Line settings raise BackendError."""
    is_polled: bool = False
    """Its input is looked for again before it is waited for, see `Polling`."""
    can_splice: bool = False
    """Bytes can come and go by a `SplicePipe`; `eager` or not, what goes is put at once."""
    endless: bool = False
    """There is always more to receive."""
    dies_after: int | None = None
    """`wait_readable` raises after so many checkpoints."""
    dies_early: bool = False
    """The backend ends by itself before it is in place."""
    activates: bool = True
    """False: the commit raises BackendError."""
    lets_go: bool = True
    """False: its backend has not got what it needs to be replaced."""
    slow_close: bool = True
    """Closing takes a shielded checkpoint."""
    close_seconds: float = 0
    """Closing takes so long, and is shielded."""
    holds: bool = False
    """What it was sent can be taken back, until `take_all`, as what is in a ring or a FIFO."""
    settle_seconds: float | None = None
    """Its peer is taking what it was sent, and has it after so long."""
    is_taking: bool = False
    """Its peer takes something of what it was sent, and it is not settled any more."""
    drains: bool = True
    """False: its peer never takes the last bytes."""
    last_words: bytes = b""
    """What its peer sends when it is left, before it can know of that."""
    answers: bool = True
    """False: when it is left its peer goes on sending what it is fed, until it is given up."""
    keeps_peer: bool = False
    """Its backend takes over the peer of another, if it is asked to."""

    is_held_open: bool = False
    """Is there a backend on it that is not closed?"""
    is_active: bool = False
    """Was the backend put in place?"""
    is_leaving: bool = False
    """Was the backend asked to `prepare_to_leave`, and not to `stay`?"""
    has_left: bool = False
    """See `hang_up`."""
    sent: bytearray = attrs.Factory(bytearray)
    fed: bytearray = attrs.Factory(bytearray)
    line_calls: list[object] = attrs.Factory(list)
    """The arguments of the line calls that went well, in order."""
    backend: Backend | None = None
    _taken: int = 0  # how much of what was sent
    _coming: bytearray = attrs.Factory(bytearray)
    _reader: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _writer: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def feed(self, data: bytes) -> None:
        """*data* arrives, as it would in a kernel's buffer."""
        self.fed += data
        self._coming += data
        self._reader.unpark_all()

    @property
    def unread(self) -> int:
        """How many of the bytes that were fed have not been read."""
        return len(self._coming)

    def make_room(self, size: int) -> None:
        """The peer reads *size* bytes out of the kernel's buffer."""
        self.room = size
        self._writer.unpark_all()

    def hang_up(self) -> None:
        """The peer leaves; what was fed can still be read."""
        self.has_left = True
        self._reader.unpark_all()

    def take_all(self) -> None:
        """The peer reads what was sent: it can't be taken back any more."""
        self._taken = len(self.sent)

    def take_back(self) -> bytes:
        """What was sent since `take_all`; the peer will never see it."""
        if not self.holds:
            return b""
        data = bytes(self.sent[self._taken :])
        del self.sent[self._taken :]
        return data

    def connect(self, connected: bool = True) -> None:
        """The peer comes, or goes."""
        self.connected = connected
        if self.backend is not None:
            self.backend.set_open(connected)

    def take(self, max_bytes: int) -> bytes:
        """What has arrived."""
        if self.endless:
            return b"~" * max_bytes
        data = bytes(self._coming[:max_bytes])
        del self._coming[:max_bytes]
        return data

    def take_fed(self) -> bytes:
        """All that has arrived."""
        return self.take(len(self._coming))

    def put(self, data: memoryview) -> int:
        """Take what there is room for."""
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
