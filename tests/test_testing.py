"""The fakes do what they promise; else the tests that use them prove nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.controls import Controls
from trio_chardev.errors import BackendDisconnectedError, BackendError, NotSupportedError
from trio_chardev.events import BackendEvent, Event, LineSettings
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeFrontend, open_chardev
from trio_chardev.testing.pair import receive_some

PATIENCE = 5  # seconds


def request(events: list[BackendEvent] | None = None) -> OpenRequest:
    return OpenRequest(
        id="a", on_event=list[BackendEvent]().append if events is None else events.append
    )


async def test_a_device_says_whether_a_backend_is_open_on_it() -> None:
    device, events = FakeDevice("a"), list[BackendEvent]()
    async with device.open(request(events)) as backend:
        assert device.is_held_open
        assert device.backend is backend
        assert backend.is_open
    assert not device.is_held_open
    assert events == [Event.OPENED]


async def test_a_device_that_does_not_open_raises_backend_error() -> None:
    device = FakeDevice("a", opens=False)
    with pytest.raises(BackendError, match=r"^a does not open$"):
        async with device.open(request()):
            raise AssertionError
    assert not device.is_held_open


async def test_a_device_that_opens_late_waits_for_ever(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1000) as scope:
        async with FakeDevice("a", opens_late=True).open(request()):
            raise AssertionError
    assert scope.cancelled_caught


async def test_a_device_that_dies_early_ends_in_one_backend_error() -> None:
    with pytest.raises(BackendError, match=r"^a died$"):
        async with FakeDevice("a", dies_early=True).open(request()):
            await trio.sleep_forever()


@pytest.mark.parametrize(("slow", "seconds"), [(True, 3), (False, 0)])
async def test_closing_takes_its_time_if_it_is_shielded(
    slow: bool, seconds: int, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with FakeDevice("a", slow_close=slow, close_seconds=3).open(request()):
            scope.cancel()
    assert trio.current_time() - start == pytest.approx(seconds)


@pytest.mark.parametrize("fault", [{"stuck": True}, {"eager": True, "room": 0}])
async def test_a_stuck_or_full_device_takes_nothing_and_cancelled_means_nothing_was_sent(
    fault: dict[str, bool],
) -> None:
    device = FakeDevice("a", **fault)  # type: ignore[arg-type]
    async with device.open(request()) as backend:
        backend.activate()
        assert backend.send_nowait(memoryview(b"x")) == 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.send_some, memoryview(b"x"))
                await wait_all_tasks_blocked()
                scope.cancel()
        assert not device.sent


async def test_a_device_with_room_takes_that_much() -> None:
    device = FakeDevice("a", eager=True, room=3)
    async with device.open(request()) as backend:
        backend.activate()
        assert await backend.send_some(memoryview(b"01234")) == 3
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.send_some, memoryview(b"34"))
                await wait_all_tasks_blocked()
                device.make_room(1)
        assert device.sent == b"0123"


async def test_without_a_peer_it_cannot_be_written_to() -> None:
    device = FakeDevice("a", connected=False, eager=True)
    async with device.open(request()) as backend:
        backend.activate()
        with pytest.raises(BackendDisconnectedError):
            backend.send_nowait(memoryview(b"x"))
        with pytest.raises(BackendDisconnectedError):
            await backend.send_some(memoryview(b"x"))


@pytest.mark.parametrize("fault", [{}, {"stuck": True}, {"eager": True}])
async def test_a_backend_that_is_not_in_place_notices_that_it_is_used(
    fault: dict[str, bool],
) -> None:
    async with FakeDevice("a", **fault).open(request()) as backend:  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="written before"):
            await backend.send_some(memoryview(b"x"))
        with pytest.raises(AssertionError, match="read before"):
            await receive_some(backend, 1)


@pytest.mark.parametrize("has_line", [True, False])
async def test_a_device_has_a_line_or_not(has_line: bool) -> None:
    async with FakeDevice("a", has_line=has_line).open(request()) as backend:
        line = backend.line
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: line.set(LineSettings()),
            line.get_modem,
            lambda: line.send_break(0),
            lambda: line.set_echo(True),
        ]
        for call in calls:
            with nullcontext() if has_line else pytest.raises(NotSupportedError):
                await call()
        assert line.is_settable == has_line


async def test_what_is_fed_is_received_in_order_and_counted() -> None:
    device = FakeDevice("a")
    async with device.open(request()) as backend:
        backend.activate()
        device.feed(b"ab")
        device.feed(b"c")
        assert device.unread == 3
        assert await receive_some(backend, 2) == b"ab"
        assert backend.receive_nowait(2) == b"c"
        assert backend.receive_nowait(2) == b""
        assert device.fed == b"abc"


async def test_a_frontend_remembers_and_refuses() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    user = FakeFrontend(refuses=new, appetite=1)
    async with old.open(request()) as one, new.open(request()) as two:
        await user.be_change(Controls(one))
        assert user.bound == "fake:old"
        with pytest.raises(ValueError, match="does not want"):
            await user.be_change(Controls(two))
        assert user.bound is None
        user.on_event(Event.BREAK)
        assert [user.on_receive(b"xy"), user.on_receive(b"y")] == [1, 0]
    assert user.seen == ["fake:old", "fake:new", Event.BREAK, b"x"]


async def test_open_chardev_closes_what_it_opened() -> None:
    device = FakeDevice("a")
    async with open_chardev(device, "id") as chardev:
        assert chardev.id == "id"
        assert isinstance(chardev.backend, Backend)
    assert chardev.is_closed
    assert not device.is_held_open


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancel_at_step_counts_the_steps_while_it_is_armed(when: str) -> None:
    """Sweeping k meets every checkpoint once, and then none."""

    async def main(k: int) -> tuple[int, bool]:
        done = 0
        with trio.CancelScope() as scope:
            injector = CancelAtStep(k, when, scope)
            trio.lowlevel.add_instrument(injector)
            await trio.lowlevel.checkpoint()
            injector.armed = True
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                done += 1
            injector.armed = False
        trio.lowlevel.remove_instrument(injector)
        return done, injector.fired

    endings = [trio.run(main, k) for k in range(1, 9)]
    fired = [ending for ending in endings if ending[1]]
    assert endings == fired + [(3, False)] * (8 - len(fired))
    assert {0, 1, 2} <= {done for done, _ in fired}
