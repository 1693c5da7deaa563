"""Writing: one piece, one order, one backend, whatever interrupts it."""

from __future__ import annotations

import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import groupby

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fakes import open_feeding
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.tap import Tap
from trio_chardev.errors import (
    BackendDisconnectedError,
    ChangeFailedError,
    ChardevClosedError,
    WriteInChangeError,
)
from trio_chardev.events import BackendEvent, Event, LineSettings
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions, fake_opener, open_chardev

PATIENCE = 5  # seconds


# ---------------------------------------------------------------- one piece, in order


@pytest.mark.parametrize("eager", [False, True])
async def test_writers_do_not_mix_and_none_overtakes(eager: bool, schedule: int) -> None:
    device = FakeDevice("old", eager=eager)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for letter in b"abc":
                    nursery.start_soon(frontend.send_all, bytes([letter]) * 9)
        assert sorted(device.sent) == sorted(b"abc" * 9)
        assert len(list(groupby(device.sent))) == 3


async def test_a_change_goes_before_the_writers_in_line_for_a_stuck_backend(schedule: int) -> None:
    old, new = FakeDevice("old", stuck=True), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for letter in b"abc":
                    nursery.start_soon(frontend.send_all, bytes([letter]) * 9)
                await wait_all_tasks_blocked()
                await chardev.change(new.open)
        assert not old.sent
        assert sorted(new.sent) == sorted(b"abc" * 9)
        assert len(list(groupby(new.sent))) == 3, "pieces of one write got mixed"


async def test_a_preempted_writer_goes_on_where_the_old_backend_stopped(schedule: int) -> None:
    old, new = FakeDevice("old", eager=True, room=5), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"0123456789")
                await wait_all_tasks_blocked()
                nursery.start_soon(frontend.send_all, b"abc")
                await chardev.change(new.open)
        assert [old.sent, new.sent] == [b"01234", b"56789abc"]


async def test_a_preempted_writer_goes_on_with_the_original_if_the_change_fails() -> None:
    old, new = FakeDevice("old", eager=True, room=2), FakeDevice("new")
    user = FakeFrontend(refuses=new)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=user.be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"0123")
                await wait_all_tasks_blocked()
                with pytest.raises(ChangeFailedError):
                    await chardev.change(new.open)
                old.make_room(9)
        assert [old.sent, new.sent] == [b"0123", b""]


async def test_a_writer_that_had_to_wait_for_a_change_does_not_hold_up_the_next(
    schedule: int,
) -> None:
    """Whoever wants the runner to itself can't interrupt a writer that is in line before it."""
    old, new = FakeDevice("old"), FakeDevice("new", stuck=True, has_line=True)
    async with open_chardev(old) as chardev:
        release = trio.Event()

        async def be_change(backend: Controls) -> None:
            await release.wait()

        frontend = chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chardev.change, new.open)
                await wait_all_tasks_blocked()
                nursery.start_soon(frontend.send_all, b"stuck")
                await wait_all_tasks_blocked()
                nursery.start_soon(frontend.line.set, LineSettings())
                await wait_all_tasks_blocked()
                release.set()
                await wait_all_tasks_blocked()
                assert new.line_calls == [LineSettings()]
                new.stuck = False
                await chardev.change(FakeDevice("third").open)


async def test_line_calls_go_through_while_a_writer_is_stuck(schedule: int) -> None:
    old = FakeDevice("old", eager=True, room=1, has_line=True)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"123")
                await wait_all_tasks_blocked()
                await frontend.line.set(LineSettings(speed=9600))
                await frontend.line.set_echo(False)
                assert old.line_calls == [LineSettings(speed=9600), False]
                old.make_room(2)
        assert old.sent == b"123"


# ---------------------------------------------------------------- the three ways to write


