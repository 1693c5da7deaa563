"""echo: each byte comes back once and in order, whatever happens below."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from tests.devices.fakes import open_fakes
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.devices.echo import EchoInfo, EchoOptions
from trio_chardev.testing import FakeDevice, FakeOptions

OPTIONS = EchoOptions(id="d", chardev="c")


async def test_what_comes_is_sent_back_also_what_came_before() -> None:
    c = FakeDevice("c", eager=True)
    async with open_fakes(c) as registry:
        c.feed(b"early ")
        await wait_all_tasks_blocked()
        registry.devices.add(OPTIONS)
        c.feed(bytes(range(256)))
        await wait_all_tasks_blocked()
        assert c.sent == b"early " + bytes(range(256))
        assert registry.devices["d"].info == EchoInfo(id="d", chardev="c", bytes=262)


async def test_who_does_not_read_is_not_read() -> None:
    c = FakeDevice("c", eager=True, room=10)
    data = bytes(range(256)) * 1024
    async with open_fakes(c) as registry:
        registry.devices.add(OPTIONS)
        c.feed(data)
        await wait_all_tasks_blocked()
        assert c.sent == data[:10]
        assert c.unread >= len(data) - 10 - INBOX_CAPACITY
        c.make_room(len(data))
        await wait_all_tasks_blocked()
        assert c.sent == data


async def test_what_the_old_one_did_not_take_back_the_new_one_gets() -> None:
    c, new = FakeDevice("c", eager=True, room=3), FakeDevice("new")
    async with open_fakes(c) as registry:
        registry.devices.add(OPTIONS)
        c.feed(b"123456")
        await wait_all_tasks_blocked()
        await registry.change("c", FakeOptions(device=new))
        new.feed(b"789")
        await wait_all_tasks_blocked()
        assert (bytes(c.sent), bytes(new.sent)) == (b"123", b"456789")
