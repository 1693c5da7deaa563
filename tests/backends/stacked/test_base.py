"""The one user of a base: what it owes the base, what it loses, and to whom it passes input on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.fakes import any_opener
from trio_chardev.backends.stacked.base import Base
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions


@attrs.define(eq=False)
class FakeOwner:
    """Takes all that comes."""

    got: bytearray = attrs.Factory(bytearray)
    events: list[BackendEvent] = attrs.Factory(list)
    is_used: bool = True
    answers_line: bool = False

    def base_received(self, data: bytes) -> int:
        self.got += data
        return len(data)

    def base_event(self, base: Base, event: BackendEvent) -> None:
        self.events.append(event)

    def base_opened(self) -> None:
        """Nothing to note."""

    def base_line_changed(self) -> None:
        """Nothing to note."""

    async def base_changes(self, backend: Controls) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice("a", eager=True)


@asynccontextmanager
async def attached(device: FakeDevice) -> AsyncIterator[tuple[Base, Chardev]]:
    async with open_registry_with(any_opener) as registry:
        await registry.add("a", FakeOptions(device=device))
        yield Base(registry["a"]), registry["a"]


async def test_what_is_owed_goes_before_anything_else(device: FakeDevice) -> None:
    device.room = 0
    async with attached(device) as (base, _):
        base.owed += b"owed"
        assert base.send_nowait(memoryview(b"next")) == 0
        device.make_room(6)
        assert base.send_nowait(memoryview(b"next")) == 2
        assert bytes(device.sent) == b"owedne"
        assert not base.owed


async def test_what_can_not_be_paid_is_given_up_counted_and_told_once(
    device: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    async with attached(device) as (base, _):
        device.connect(False)
        for piece in (b"ow", b"ed"):
            base.owed += piece
            with pytest.raises(BackendDisconnectedError):
                base.pay_nowait()
            assert base.is_paid()
        assert base.frontend.relay.lost == 4
        device.connect()
        assert base.send_nowait(memoryview(b"more")) == 4
    told = [text for name, level, text in caplog.record_tuples if level == logging.WARNING]
    assert len(told) == 2
    assert told[1] == "chardev 'a' has lost 4 bytes"


async def test_input_waits_until_there_is_an_owner(device: FakeDevice) -> None:
    async with attached(device) as (base, _):
        device.feed(b"early")
        await trio.testing.wait_all_tasks_blocked()
        owner = FakeOwner()
        base.owner = owner
        base.frontend.accept_input()
        device.feed(b" late")
        device.connect(False)
        await trio.testing.wait_all_tasks_blocked()
        assert owner.got == b"early late"
        assert owner.events[-1] is Event.CLOSED


async def test_a_base_has_one_user(device: FakeDevice) -> None:
    async with attached(device) as (base, chardev):
        with pytest.raises(BackendError, match="'a'"):
            Base(chardev)
        base.leave()
        Base(chardev)
