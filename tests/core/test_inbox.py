"""From the backend in place to the frontend: order, handlers, bounds, changes."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fakes import open_feeding
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY, INBOX_LIMIT, Inbox
from trio_chardev.core.last_words import DRAIN_LIMIT
from trio_chardev.errors import ChangeRefusedError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import FakeDevice, FakeFrontend, open_chardev

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED


async def read_all(frontend: Frontend, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            data += await frontend.receive_some()
    return data


# ---------------------------------------------------------------- order


async def test_a_frontend_hears_opened_on_attach_if_somebody_is_there() -> None:
    for connected, events in ((True, [OPENED]), (False, [])):
        user = FakeFrontend()
        async with open_chardev(FakeDevice("old", connected=connected)) as chardev:
            chardev.attach(on_event=user.on_event)
            assert user.events == events


async def test_break_keeps_its_place_among_the_bytes_for_a_reader() -> None:
    device, user = FakeDevice("old"), FakeFrontend()
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event)
        device.feed(b"ab")
        await wait_all_tasks_blocked()
        device.say(BREAK)
        device.feed(b"cd")
        await wait_all_tasks_blocked()
        assert user.events == [OPENED], "told before the bytes that came before it"
        assert frontend.take_ready() == b"ab"
        assert user.events == [OPENED]
        assert frontend.take_ready() == b"cd"
        assert user.events == [OPENED, BREAK]


async def test_who_waits_to_send_hears_at_once_that_somebody_has_come() -> None:
    device, user = FakeDevice("old", connected=False), FakeFrontend()
    async with open_chardev(device) as chardev:
        calls: list[list[object]] = []
        frontend = chardev.attach(
            on_event=user.on_event, on_open=lambda: calls.append(list(user.events))
        )
        device.feed(b"unread")
        await wait_all_tasks_blocked()
        device.connect()
        assert (calls, user.events) == ([[]], [])
        assert frontend.take_ready() == b"unread"
        assert frontend.take_ready() == b""
        assert (calls, user.events) == ([[]], [OPENED])


async def test_break_keeps_its_place_among_the_bytes_for_on_receive() -> None:
    device, user = FakeDevice("old"), FakeFrontend(appetite=1)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event, on_receive=user.on_receive)
        device.feed(b"ab")
        await wait_all_tasks_blocked()
        device.say(BREAK)
        device.feed(b"cd")
        await wait_all_tasks_blocked()
        assert user.seen == [OPENED, b"a"]
        user.appetite = None
        frontend.accept_input()
        assert user.seen == [OPENED, b"a", b"b", BREAK, b"cd"]


async def test_an_event_that_finds_nothing_unread_is_told_at_once() -> None:
    device, user = FakeDevice("old"), FakeFrontend()
    async with open_chardev(device) as chardev:
        chardev.attach(on_event=user.on_event)
        device.say(BREAK)
        device.connect(False)
        assert user.events == [OPENED, BREAK, CLOSED]


async def test_the_last_bytes_of_a_peer_are_read_before_its_closed_is_heard() -> None:
    device, user = FakeDevice("old"), FakeFrontend()
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event)
        device.feed(b"bye")
        await wait_all_tasks_blocked()
        device.connect(False)
        assert await frontend.receive_some() == b"bye"
        assert user.events == [OPENED]
        assert frontend.take_ready() == b""
        assert user.events == [OPENED, CLOSED]


async def test_a_sent_event_comes_as_if_from_the_backend() -> None:
    """QEMU's chardev-send-break: also with a backend that knows no break."""
    user = FakeFrontend()
    async with open_chardev(FakeDevice("old", connected=False)) as chardev:
        chardev.send_event(BREAK)  # nobody is there: forgotten
        chardev.attach(on_event=user.on_event)
        chardev.send_event(BREAK)
        assert user.events == [BREAK]


# ---------------------------------------------------------------- handlers


async def test_on_receive_is_called_by_the_task_that_reads() -> None:
    tasks = []

    def on_receive(data: bytes) -> int:
        tasks.append(trio.lowlevel.current_task().name)
        return len(data)

    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        chardev.attach(on_receive=on_receive)
        device.feed(b"a")
        await wait_all_tasks_blocked()
    assert [name.rpartition(".")[2] for name in tasks] == ["_run_backend"]


async def test_accept_input_within_on_receive_repeats_nothing() -> None:
    """A user of a mux that has another one attached, for one."""
    device, got, accepts = FakeDevice("old"), bytearray(), [False]

    def on_receive(data: bytes) -> int:
        if not accepts[0]:
            return 0
        frontend.accept_input()
        got.extend(data[:2])
        return len(data[:2])

    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_receive=on_receive)
        device.feed(b"abc")
        await wait_all_tasks_blocked()
        device.say(BREAK)
        device.feed(b"def")
        await wait_all_tasks_blocked()
        accepts[0] = True
        frontend.accept_input()
        assert got == b"abcdef"


