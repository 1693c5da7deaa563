"""The queue of what was received: order, room and waits."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.queue import EVENT_WEIGHT, LEAVING, OPPOSITE, InboxQueue
from trio_chardev.events import BackendEvent, Event

PAIRS = ((Event.OPENED, Event.CLOSED), (Event.MUX_IN, Event.MUX_OUT))
PAIR_OF = {event: frozenset(pair) for pair in PAIRS for event in pair}


def everything(queue: InboxQueue, max_bytes: int = 1000) -> list[bytes | BackendEvent]:
    items = []
    while (item := queue.take(max_bytes)) is not None:
        items.append(item)
    return items


def test_bytes_and_events_come_out_in_the_order_in_which_they_came() -> None:
    queue = InboxQueue(1000)
    queue.put(b"ab")
    queue.put_event(Event.BREAK)
    queue.put(b"c")
    queue.put_event(Event.CLOSED)
    assert everything(queue) == [b"ab", Event.BREAK, b"c", Event.CLOSED]
    assert len(queue) == 0


def test_take_gives_no_more_than_asked_for_and_the_rest_later() -> None:
    queue = InboxQueue(1000)
    queue.put(b"abcde")
    queue.put_event(Event.BREAK)
    assert queue.take(2) == b"ab"
    assert queue.peek() == b"cde"
    assert len(queue) == 3 + EVENT_WEIGHT
    assert everything(queue, 2) == [b"cd", b"e", Event.BREAK]


def test_peek_takes_nothing() -> None:
    queue = InboxQueue(1000)
    assert queue.peek() is None
    queue.put_event(Event.BREAK)
    assert queue.peek() is Event.BREAK
    assert everything(queue) == [Event.BREAK]


def test_peek_run_gives_the_bytes_before_the_next_event_and_takes_nothing() -> None:
    queue = InboxQueue(1000)
    assert queue.peek_run(100) == (b"", False)
    queue.put(b"abc")
    queue.put(b"de")
    assert queue.take(1) == b"a"
    assert queue.peek_run(100) == (b"bcde", False)
    assert queue.peek_run(3) == (b"bcd", False)
    assert queue.peek_run(1) == (b"b", False)
    queue.put_event(Event.BREAK)
    queue.put(b"f")
    assert queue.peek_run(100) == (b"bcde", True)
    assert queue.peek_run(4) == (b"bcde", False)  # there may be more, as far as one has looked
    assert everything(queue) == [b"bcde", Event.BREAK, b"f"]


def test_peek_run_sees_what_waits_in_a_pipe() -> None:
    queue = InboxQueue(1000)
    queue.open_pipe()
    assert queue.pipe is not None
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    queue.pipe.fill(ours, os.write(theirs, b"abc"))
    assert queue.peek_run(2) == (b"ab", False)
    assert queue.pipe is None
    assert queue.take(100) == b"abc"
    for fd in (ours, theirs):
        os.close(fd)


def test_one_byte_at_a_time_out_of_a_large_chunk_does_not_copy_the_rest_each_time() -> None:
    copied = 0

    class Counted(bytes):
        def __getitem__(self, index: Any) -> Any:
            nonlocal copied
            taken = super().__getitem__(index)
            copied += len(taken)
            return taken

    size = 1000
    queue = InboxQueue(size)
    queue.put(Counted(size))
    assert len(everything(queue, 1)) == size
    assert copied == size


def test_bytes_and_events_use_up_the_room() -> None:
    queue = InboxQueue(100)
    queue.put(b"x" * 30)
    assert queue.room == 70
    queue.put_event(Event.OPENED)
    assert queue.room == 70 - EVENT_WEIGHT
    queue.put(b"x" * 50)  # as the drain may
    assert queue.room < 0
    everything(queue)
    assert queue.room == 100


def test_without_room_a_break_is_lost_but_no_opened_or_closed() -> None:
    queue = InboxQueue(1)
    queue.put(b"x")
    queue.put_event(Event.BREAK)
    queue.put_event(Event.CLOSED)
    assert everything(queue) == [b"x", Event.CLOSED]


def test_a_peer_that_comes_and_goes_does_not_fill_the_memory() -> None:
    queue = InboxQueue(10 * EVENT_WEIGHT)
    for _ in range(1000):
        queue.put_event(Event.OPENED)
        queue.put_event(Event.CLOSED)
    items = everything(queue)
    assert len(items) <= 11
    assert items[-1] is Event.CLOSED


def test_an_event_that_only_undoes_the_last_one_is_left_out_when_there_is_no_room() -> None:
    queue = InboxQueue(1)
    queue.put(b"x")
    queue.put_event(Event.CLOSED)
    queue.put_event(Event.OPENED)
    queue.put_event(Event.CLOSED)
    queue.put_event(Event.CLOSED)
    assert everything(queue) == [b"x", Event.CLOSED]


def test_peers_that_left_bytes_behind_are_kept_apart_without_room() -> None:
    queue = InboxQueue(1, 1000)
    for data in (b"one", b"two"):
        queue.put(data)
        queue.put_event(Event.CLOSED)
        for _ in range(3):  # these leave nothing behind
            queue.put_event(Event.OPENED)
            queue.put_event(Event.CLOSED)
        queue.put_event(Event.OPENED)
    expected = [b"one", Event.CLOSED, Event.OPENED, b"two", Event.CLOSED, Event.OPENED]
    assert everything(queue) == expected


def test_what_may_be_put_of_a_peer_that_has_left_is_bounded_too() -> None:
    queue = InboxQueue(4, 10)
    queue.put(b"abcdef")
    assert (queue.room, queue.spare) == (-2, 4)
    queue.pause()
    assert queue.spare == 0


async def test_attending_ends_when_something_was_taken_or_with_what_is_attended() -> None:
    queue = InboxQueue(4)
    queue.put(b"abcdef")
    with trio.fail_after(5):
        await queue.wait_room_attending(trio.lowlevel.checkpoint)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(queue.wait_room_attending, trio.sleep_forever)
            await wait_all_tasks_blocked()
            queue.take(2)  # full still
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            queue.take(1)


def test_drop_events_keeps_the_bytes_also_those_of_a_chunk_half_taken() -> None:
    queue = InboxQueue(1000)
    queue.put(b"abc")
    queue.put_event(Event.BREAK)
    queue.put(b"def")
    queue.put_event(Event.CLOSED)
    assert queue.take(1) == b"a"
    queue.drop_events()
    assert len(queue) == 5
    assert everything(queue) == [b"bcdef"]


async def test_wait_room_ends_when_something_was_taken() -> None:
    queue = InboxQueue(4)
    queue.put(b"abcdef")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.wait_room)
            await wait_all_tasks_blocked()
            queue.take(2)  # full still
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            queue.take(1)


async def test_wait_item_ends_when_bytes_or_an_event_come_and_when_woken() -> None:
    queue = InboxQueue(1000)
    wakes: list[Callable[[], None]] = [
        lambda: queue.put(b"a"),
        lambda: queue.put_event(Event.BREAK),
        queue.wake_readers,
    ]
    for wake in wakes:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(queue.wait_item)
                await wait_all_tasks_blocked()
                wake()


def test_take_joins_the_chunks_up_to_the_next_event_or_the_limit() -> None:
    queue = InboxQueue(1000)
    for chunk in (b"ab", b"cd", b"ef"):
        queue.put(chunk)
    queue.put_event(Event.BREAK)
    queue.put(b"gh")
    assert queue.take(3) == b"abc"
    assert queue.take(100) == b"def"
    assert queue.take(100) is Event.BREAK
    assert queue.take(100) == b"gh"


@pytest.mark.parametrize("seed", range(50))
def test_without_room_events_of_two_kinds_that_alternate_do_not_make_it_grow(seed: int) -> None:
    """What is kept leads to the same end: a peer or none, the focus or not."""
    chosen = random.Random(seed).choices(list(OPPOSITE), k=200)
    queue = InboxQueue(10)
    queue.put(bytes(10))
    states = {frozenset(pair): event for event, pair in zip(LEAVING, PAIRS, strict=True)}
    told = dict(states)
    for event in chosen:
        if states[PAIR_OF[event]] is not event:  # it is told changes only
            states[PAIR_OF[event]] = event
            queue.put_event(event)
            assert len(queue) <= 10 + 4 * EVENT_WEIGHT
    for item in everything(queue):
        if isinstance(item, Event):
            told[PAIR_OF[item]] = item
    assert told == states
