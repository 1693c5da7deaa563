"""What a chardev counts, over all its backends."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import trio_chardev as tc
from trio_chardev.core.counts import Counts
from trio_chardev.testing import FakeDevice, open_chardev


async def test_the_last_words_of_a_replaced_backend_are_counted() -> None:
    old, new = FakeDevice("old", last_words=b"bye"), FakeDevice("new")
    async with open_chardev(old) as chardev, chardev.attach(be_change=tc.stateless) as frontend:
        old.feed(b"hello")
        await chardev.change(new.open)
        new.feed(b"!")
        with trio.fail_after(5):
            got = b""
            while len(got) < 9:
                got += await frontend.receive_some()
        assert got == b"hellobye!"
        statistics = chardev.statistics()
    assert (statistics.received, statistics.connects, statistics.changes) == (9, 2, 1)


async def test_what_is_carried_over_was_sent_once() -> None:
    old, new = FakeDevice("old", holds=True), FakeDevice("new", connected=False)
    async with open_chardev(old) as chardev, chardev.attach(be_change=tc.stateless) as frontend:
        await frontend.send_all(b"hello")
        await chardev.change(new.open, carry=True)
        statistics = chardev.statistics()
        assert (statistics.sent, statistics.unsent) == (5, 5)
        new.connect(True)
        await trio.testing.wait_all_tasks_blocked()
        statistics = chardev.statistics()
        assert bytes(new.sent) == b"hello"
    assert (statistics.sent, statistics.unsent) == (5, 0)


async def test_a_backend_that_ends_by_itself_is_a_failure() -> None:
    device = FakeDevice("c", dies_after=0)
    async with open_chardev(device) as chardev:
        await trio.testing.wait_all_tasks_blocked()
        assert chardev.state.state == "failed"
        assert chardev.statistics().failures == 1


async def test_who_gives_up_sending_is_blocked_no_more() -> None:
    async with (
        open_chardev(FakeDevice("c", eager=True, room=0)) as chardev,
        chardev.attach() as frontend,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"x")
            await trio.testing.wait_all_tasks_blocked()
            assert chardev.statistics().blocked_since is not None
            nursery.cancel_scope.cancel()
        assert chardev.statistics().blocked_since is None
        assert chardev.statistics().sent == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (tc.BackendError("no such line"), "no such line"),
        (KeyboardInterrupt(), "it was cancelled"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_error_of_a_change_is_told_until_one_is_made(error: BaseException, text: str) -> None:
    counts = Counts()
    counts.note_failed_change(error)
    assert (counts.failed_changes, counts.change_error) == (1, text)
    counts.note_change()
    assert (counts.changes, counts.failed_changes, counts.change_error) == (1, 1, None)


def test_pauses_are_summed() -> None:
    counts = Counts()
    for seconds in (0.5, 0.25):
        counts.note_pause(seconds)
    assert (counts.last_pause, counts.paused) == (0.25, 0.75)
