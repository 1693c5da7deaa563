"""Adding, changing, removing and listing by id, with QEMU's error texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.handlers import stateless
from trio_chardev.core.info import ChardevInfo
from trio_chardev.errors import (
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevClosedError,
    ChardevExistsError,
    ChardevNotFoundError,
    OptionsError,
)
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions, fake_opener

PATIENCE = 5  # seconds


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry_with(fake_opener) as registry:
        yield registry


def fake(name: str, **faults: bool | float) -> FakeOptions:
    return FakeOptions(device=FakeDevice(name, **faults))  # type: ignore[arg-type]


def tasks(registry: Registry) -> int:
    """How many chardevs run, whether they are listed or not."""
    return len(registry._nursery.child_tasks)


# ---------------------------------------------------------------- add


async def test_add_opens_a_chardev_and_returns_it(registry: Registry) -> None:
    @asynccontextmanager
    async def opener(request: OpenRequest) -> AsyncIterator[Backend]:
        async with FakeDevice("a").open(request) as backend:
            backend.pty = "/dev/pts/7"
            yield backend

    registry._opener_of = lambda options: opener
    chardev = await registry.add("a", BackendOptions())
    assert chardev is registry["a"]
    assert (chardev.pty, chardev.port) == ("/dev/pts/7", None)
    registry._opener_of = fake_opener
    assert (await registry.add("b", fake("b"))).pty is None
    assert list(registry) == ["a", "b"]
    assert registry["b"].id == "b"


async def test_an_id_that_is_taken_is_refused_before_the_backend_is_opened(
    registry: Registry,
) -> None:
    await registry.add("a", fake("a"))
    with pytest.raises(ChardevExistsError, match=r"^Chardev with id 'a' already exists$"):
        await registry.add("a", fake("bad", opens=False))


async def test_an_id_is_taken_while_its_first_backend_is_still_being_opened(
    registry: Registry,
) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.add, "a", fake("late", opens_late=True))
            await wait_all_tasks_blocked()
            with pytest.raises(ChardevExistsError):
                await registry.add("a", fake("a"))
            assert "a" not in registry
            nursery.cancel_scope.cancel()
    await registry.add("a", fake("a"))


@pytest.mark.parametrize("fault", ["opens", "activates"])
async def test_an_opener_that_fails_leaves_no_trace(registry: Registry, fault: str) -> None:
    options = fake("a", **{fault: False})
    with pytest.raises(BackendError, match=r"^Failed to add chardev 'a': a does not "):
        await registry.add("a", options)
    assert not options.device.is_held_open
    assert "a" not in registry
    assert tasks(registry) == 0
    await registry.add("a", fake("a"))


async def test_the_id_that_qemus_container_has_itself_is_refused(registry: Registry) -> None:
    with pytest.raises(ChardevExistsError, match="^Failed to add chardev 'type': attempt to add"):
        await registry.add("type", fake("a"))
    assert tasks(registry) == 0


async def test_options_that_no_opener_takes_leave_no_trace(registry: Registry) -> None:
    def opener_of(options: BackendOptions) -> Opener:
        raise OptionsError("no such kind")

    registry._opener_of = opener_of
    with pytest.raises(OptionsError, match=r"^Failed to add chardev 'a': no such kind$"):
        await registry.add("a", fake("a"))
    assert tasks(registry) == 0
    registry._opener_of = fake_opener
    await registry.add("a", fake("a"))


async def test_an_opening_has_the_time_that_its_options_or_the_caller_say(
    registry: Registry, autojump_clock: MockClock
) -> None:
    await registry.add("b", fake("b"))
    for timeout, seconds in ((None, 30), (1, 1), (0.25, 0.25)):
        start = trio.current_time()
        text = f"^Failed to (add|change) chardev '[ab]': not open after {seconds} seconds$"
        with pytest.raises(BackendError, match=text):
            await registry.add("a", fake("late", opens_late=True), timeout=timeout)
        with pytest.raises(BackendError, match=text):
            await registry.change("b", fake("late", opens_late=True), timeout=timeout)
        assert trio.current_time() - start == pytest.approx(2 * seconds)
    assert tasks(registry) == 1


async def test_a_cancelled_add_leaves_no_trace(registry: Registry, schedule: int) -> None:
    for steps in range(12):
        options = fake("a")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(registry.add, "a", options)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert ("a" in registry) == options.device.is_held_open
        assert tasks(registry) == len(registry)
        if "a" in registry:
            await registry.remove("a")


async def test_an_opener_is_given_the_other_chardevs_and_the_descriptors(
    registry: Registry,
) -> None:
    requests = []

    def opener(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        requests.append(request)
        return FakeDevice("a").open(request)

    registry._opener_of = lambda options: opener
    await registry.add("a", BackendOptions(), take_fd=lambda name: 42)
    await registry.change("a", BackendOptions(), take_fd=lambda name: 43)
    assert [request.files.take_fd("x") for request in requests] == [42, 43]
    assert all(list(request.environment.chardevs) == ["a"] for request in requests)


@pytest.mark.parametrize("name", ["", "-1", "1.5", "\u0661", "fd"])
async def test_without_a_monitor_a_descriptor_is_named_by_its_number(
    registry: Registry, name: str
) -> None:
    names = ["3", name]

    def opener(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        assert request.files.take_fd(names.pop(0)) == 3
        request.files.take_fd(names.pop(0))
        raise AssertionError

    registry._opener_of = lambda options: opener
    text = f"^Failed to add chardev 'a': File descriptor named '{name}' has not been found$"
    with pytest.raises(BackendError, match=text):
        await registry.add("a", BackendOptions())


# ---------------------------------------------------------------- change


async def test_a_change_answers_as_add_does(registry: Registry) -> None:
    await registry.add("a", fake("old"))
    assert await registry.change("a", fake("new")) is registry["a"]
    assert registry.query() == [ChardevInfo("a", "fake:new", frontend_open=False)]


async def test_change_says_of_an_unknown_id_that_it_does_not_exist(registry: Registry) -> None:
    with pytest.raises(ChardevNotFoundError, match=r"^Chardev 'a' does not exist$"):
        await registry.change("a", fake("new"))


async def test_without_a_frontend_a_failed_change_says_so_and_keeps_the_original(
    registry: Registry,
) -> None:
    await registry.add("a", fake("old"))
    text = "^Failed to change chardev 'a': new does not open$"
    with pytest.raises(BackendError, match=text):
        await registry.change("a", fake("new", opens=False))
    assert registry.query() == [ChardevInfo("a", "fake:old", frontend_open=False)]


async def test_with_a_frontend_a_failed_change_has_the_backends_words(registry: Registry) -> None:
    await registry.add("a", fake("old"))
    registry["a"].attach(be_change=stateless)
    with pytest.raises(BackendError, match=r"^new does not open$"):
        await registry.change("a", fake("new", opens=False))
    assert registry.query() == [ChardevInfo("a", "fake:old", frontend_open=True)]


async def test_the_frontends_refusals_come_through(registry: Registry) -> None:
    new = fake("new")
    await registry.add("a", fake("old"))
    async with registry["a"].attach():
        with pytest.raises(ChangeRefusedError):
            await registry.change("a", new)
    registry["a"].attach(be_change=FakeFrontend(refuses=new.device).be_change)
    with pytest.raises(
        ChangeFailedError,
        match=r"^Chardev 'a' change failed: the frontend does not want this backend$",
    ):
        await registry.change("a", new)


async def test_a_replayed_chardev_is_not_changed_with_or_without_a_frontend(
    registry: Registry,
) -> None:
    await registry.add("a", fake("old"), is_replayed=True)
    text = "^Chardev 'a' cannot be changed in record/replay mode$"
    with pytest.raises(ChangeRefusedError, match=text):
        await registry.change("a", fake("new"))
    registry["a"].attach(be_change=stateless)
    with pytest.raises(ChangeRefusedError, match=text):
        await registry.change("a", fake("new"))


# ---------------------------------------------------------------- remove and query


async def test_remove_closes_and_forgets_and_the_id_is_free_again(registry: Registry) -> None:
    options = fake("a")
    await registry.add("a", options)
    await registry.remove("a")
    assert not options.device.is_held_open
    assert "a" not in registry
    assert tasks(registry) == 0
    await registry.add("a", options)
    assert options.device.is_held_open


async def test_remove_refuses_what_is_unknown_or_in_use(registry: Registry) -> None:
    with pytest.raises(ChardevNotFoundError, match=r"^Chardev 'a' not found$"):
        await registry.remove("a")
    await registry.add("a", fake("a"))
    async with registry["a"].attach():
        with pytest.raises(ChardevBusyError, match=r"^Chardev 'a' is busy$"):
            await registry.remove("a")
    await registry.remove("a")


async def test_remove_ends_a_change(registry: Registry, schedule: int) -> None:
    late = fake("late", opens_late=True)

    async def change() -> None:
        with pytest.raises(ChardevClosedError, match=r"^Chardev 'a' is closed$"):
            await registry.change("a", late)

    await registry.add("a", fake("old"))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            await wait_all_tasks_blocked()
            await registry.remove("a")
    assert tasks(registry) == 0


async def test_remove_ends_a_be_change_whose_frontend_has_left(registry: Registry) -> None:
    old, new = fake("old"), fake("new")
    user = FakeFrontend(hangs_at=new.device)

    async def change() -> None:
        with pytest.raises(ChardevClosedError):
            await registry.change("a", new)

    await registry.add("a", old)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            async with registry["a"].attach(be_change=user.be_change):
                nursery.start_soon(change)
                await wait_all_tasks_blocked()
            await registry.remove("a")
    assert tasks(registry) == 0


async def test_a_cancelled_remove_removes_all_the_same(registry: Registry) -> None:
    options = fake("a")
    await registry.add("a", options)
    with trio.CancelScope() as scope:
        scope.cancel()
        await registry.remove("a")
    assert not options.device.is_held_open
    assert tasks(registry) == 0


async def test_query_lists_in_the_order_of_adding_whatever_was_changed(registry: Registry) -> None:
    for id in ("z", "a", "m"):
        await registry.add(id, fake(id))
    await registry.change("z", fake("other"))
    registry["a"].attach()
    assert registry.query() == [
        ChardevInfo("z", "fake:other", frontend_open=False),
        ChardevInfo("a", "fake:a", frontend_open=True),
        ChardevInfo("m", "fake:m", frontend_open=False),
    ]
    assert len(registry) == 3


async def test_an_unknown_id_is_not_found(registry: Registry) -> None:
    with pytest.raises(ChardevNotFoundError, match=r"^Chardev 'a' not found$"):
        registry["a"]


async def test_a_backend_that_dies_ends_no_other_chardev(registry: Registry) -> None:
    """Promise 8."""
    other = fake("other", eager=True)
    await registry.add("a", fake("a", dies_after=1))
    await registry.add("b", other)
    await wait_all_tasks_blocked()
    assert [info.label for info in registry.query()] == ["a", "b"]
    await registry["b"].attach().send_all(b"fine")
    assert other.device.sent == b"fine"


async def test_a_thousand_adds_and_removes_leave_nothing(registry: Registry) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for i in range(1000):
        await registry.add(f"{i % 7}", fake("a", slow_close=False))
        await registry.remove(f"{i % 7}")
    assert tasks(registry) == 0
    assert not registry._adding
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_the_end_of_the_block_closes_all_chardevs() -> None:
    devices = [FakeDevice(f"{i}") for i in range(5)]
    with trio.fail_after(PATIENCE):
        async with open_registry_with(fake_opener) as registry:
            for device in devices:
                await registry.add(device.name, FakeOptions(device=device))
            assert all(device.is_held_open for device in devices)
            frontend = registry["0"].attach()
        assert not any(device.is_held_open for device in devices)
        assert await frontend.receive_some() == b""
        with pytest.raises(ChardevClosedError):
            await frontend.send_all(b"x")


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    device = FakeDevice("a")

    async def fail() -> None:
        async with open_registry_with(fake_opener) as registry:
            await registry.add("a", FakeOptions(device=device))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not device.is_held_open
