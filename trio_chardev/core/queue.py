"""What a chardev has received and its frontend has not taken yet.

Bytes and events are in one queue, in the order in which they came, so that a BREAK keeps
its place and a frontend reads the last bytes of a peer before it gets CLOSED. An event that
finds the queue empty does not wait in it: see `Inbox`. The queue outlives the backends.

Bytes may wait in a pipe of the kernel instead (`open_pipe`), which then is one item of the queue.
When somebody looks at them, they take its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import trio

from trio_chardev.core.splicing import SPLICE_CAPACITY, SplicePipe
from trio_chardev.core.waiting import Waiters
from trio_chardev.events import BackendEvent, Event, Purge

Item = bytes | SplicePipe | BackendEvent
NO_ITEMS: deque[Item] = deque()
"""The items of a queue in which nothing has waited yet: a deque of its own takes 0.7 KB."""
OPPOSITE = {
    Event.OPENED: Event.CLOSED,
    Event.CLOSED: Event.OPENED,
    Event.MUX_IN: Event.MUX_OUT,
    Event.MUX_OUT: Event.MUX_IN,
}
ARRIVING = (Event.OPENED, Event.MUX_IN)
LEAVING = (Event.CLOSED, Event.MUX_OUT)
EVENT_WEIGHT = 64  # the bytes that an event counts for, so that events are bounded too


class InboxQueue:
    """A bounded queue of bytes and events; it is async only where it waits."""

    __slots__ = (
        *("_attending", "_items", "_offset", "_plain_capacity", "_readers", "_writers"),
        *("capacity", "is_paused", "limit", "pipe", "size"),
    )

    def __init__(self, capacity: int, limit: int = 0) -> None:
        """*capacity* is for bytes that could wait elsewhere, *limit* for those that can't."""
        self.capacity = capacity
        self.limit = max(capacity, limit)
        self.is_paused = False
        self.pipe: SplicePipe | None = None
        """The pipe that bytes may come into. It is an item of the queue while it is not empty."""
        self._plain_capacity = capacity
        self._items = NO_ITEMS
        self._offset = 0  # how much of the first item has been taken
        self.size = 0
        """How many bytes wait, as `len` says, which takes longer."""
        self._readers = Waiters()
        self._writers = Waiters()
        self._attending: tuple[trio.CancelScope, ...] = ()

    def __len__(self) -> int:
        """How many bytes wait; an event counts as `EVENT_WEIGHT`."""
        return self.size

    @property
    def room(self) -> int:
        """How many bytes may be put; not positive when full."""
        return self.capacity - self.size

    @property
    def spare(self) -> int:
        """How many bytes of a peer that has left should be read: what the `limit` leaves."""
        return 0 if self.is_paused else self.limit - self.size

    def pause(self) -> None:
        """Want no bytes, whatever room there is, until `resume`."""
        self.is_paused = True

    def resume(self) -> None:
        """Want bytes again."""
        if self.is_paused:
            self.is_paused = False
            self.wake_writers()

    def open_pipe(self) -> None:
        """Let bytes wait in a pipe, as many as fit into it. Raises OSError."""
        if self.pipe is None:
            self.pipe = SplicePipe(self._piped)
            self.capacity = max(self._plain_capacity, SPLICE_CAPACITY)
            self.wake_writers()

    def close_pipe(self) -> None:
        """Use no pipe any more; the bytes in it keep their place."""
        if (pipe := self.pipe) is not None:
            items, self._items = self._items, NO_ITEMS
            for item in items:
                for part in pipe.read_all() if item is pipe else [item]:
                    self._append(part)
            self.pipe = None
            pipe.close()
            self.capacity = self._plain_capacity

    def _piped(self, size: int) -> None:
        """Account for *size* bytes that have come into the pipe; negative: they have left it."""
        assert self.pipe is not None
        if size < 0:
            if not self.pipe:
                self._items.remove(self.pipe)
            self._shrink(-size)
        else:
            if len(self.pipe) == size:
                self._append(self.pipe)
            self.size += size
            self._readers.wake()

    @property
    def is_clear(self) -> bool:
        """Is nothing in the queue, or only the pipe?"""
        return not self._items or (len(self._items) == 1 and self._items[0] is self.pipe)

    def put(self, data: bytes) -> None:
        """Append *data*; more than `room` only for the drain after a change."""
        self._append(data)
        self.size += len(data)
        self._readers.wake()

    def _append(self, item: Item) -> None:
        if self._items is NO_ITEMS:
            self._items = deque()
        self._items.append(item)

    def put_back(self, data: bytes) -> None:
        """Put *data*, which was taken before, in front of everything else."""
        if data:
            if self._offset:
                self._items[0] = self._items[0][self._offset :]  # type: ignore[index]
                self._offset = 0
            if self._items:
                self._items.appendleft(data)
            else:
                self._append(data)
            self.size += len(data)
            self._readers.wake()

    def put_event(self, event: BackendEvent) -> None:
        """Append *event*.

        Without room a BREAK is lost, as on an overrun UART, and so is a peer that comes and goes
        without sending a byte; of repeated line settings only the last are kept.
        """
        if self.room <= 0 and self._is_void(event):
            return
        self._append(event)
        self.size += EVENT_WEIGHT
        self._readers.wake()

    def _is_void(self, event: BackendEvent) -> bool:
        """Can *event* be dropped, because events queued since the last bytes cancel it?

        Such an event is removed if it does not matter any more.
        """
        if event is Event.BREAK:
            return True
        for index in reversed(range(len(self._items))):
            item = self._items[index]
            if isinstance(item, bytes | SplicePipe):
                break
            if _concerns_the_same(item, event):
                if item is event or event in ARRIVING:
                    return item is event
                del self._items[index]
                self._shrink(EVENT_WEIGHT)
                return event in LEAVING
        return False

    def take(self, max_bytes: int) -> bytes | BackendEvent | None:
        """Take the next event, or up to *max_bytes* of the bytes before it; None if empty."""
        item = self._first()
        if item is None:
            return None
        if not isinstance(item, bytes):
            self._items.popleft()
            self._shrink(EVENT_WEIGHT)
            return item
        data = self._take_bytes(item, max_bytes)
        if len(data) < max_bytes and self._items:
            data = b"".join([data, *self._take_more(max_bytes - len(data))])
        self._shrink(len(data))
        return data

    def _take_more(self, max_bytes: int) -> Iterator[bytes]:
        """Take up to *max_bytes* of the bytes that follow, item by item."""
        while max_bytes and isinstance(item := self._first(), bytes):
            data = self._take_bytes(item, max_bytes)
            max_bytes -= len(data)
            yield data

    def _take_bytes(self, item: bytes, max_bytes: int) -> bytes:
        """Take up to *max_bytes* of *item*, the first one."""
        end = self._offset + max_bytes
        if end >= len(item):
            data = item[self._offset :] if self._offset else item
            self._items.popleft()
            self._offset = 0
        else:
            data = item[self._offset : end]
            self._offset = end
        return data

    def peek(self) -> bytes | BackendEvent | None:
        """Return what `take` would give next."""
        item = self._first()
        return item[self._offset :] if self._offset and isinstance(item, bytes) else item

    def peek_run(self, max_bytes: int) -> tuple[bytes, bool]:
        """Return up to *max_bytes* of the bytes before the next event, and whether it is right behind.

        Without one, those are the bytes that may be continued by what comes.
        """
        run = bytearray()
        self._first()  # puts the bytes of a pipe in its place
        for index, item in enumerate(self._items):
            if not isinstance(item, bytes):
                return bytes(run), True
            start = 0 if index else self._offset
            run += item[start : start + max_bytes - len(run)]
            if len(run) == max_bytes:
                break
        return bytes(run), False

    @property
    def is_next_piped(self) -> bool:
        """Are the next bytes in the pipe?"""
        return bool(self._items) and self._items[0] is self.pipe

    def _first(self) -> bytes | BackendEvent | None:
        """Return the first item; a pipe is replaced by its bytes."""
        if not self._items:
            return None
        item = self._items[0]
        if isinstance(item, SplicePipe):
            self.close_pipe()
            return self._first()
        return item

    def drop_events(self) -> None:
        """Drop the events, as the user that they concern is gone."""
        kept = [item for item in self._items if isinstance(item, bytes | SplicePipe)]
        gone = len(self._items) - len(kept)
        self._items = deque(kept) if kept else NO_ITEMS
        self._shrink(gone * EVENT_WEIGHT)

    def wake_readers(self) -> None:
        """Make the tasks in `wait_item` look again."""
        self._readers.wake()

    def wake_writers(self) -> None:
        """Make the tasks in `wait_room` look again."""
        self._writers.wake()
        for scope in self._attending:
            scope.cancel()

    async def wait_item(self) -> None:
        """Wait until something was put, or `wake_readers`."""
        await self._readers.wait()

    async def wait_room(self) -> None:
        """Wait until something was taken, or `wake_writers`."""
        await self._writers.wait()

    async def wait_room_attending(self, attend: Callable[[], Awaitable[None]]) -> None:
        """Do as `wait_room`, but run *attend* until there is room; it may return earlier."""
        with trio.CancelScope() as scope:
            self._attending = *self._attending, scope
            try:
                await attend()
            finally:
                self._attending = tuple(one for one in self._attending if one is not scope)

    def _shrink(self, size: int) -> None:
        self.size -= size
        if (self._writers or self._attending) and self.room > 0:
            self.wake_writers()


def _concerns_the_same(one: BackendEvent, other: BackendEvent) -> bool:
    if isinstance(one, Event):
        return one is other or OPPOSITE.get(one) is other
    return one == other if isinstance(one, Purge) else type(one) is type(other)
