"""Much that a client sends at once is handled in turns with the other clients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.qmp.server.test_monitor import World, open_world, wire
from trio_chardev.core.frontend import Frontend
from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.server import dispatcher, monitor as module
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.qmp.server.turn import TURN, WAITING
from trio_chardev.testing import CancelAtStep

MANY = {"count": 3 * TURN, "at-once": 3 * TURN // WAITING}  # a few turns of them
FEW = 90  # of 5 KB each: a portion that one turn is not enough for
FEWEST_STEPS = 5
COUNT = 2000  # of what is sent at once
ECHO = wire("echo")
MOST = 2 * TURN  # between two turns of another; of the tasks that are ready any is the first


@attrs.define(eq=False)
class Others:
    """A task that is always ready, and what was answered before each of its turns."""

    world: World
    answered: list[int] = attrs.Factory(list)

    async def run(self) -> None:
        while True:
            self.answered.append(bytes(self.world.device.sent).count(b"\r\n"))
            await trio.lowlevel.checkpoint()

    @property
    def most(self) -> int:
        """The most answers between two turns."""
        return max(after - before for before, after in pairwise(self.answered))


async def finish(world: World, count: int) -> int:
    """Have *count* answers come, others being ready all the time; the most between two turns."""
    others = Others(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        end = bytes(world.device.sent).count(b"\r\n") + count
        with trio.fail_after(20):
            while others.answered[-1:] != [end]:  # noqa: ASYNC110 - nobody tells
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return others.most


def add_command(world: World, name: str, handler: Callable[[Context, NoArguments], Any]) -> None:
    world.monitor.dispatcher.commands = {
        **world.monitor.dispatcher.commands,
        name: Command(NoArguments, handler),
    }


@pytest.mark.parametrize("unit", [ECHO, b"}", b"[]", b"\xff", b"{}"])
async def test_of_what_comes_at_once_a_part_is_done_at_a_time(unit: bytes) -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.feed(unit * COUNT)
        assert await finish(world, COUNT) <= MOST
        assert world.device.unread == 0


async def at_once(context: Context, arguments: NoArguments) -> str:
    """It may wait, but does not."""
    return "done"


async def test_so_it_is_with_commands_that_might_wait_and_do_not() -> None:
    async with open_world() as world:
        add_command(world, "at-once", at_once)
        await world.negotiate()
        world.device.feed(wire("at-once") * COUNT)
        assert await finish(world, COUNT) <= MOST // WAITING


@pytest.mark.parametrize("unit", [ECHO, b"[]"])
async def test_so_it_is_with_what_has_waited_for_another_command(
    unit: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """It was read in the meantime, all of it: then reading on is not held up by turns either."""
    async with open_world() as world:
        await world.negotiate()
        world.send("slow")
        world.device.feed(unit * COUNT)
        await trio.sleep(dispatcher.PATIENCE + 0.1)
        assert world.device.unread == 0
        world.slow.gate.set()
        assert await finish(world, COUNT + 1) <= MOST


@pytest.mark.parametrize(("pretty", "most"), [(False, MOST * 1024), (True, MOST * 128)])
async def test_answers_count_by_their_size_too(pretty: bool, most: int) -> None:
    async with open_world(pretty=pretty) as world:
        world.send("qmp_capabilities")
        await trio.testing.wait_all_tasks_blocked()
        before = len(world.device.sent)
        world.send(*["long"] * 400)  # of 5 KB each
        sizes = [0]
        with trio.fail_after(20):
            while sizes[-1] < 400 * 5000:
                await trio.lowlevel.checkpoint()
                sizes.append(len(world.device.sent) - before)
        assert max(after - one for one, after in pairwise(sizes)) <= most + 2 * 5100


async def test_what_only_had_to_wait_for_the_next_turn_is_done_though_the_client_has_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is with the monitor, so the leaving is told at once: a send that fails may show it."""
    done: list[int] = []

    def count(context: Context, arguments: NoArguments) -> str:
        done.append(1)
        return "x" * 5000

    async with open_world() as world:
        add_command(world, "count", count)
        await world.negotiate()
        world.device.feed(wire("count") * FEW)
        while not done:  # noqa: ASYNC110 - nobody tells
            await trio.lowlevel.checkpoint()
        assert len(done) < FEW
        world.device.connect(False)
        await trio.sleep(2 * module.LEAVING_INTERVAL)
        await trio.testing.wait_all_tasks_blocked()
        assert len(done) == FEW
        assert world.monitor._client is None