async def test_send_some_sends_a_prefix() -> None:
    device = FakeDevice("old", eager=True, room=3)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        assert await frontend.send_some(b"01234") == 3
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def send() -> None:
                    assert await frontend.send_some(b"34") == 1

                await wait_all_tasks_blocked()
                device.make_room(1)
        assert device.sent == b"0123"


async def test_a_cancelled_send_some_has_sent_nothing() -> None:
    device = FakeDevice("old", stuck=True)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with trio.move_on_after(0):
            await frontend.send_some(b"ab")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_some, b"ab")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert not device.sent
        device.stuck = False
        assert await frontend.send_some(b"ab") == 2


async def test_send_nowait_sends_what_fits_and_0_if_nothing_does() -> None:
    async with open_chardev(FakeDevice("old", eager=True, room=3)) as chardev:
        frontend = chardev.attach()
        assert frontend.try_send(b"01234") == 3
        assert frontend.try_send(b"34") == 0


async def test_send_nowait_is_0_while_another_writes() -> None:
    device = FakeDevice("old", eager=True, room=1)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"aa")
                await wait_all_tasks_blocked()
                device.room = 100  # nobody has told the writer yet
                assert frontend.try_send(b"b") == 0
                device.make_room(100)
                await frontend.wait_send_all_might_not_block()
                assert frontend.try_send(b"b") == 1
        assert device.sent == b"aab"


async def test_during_a_change_send_nowait_is_0_and_one_can_wait_for_its_end() -> None:
    old, new = FakeDevice("old", eager=True), FakeDevice("new", eager=True)
    release = trio.Event()

    async def be_change(backend: Controls) -> None:
        await release.wait()

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chardev.change, new.open)
                await wait_all_tasks_blocked()
                assert frontend.try_send(b"x") == 0

                @nursery.start_soon
                async def write() -> None:
                    await frontend.wait_send_all_might_not_block()
                    assert frontend.try_send(b"x") == 1

                await wait_all_tasks_blocked()
                release.set()
        assert [old.sent, new.sent] == [b"", b"x"]


@pytest.mark.parametrize(
    "data",
    [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"a-b-c-d-")[::2].tobytes()],
    ids=["bytes", "bytearray", "memoryview", "copy"],
)
@pytest.mark.parametrize("eager", [False, True])
async def test_all_kinds_of_bytes_can_be_sent(
    data: bytes | bytearray | memoryview, eager: bool
) -> None:
    device = FakeDevice("old", eager=eager)
    async with open_chardev(device) as chardev:
        await chardev.attach().send_all(data)
        assert device.sent == b"abcd"


async def test_arrays_are_sent_as_the_bytes_that_they_are() -> None:
    numbers = array.array("H", [1, 2, 3])
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        await frontend.send_all(memoryview(numbers))
        await frontend.send_all(memoryview(array.array("H")))
        assert device.sent == numbers.tobytes()


async def test_a_sent_bytearray_is_let_go_of() -> None:
    data = bytearray(b"abc")
    async with open_chardev(FakeDevice("old")) as chardev:
        await chardev.attach().send_all(data)
        data += b"d"  # BufferError while a memoryview of it lives


@pytest.mark.parametrize("eager", [False, True])
async def test_nothing_is_a_write_too(eager: bool) -> None:
    async with open_chardev(FakeDevice("old", eager=eager)) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            await frontend.send_all(b"")
            assert await frontend.send_some(b"") == 0
            assert frontend.try_send(b"") == 0


@pytest.mark.parametrize("eager", [False, True])
async def test_every_write_is_a_checkpoint(eager: bool) -> None:
    async with open_chardev(FakeDevice("old", eager=eager)) as chardev:
        frontend = chardev.attach()
        for data in (b"x", b""):
            with trio.testing.assert_checkpoints():
                await frontend.send_all(data)
            with trio.testing.assert_checkpoints():
                await frontend.send_some(data)
        with trio.testing.assert_checkpoints():
            await frontend.wait_send_all_might_not_block()