async def test_what_on_receive_does_not_take_waits_for_accept_input() -> None:
    device, user = FakeDevice("old"), FakeFrontend(appetite=3)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_receive=user.on_receive)
        device.feed(b"abcde")
        await wait_all_tasks_blocked()
        assert user.seen == [b"abc"]
        user.appetite = 1
        device.feed(b"f")
        await wait_all_tasks_blocked()
        assert user.seen == [b"abc"], "offered before what came before it"
        frontend.accept_input()
        assert user.seen == [b"abc", b"d"]
        user.appetite = None
        frontend.accept_input()
        assert b"".join(user.seen) == b"abcdef"  # type: ignore[arg-type]
        device.feed(b"g")
        await wait_all_tasks_blocked()
        assert user.seen[-1] == b"g"


async def test_what_on_receive_does_not_take_can_be_read_too() -> None:
    device, user = FakeDevice("old"), FakeFrontend(appetite=1)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_receive=user.on_receive)
        device.feed(b"abc")
        await wait_all_tasks_blocked()
        assert await frontend.receive_some(1) == b"b"
        assert await frontend.receive_some() == b"c"


@pytest.mark.parametrize("answer", [None, 4, -1], ids=str)
async def test_an_on_receive_that_gives_no_count_of_what_it_took_is_detached(
    answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    device, later = FakeDevice("old"), FakeFrontend()
    async with open_chardev(device) as chardev:
        wrong = chardev.attach(on_receive=lambda data: answer)
        device.feed(b"abc")
        await wait_all_tasks_blocked()
        assert not wrong.is_attached
        assert "on_receive failed" in caplog.text
        chardev.attach(on_receive=later.on_receive)
        assert later.seen == [b"abc"]


async def test_an_on_receive_that_raises_is_detached_alone_and_its_bytes_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def on_receive(data: bytes) -> int:
        raise ZeroDivisionError

    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        wrong = chardev.attach(on_receive=on_receive)
        device.feed(b"abc")
        await wait_all_tasks_blocked()
        assert not wrong.is_attached
        assert not chardev.frontends
        assert caplog.records[0].exc_info is not None
        with pytest.raises(trio.ClosedResourceError):
            await wrong.send_all(b"x")
        assert await chardev.attach().receive_some() == b"abc"


async def test_an_on_event_that_raises_in_the_backends_task_is_detached_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def on_event(event: BackendEvent) -> None:
        if event is BREAK:
            raise ZeroDivisionError

    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        wrong = chardev.attach(on_event=on_event)
        device.say(BREAK)
        assert not wrong.is_attached
        device.feed(b"on")
        assert await chardev.attach().receive_some() == b"on"
    assert "on_event failed" in caplog.text


@pytest.mark.parametrize("more", [b"", b"more"], ids=["last", "first"])
async def test_an_on_event_that_raises_in_receive_some_ends_it_and_takes_no_bytes(
    more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def on_event(event: BackendEvent) -> None:
        if event is BREAK:
            raise ZeroDivisionError

    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=on_event)
        device.feed(b"a")
        await wait_all_tasks_blocked()
        device.say(BREAK)
        device.feed(more)
        await wait_all_tasks_blocked()
        assert await frontend.receive_some() == b"a"
        with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
            await frontend.receive_some()
        assert chardev.attach().take_ready() == more


# ---------------------------------------------------------------- bounds


async def test_a_backend_is_not_read_while_the_queue_is_full_and_is_read_on_later() -> None:
    data = bytes(range(256)) * (INBOX_CAPACITY // 256) + b"rest"
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        device.feed(data)
        await wait_all_tasks_blocked()
        assert device.unread == 4
        frontend = chardev.attach()
        assert frontend.take_ready(1) == data[:1]
        await wait_all_tasks_blocked()
        assert device.unread == 3
        assert await read_all(frontend, len(data) - 1) == data[1:]


async def test_a_peer_that_leaves_while_the_queue_is_full_is_noticed_behind_what_it_sent() -> None:
    data = bytes(range(256)) * (INBOX_CAPACITY // 256) + b"rest"
    device, user = FakeDevice("old"), FakeFrontend(appetite=0)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event, on_receive=user.on_receive)
        device.feed(data)
        await wait_all_tasks_blocked()
        assert device.unread == 4
        device.hang_up()
        await wait_all_tasks_blocked()
        assert not chardev.is_open
        assert user.seen == [OPENED]
        device.connect()
        device.feed(b"next")
        await wait_all_tasks_blocked()
        assert device.unread == 4  # that one is there still, and waits for room
        assert frontend.take_ready() == data
        assert user.seen == [OPENED]
        assert await frontend.receive_some() == b"next"
        assert user.seen == [OPENED, CLOSED, OPENED]


async def test_what_peers_leave_behind_is_bounded() -> None:
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(bytes(INBOX_LIMIT + 5))
        device.hang_up()
        await wait_all_tasks_blocked()
        assert device.unread == 5
        assert chardev.is_open
        frontend.pause_input()
        await read_all(frontend, INBOX_LIMIT)
        await wait_all_tasks_blocked()
        assert device.unread == 5
        frontend.accept_input()
        await read_all(frontend, 5)
        await wait_all_tasks_blocked()
        assert not chardev.is_open


async def test_bytes_can_be_read_one_by_one_out_of_a_large_chunk() -> None:
    data = bytes(range(256)) * 20
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(data)
        await wait_all_tasks_blocked()
        assert b"".join([await frontend.receive_some(1) for _ in data]) == data


async def test_the_next_frontend_gets_what_is_unread_but_no_old_events() -> None:
    device, user = FakeDevice("old"), FakeFrontend()
    async with open_chardev(device) as chardev:
        async with chardev.attach():
            device.feed(b"unread")
            await wait_all_tasks_blocked()
            device.say(BREAK)
            device.connect(False)
            device.connect(True)
        chardev.attach(on_event=user.on_event, on_receive=user.on_receive)
        assert user.seen == [OPENED, b"unread"]


# ---------------------------------------------------------------- changes


async def test_nothing_is_handed_over_during_a_change_and_all_of_it_afterwards() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def be_change(backend: object) -> None:
        old.feed(b"meanwhile")
        old.say(BREAK)
        await wait_all_tasks_blocked()
        frontend.accept_input()
        assert frontend.take_ready() == b""
        user.seen.append("set up")

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(
            be_change=be_change, on_event=user.on_event, on_receive=user.on_receive
        )
        await chardev.change(new.open)
        assert user.seen == [OPENED, "set up", BREAK, b"meanwhile", OPENED]


async def test_at_the_commit_the_old_backends_bytes_come_before_the_new_ones() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    data = b"".join(b"%07d," % i for i in range(3 * INBOX_CAPACITY // 8))  # more than fits
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        old.feed(data)
        new.feed(b"new")
        await chardev.change(new.open)
        assert await read_all(frontend, len(data) + 3) == data + b"new"
        assert not old.unread


async def test_no_byte_is_lost_between_the_old_backends_task_and_the_commit(schedule: int) -> None:
    """Promise 3: what was read but not handed over yet when the commit came."""
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        frontend = chardev.attach(be_change=stateless)

        async def feed() -> None:
            for i in range(30):
                old.feed(bytes([i]))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(feed)
        await chardev.change(new.open)
        taken = len(old.fed) - old.unread
        new.feed(b"new")
        await wait_all_tasks_blocked()
        assert await read_all(frontend, taken + 3) == old.fed[:taken] + b"new"


async def test_the_drain_of_a_backend_that_has_always_more_ends() -> None:
    """Promise 9: a file, or a peer as fast as we are, must not fill the memory."""
    async with open_chardev(FakeDevice("old", endless=True)) as chardev:
        frontend = chardev.attach(be_change=stateless)
        await chardev.change(FakeDevice("new").open)
        size = 0
        while data := frontend.take_ready():
            size += len(data)
        assert DRAIN_LIMIT <= size <= DRAIN_LIMIT + INBOX_CAPACITY


async def test_without_a_frontend_the_drain_keeps_no_more_than_the_queue_does() -> None:
    old, more = FakeDevice("old"), b"b" * (2 * INBOX_CAPACITY)
    async with open_chardev(old) as chardev:
        old.feed(b"a" * 100)
        await wait_all_tasks_blocked()
        await chardev.change(open_feeding(FakeDevice("new"), old, more))
        frontend = chardev.attach()
        data = await read_all(frontend, INBOX_CAPACITY)
        assert data == b"a" * 100 + b"b" * (INBOX_CAPACITY - 100)
        assert frontend.take_ready() == b""


async def test_what_comes_to_the_old_backend_after_the_commit_is_not_heard() -> None:
    """Its task may be on its way to read already."""
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    def on_event(event: BackendEvent) -> None:
        if user.seen:  # OPENED of the new backend
            old.feed(b"late")
        user.on_event(event)

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=stateless, on_event=on_event, on_receive=user.on_receive)
        await chardev.change(open_feeding(new, old, b"in time"))
        new.feed(b"new")
        await wait_all_tasks_blocked()
        assert user.seen == [OPENED, b"in time", OPENED, b"new"]


async def test_a_frontend_that_never_reads_ends_up_with_changes_refused() -> None:
    async with open_chardev(FakeDevice("old", endless=True)) as chardev:
        chardev.attach(be_change=stateless)
        await chardev.change(FakeDevice("new").open)
        with pytest.raises(ChangeRefusedError, match=r"has \d+ bytes that its user has not read"):
            await chardev.change(FakeDevice("third").open)


async def test_a_backend_that_breaks_in_the_drain_does_not_undo_the_commit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaking(FakeDevice):
        def take(self, max_bytes: int) -> bytes:
            if self.unread:
                raise OSError("Input/output error")
            return b""

    old, new = Breaking("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        await chardev.change(open_feeding(new, old, b"lost"))
        new.feed(b"new")
        assert await read_all(frontend, 3) == b"new"
    assert "the old backend broke in the drain" in caplog.text


async def test_a_change_ends_a_pipe_before_anything_else() -> None:
    """What is in it stays the first; the next bytes have to wait for the end of the change."""
    inbox: Inbox[Frontend] = Inbox()
    inbox.open_pipe(lambda size: None)
    assert inbox.queue.pipe is not None
    inbox.hold(closed=False)
    assert inbox.queue.pipe is None
