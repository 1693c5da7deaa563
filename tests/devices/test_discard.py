"""discard: takes everything, counts it, and sends nothing."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from tests.devices.fakes import open_fakes
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.devices.discard import DiscardInfo, DiscardOptions
from trio_chardev.testing import FakeDevice, FakeOptions


async def test_all_that_comes_is_taken_and_counted_through_a_change() -> None:
    c, new = FakeDevice("c", eager=True), FakeDevice("new", eager=True)
    async with open_fakes(c) as registry:
        registry.devices.add(DiscardOptions(id="d", chardev="c"))
        c.feed(bytes(3 * INBOX_CAPACITY))
        await wait_all_tasks_blocked()
        assert c.unread == 0
        await registry.change("c", FakeOptions(device=new))
        new.feed(b"more")
        await wait_all_tasks_blocked()
        count = 3 * INBOX_CAPACITY + 4
        assert registry.devices["d"].info == DiscardInfo(id="d", chardev="c", bytes=count)
        assert c.sent + new.sent == b""