# ---------------------------------------------------------------- nobody there


async def test_writing_to_a_dead_backend_raises_until_a_change() -> None:
    old, new = FakeDevice("old", dies_after=3), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        await wait_all_tasks_blocked()
        for write in (frontend.send_all, frontend.send_some):
            with pytest.raises(BackendDisconnectedError, match="of chardev 'serial0' is gone"):
                await write(b"lost")
        with pytest.raises(BackendDisconnectedError):
            frontend.try_send(b"lost")
        await chardev.change(new.open)
        await frontend.send_all(b"kept")
        assert [old.sent, new.sent] == [b"", b"kept"]


@pytest.mark.parametrize("eager", [False, True])
async def test_writing_while_nobody_is_there_raises_and_works_again_later(eager: bool) -> None:
    device = FakeDevice("old", connected=False, eager=eager)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with pytest.raises(BackendDisconnectedError):
            await frontend.send_all(b"lost")
        device.connect()
        await frontend.send_all(b"kept")
        assert device.sent == b"kept"


async def test_a_stuck_writer_hears_that_the_backend_died() -> None:
    device = FakeDevice("old", stuck=True)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(expect, BackendDisconnectedError, frontend.send_all, b"x")
                await wait_all_tasks_blocked()
                device.dies_after = 0
                device.feed(b"last words")


async def test_a_stuck_writer_hears_that_the_chardev_was_closed() -> None:
    async with open_chardev(FakeDevice("old", stuck=True)) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(expect, ChardevClosedError, frontend.send_all, b"x")
                await wait_all_tasks_blocked()
                await chardev.aclose()
        with pytest.raises(ChardevClosedError):
            frontend.try_send(b"x")


async def test_a_stuck_writer_hears_that_its_frontend_was_closed() -> None:
    device = FakeDevice("old", stuck=True)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(expect, trio.ClosedResourceError, frontend.send_all, b"x")
                await wait_all_tasks_blocked()
                await frontend.aclose()
                device.stuck = False
                await chardev.attach().send_all(b"next")
        assert device.sent == b"next"


async def expect(
    error: type[Exception], fn: Callable[[bytes], Awaitable[object]], data: bytes
) -> None:
    with pytest.raises(error):
        await fn(data)


# ---------------------------------------------------------------- taps