async def cut_off(world: World, unit: bytes) -> None:
    """Have *COUNT* of them come, and a part of them done."""
    world.device.feed(unit * COUNT)
    while not world.monitor._turn.is_over:  # noqa: ASYNC110 - nobody tells
        await trio.lowlevel.checkpoint()


async def test_who_leaves_behind_his_commands_has_them_all_done() -> None:
    """His leaving stands behind them in the queue."""
    done: list[int] = []
    async with open_world() as world:
        add_command(world, "count", lambda context, arguments: done.append(1))
        await world.negotiate()
        await cut_off(world, wire("count"))
        assert 0 < len(done) < COUNT
        world.device.connect(False)
        await trio.testing.wait_all_tasks_blocked()
        assert len(done) == COUNT
        world.taken = len(world.device.sent)
        world.device.connect()
        await world.negotiate()
        world.send("echo")
        assert await world.settle() == ["echo"]


async def test_who_is_let_go_has_the_rest_dropped_and_the_next_is_served() -> None:
    done: list[int] = []
    async with open_world() as world:
        add_command(world, "count", lambda context, arguments: done.append(1))
        await world.negotiate()
        await cut_off(world, wire("count"))
        before = len(done)
        world.monitor._let_go()
        await world.settle()
        world.device.connect()
        await world.negotiate()
        world.send("echo")
        assert await world.settle() == ["echo"]
    assert len(done) == before


async def test_reading_on_goes_on_though_output_is_sent_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The leaving of one whose command takes long is heard."""
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 10
        world.send("slow", "echo")
        await trio.sleep(dispatcher.PATIENCE + 0.1)
        world.monitor.send_event({"event": "X"})
        for _ in range(10):
            world.device.make_room(10)
            await trio.testing.wait_all_tasks_blocked()
        world.device.feed(ECHO)
        await trio.testing.wait_all_tasks_blocked()
        assert world.device.unread == 0


@attrs.define(eq=False)
class Cut:
    """A monitor that is cancelled at a step, while it does what has come at once."""

    done: int = 0
    rest: bytes = b""
    fired: bool = False

    async def run(self, k: int, when: str, name: str) -> None:
        async with open_world(connected=False) as world:
            add_command(world, "count", self._count)
            add_command(world, "at-once", self._count_at_once)
            chardev = world.registry["m"]
            world.monitor.detach()
            monitor = Monitor(chardev, world.monitor.dispatcher.commands, world.host)
            scope = trio.CancelScope()
            injector = CancelAtStep(k, when, scope)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, monitor, scope)
                await trio.testing.wait_all_tasks_blocked()
                world.device.connect()
                world.send("qmp_capabilities")
                await trio.testing.wait_all_tasks_blocked()
                world.device.feed(wire(name) * MANY[name])
                trio.lowlevel.add_instrument(injector)
                injector.armed = True
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.remove_instrument(injector)
                scope.cancel()
            self.fired = injector.fired
            client = monitor._client
            assert client is not None
            self.done += len(client.backlog) + len(client.queue)
            self.rest = await read_rest(chardev.attach(), world)

    async def _serve(self, monitor: Monitor, scope: trio.CancelScope) -> None:
        with scope:
            await monitor.run()

    def _count(self, context: Context, arguments: NoArguments) -> None:
        self.done += 1

    async def _count_at_once(self, context: Context, arguments: NoArguments) -> None:
        self.done += 1


async def read_rest(user: Frontend, world: World) -> bytes:
    """What the monitor has not taken."""
    rest = b""
    while piece := user.take_ready():
        rest += piece
        await trio.testing.wait_all_tasks_blocked()
    assert not world.device.unread
    return rest


@pytest.mark.parametrize("name", ["count", "at-once"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelled_at_any_step_nothing_is_lost_or_done_twice(name: str, when: str) -> None:
    """Each command was done, waits with the client, or is left in the chardev's queue."""
    k = 0
    while True:
        k += 1
        cut = Cut()
        await cut.run(k, when, name)
        assert cut.rest == wire(name) * (MANY[name] - cut.done), k
        if not cut.fired:
            break
    assert cut.done == MANY[name]
    assert k > FEWEST_STEPS