class Tape(Tap):
    """Remembers all that it is shown."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def activate(self) -> None:
        self.log.append("activate")

    def sent(self, data: memoryview) -> None:
        self.log.append(f"sent {bytes(data).decode()}")

    def refused(self, data: memoryview) -> None:
        self.log.append(f"refused {bytes(data).decode()}")

    def received(self, data: bytes) -> None:
        self.log.append(f"received {data.decode()}")

    def event(self, event: BackendEvent) -> None:
        self.log.append(event.value if isinstance(event, Event) else str(event))

    def replaced(self, before: str, after: str) -> None:
        self.log.append(f"replaced {before} {after}")


@pytest.mark.parametrize("eager", [False, True])
async def test_a_tap_is_shown_what_was_accepted_and_what_was_refused_for_good(
    eager: bool,
) -> None:
    tape = Tape()
    device = FakeDevice("new", eager=eager, connected=False)
    async with open_chardev(FakeDevice("old")) as chardev:
        frontend = chardev.attach(be_change=tapped(device, tape))
        await chardev.change(device.open)
        assert tape.log == ["activate", "CLOSED", "CLOSED"]
        with pytest.raises(BackendDisconnectedError):
            await frontend.send_all(b"ab")
        device.connect()
        await frontend.send_all(b"cd")
        assert tape.log[3:] == ["refused ab", "OPENED", "sent cd"]


async def test_a_tap_is_shown_what_the_new_backend_refused_of_a_writer_that_was_stuck() -> None:
    tape = Tape()
    old, new = FakeDevice("old", stuck=True), FakeDevice("new", connected=False)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=tapped(new, tape))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect, BackendDisconnectedError, frontend.send_all, b"stuck")
                await wait_all_tasks_blocked()
                await chardev.change(new.open)
        assert tape.log[3:] == ["refused stuck"]


async def test_a_tap_is_shown_what_comes_in_its_order_and_before_the_user_answers() -> None:
    tape = Tape()
    device = FakeDevice("new", eager=True)
    async with open_chardev(FakeDevice("old")) as chardev:

        def answer(data: bytes) -> int:
            frontend.try_send(b"re:" + data)
            return len(data)

        frontend = chardev.attach(be_change=tapped(device, tape), on_receive=answer)
        await chardev.change(device.open)
        device.feed(b"1")
        await wait_all_tasks_blocked()
        device.say(Event.BREAK)
        chardev.send_event(Event.BREAK)
        device.feed(b"2")
        await wait_all_tasks_blocked()
        device.connect(False)
    talk = ["received 1", "sent re:1", "BREAK", "BREAK", "received 2", "sent re:2", "CLOSED"]
    assert tape.log == ["activate", "OPENED", *talk]


async def test_a_tap_is_shown_the_drain_and_then_the_change_and_nothing_of_the_next() -> None:
    tape = Tape()
    first, old, new = (FakeDevice(name, eager=True) for name in ("first", "old", "new"))
    async with open_chardev(first) as chardev:
        await chardev.change(tapping(old, tape))
        frontend = chardev.attach(be_change=stateless)
        await frontend.send_all(b"a")
        await chardev.change(open_feeding(new, old, b"last"))
        await frontend.send_all(b"b")
        new.feed(b"x")
        await wait_all_tasks_blocked()
    talk = ["sent a", "received last", "replaced fake:old fake:new"]
    assert tape.log == ["activate", "OPENED", *talk]


def tapping(device: FakeDevice, tap: Tap) -> Opener:
    @asynccontextmanager
    async def opener(request: OpenRequest) -> AsyncIterator[Backend]:
        async with device.open(request) as backend:
            backend.taps = (tap,)
            yield backend

    return opener


def tapped(device: FakeDevice, tape: Tape) -> Callable[[Controls], Awaitable[None]]:
    async def be_change(backend: Controls) -> None:
        assert device.backend is not None
        device.backend.taps = (tape,)

    return be_change


# ---------------------------------------------------------------- writing in be_change


def write(frontend: Frontend, chardev: Chardev) -> Awaitable[object]:
    return frontend.send_all(b"x")


def write_some(frontend: Frontend, chardev: Chardev) -> Awaitable[object]:
    return frontend.send_some(b"x")


async def write_nowait(frontend: Frontend, chardev: Chardev) -> None:
    frontend.try_send(b"x")


async def write_in_child(frontend: Frontend, chardev: Chardev) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frontend.send_all, b"x")
        await trio.lowlevel.checkpoint()


def wait_to_write(frontend: Frontend, chardev: Chardev) -> Awaitable[object]:
    return frontend.wait_send_all_might_not_block()


def set_line(frontend: Frontend, chardev: Chardev) -> Awaitable[object]:
    return frontend.line.set(LineSettings())


def change(frontend: Frontend, chardev: Chardev) -> Awaitable[object]:
    return chardev.change(FakeDevice("third").open)


USES = [write, write_some, write_nowait, write_in_child, wait_to_write, set_line, change]


@pytest.mark.parametrize("stuck", [False, True], ids=["alone", "beside-a-stuck-writer"])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
async def test_using_the_frontend_in_be_change_is_refused_and_undoes_the_change(
    use: Callable[[Frontend, Chardev], Awaitable[object]], stuck: bool
) -> None:
    """Promise 4: a clear error, not a deadlock."""
    old, new = FakeDevice("old", stuck=stuck), FakeDevice("new", has_line=True)

    async def be_change(backend: Controls) -> None:
        if backend.filename == "fake:new":
            await use(frontend, chardev)

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                if stuck:
                    nursery.start_soon(frontend.send_all, b"stuck")
                    await wait_all_tasks_blocked()
                with pytest.raises(ChangeFailedError) as caught:
                    await chardev.change(new.open)
                assert is_caused_by(caught.value, WriteInChangeError)
                assert chardev.backend is old.backend
                assert not new.is_held_open
                nursery.cancel_scope.cancel()
        if not stuck:
            await frontend.send_all(b"fine")
            assert old.sent == b"fine"


def is_caused_by(error: BaseException | None, kind: type[Exception]) -> bool:
    """Is there a *kind* in what *error* was raised from?"""
    if isinstance(error, BaseExceptionGroup):
        return any(is_caused_by(inner, kind) for inner in error.exceptions)
    return error is not None and (isinstance(error, kind) or is_caused_by(error.__cause__, kind))


async def test_changing_again_through_the_registry_in_be_change_is_refused() -> None:
    async with open_registry_with(fake_opener) as registry:
        await registry.add("a", FakeOptions(device=FakeDevice("a")))
        await registry.add("b", FakeOptions(device=FakeDevice("b")))
        registry["a"].attach(be_change=changes(registry, "b"))
        registry["b"].attach(be_change=changes(registry, "a"))
        with trio.fail_after(PATIENCE), pytest.raises(ChangeFailedError) as caught:
            await registry.change("a", FakeOptions(device=FakeDevice("a2")))
        assert is_caused_by(caught.value, WriteInChangeError)
        assert [info.filename for info in registry.query()] == ["fake:a", "fake:b"]


def changes(registry: Registry, id: str) -> Callable[[Controls], Awaitable[None]]:
    async def be_change(backend: Controls) -> None:
        if backend.filename in ("fake:a2", "fake:b2"):
            await registry.change(id, FakeOptions(device=FakeDevice(f"{id}2")))

    return be_change


async def test_another_chardev_may_be_written_to_and_changed_in_be_change() -> None:
    devices = [FakeDevice(f"{i}") for i in range(4)]
    async with open_chardev(devices[0]) as chardev, open_chardev(devices[1], "serial1") as other:

        async def be_change(backend: Controls) -> None:
            await there.send_all(b"changing")
            await other.change(devices[3].open)

        there = other.attach(be_change=stateless)
        chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            await chardev.change(devices[2].open)
        assert devices[1].sent == b"changing"
        assert (chardev.backend, other.backend) == (devices[2].backend, devices[3].backend)


async def test_a_task_that_be_change_started_may_write_once_that_change_is_over() -> None:
    """Even in the next change, which it waits for like anybody."""
    new, last = FakeDevice("new"), FakeDevice("last")
    go, release = trio.Event(), trio.Event()

    async def later() -> None:
        await go.wait()
        await frontend.send_all(b"hello")

    async def be_change(backend: Controls) -> None:
        if backend.filename == "fake:new":
            nursery.start_soon(later)
        else:
            await release.wait()

    async with open_chardev(FakeDevice("old")) as chardev:
        frontend = chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await chardev.change(new.open)
                nursery.start_soon(chardev.change, last.open)
                await wait_all_tasks_blocked()
                go.set()
                await wait_all_tasks_blocked()
                release.set()
        assert [new.sent, last.sent] == [b"", b"hello"]


async def test_an_event_handler_that_writes_at_the_commit_would_block_and_is_no_error() -> None:
    """The change has the runner still; a greeting to whoever comes belongs into a task."""
    answers: list[int] = []

    def on_event(event: BackendEvent) -> None:
        answers.extend(frontend.try_send(b"hello") for frontend in chardev.frontends)

    old, new = FakeDevice("old", eager=True), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        chardev.attach(be_change=stateless, on_event=on_event)
        await chardev.change(new.open)
        assert answers == [5, 0]
