"""The order in which a client's commands run, and where each reply goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.qmp.commands.context import Command, Context, Host, NoArguments
from trio_chardev.qmp.server import dispatcher as module
from trio_chardev.qmp.server.dispatcher import Dispatcher
from trio_chardev.qmp.server.monitor_client import MonitorClient
from trio_chardev.qmp.server.origin import Origin
from trio_chardev.qmp.server.output import Output
from trio_chardev.qmp.server.turn import TURN, Turn
from trio_chardev.registry import open_registry


@attrs.define(eq=False)
class Desk:
    """A dispatcher with one client; nobody takes its output."""

    dispatcher: Dispatcher
    client: MonitorClient
    gate: trio.Event = attrs.Factory(trio.Event)
    origins: list[object] = attrs.Factory(list)
    slow: int = 0
    """How often it was told that a command takes long."""

    def say(self, *names: str) -> None:
        for number, name in enumerate(names):
            oob = name.removeprefix("oob:")
            verb = "execute" if oob == name else "exec-oob"
            self.client.feed(json.dumps({verb: oob, "id": number}).encode(), 0)
        self.dispatcher.take_backlog(self.client)

    def answered(self) -> list[object]:
        """The ids of the replies, in order."""
        return [json.loads(line)["id"] for line in bytes(self.dispatcher.out._unsent).splitlines()]

    def at_once(self, context: Context, arguments: NoArguments) -> None:
        self.origins.append(Origin.of_now())

    async def wait(self, context: Context, arguments: NoArguments) -> None:
        self.origins.append(Origin.of_now())
        await self.gate.wait()

    def tell_slow(self) -> None:
        self.slow += 1

    def go_on(self) -> None:
        if self.dispatcher.client is not None:
            self.dispatcher.take_backlog(self.dispatcher.client)


@asynccontextmanager
async def desk(*, oob: bool = False) -> AsyncIterator[Desk]:
    async with open_registry() as registry, open_background_nursery() as nursery:
        context = Context(Host(registry, lambda reason: None))
        context.session.is_negotiated, context.session.is_oob_enabled = True, oob
        made = Desk(Dispatcher({}, Output(), Turn()), MonitorClient(context))
        made.dispatcher.commands = {
            "echo": Command(NoArguments, made.at_once, allow_oob=True),
            "wait": Command(NoArguments, made.wait),
        }
        made.dispatcher.client = made.client
        nursery.start_soon(made.dispatcher.run, made.go_on)
        nursery.start_soon(made.dispatcher.watch, made.tell_slow)
        await trio.testing.wait_all_tasks_blocked()
        yield made


async def test_what_need_not_wait_is_answered_by_the_call() -> None:
    async with desk() as made:
        made.say("echo", "echo")
        assert made.answered() == [0, 1]


async def test_what_comes_after_one_that_waits_waits_too() -> None:
    async with desk() as made:
        made.say("echo", "wait", "echo")
        await trio.testing.wait_all_tasks_blocked()
        assert made.answered() == [0]
        made.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.answered() == [0, 1, 2]


async def test_out_of_band_it_overtakes() -> None:
    async with desk(oob=True) as made:
        made.say("wait", "echo", "oob:echo")
        await trio.testing.wait_all_tasks_blocked()
        assert made.answered() == [2]
        made.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.answered() == [2, 0, 1]


@pytest.mark.parametrize(("oob", "most"), [(False, 1), (True, module.OOB_QUEUE)])
async def test_a_client_is_suspended_by_what_it_has_queued(oob: bool, most: int) -> None:
    async with desk(oob=oob) as made:
        made.say(*["wait"] * (most + 3))
        assert (len(made.client.queue), len(made.client.backlog)) == (most, 3)
        assert made.dispatcher.is_suspended(made.client)


async def test_a_client_is_suspended_by_output_that_it_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OUTPUT_SUSPENDS", 1)
    async with desk() as made:
        made.say("echo", "echo")
        assert (made.answered(), len(made.client.backlog)) == ([0], 1)


async def test_the_command_of_a_client_that_is_gone_is_cancelled_and_not_answered() -> None:
    async with desk() as made:
        made.say("wait", "echo")
        await trio.testing.wait_all_tasks_blocked()
        made.dispatcher.drop_client()
        await trio.testing.wait_all_tasks_blocked()
        made.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.answered() == []


async def test_each_command_runs_with_its_dispatcher_as_the_origin() -> None:
    async with desk() as made:
        made.say("echo", "wait")
        await trio.testing.wait_all_tasks_blocked()
        assert made.origins == [made.dispatcher] * 2
        assert Origin.of_now() is None


async def test_a_command_that_takes_long_lets_its_client_be_read_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with desk() as made:
        made.say("wait")
        await trio.sleep(module.PATIENCE / 2)
        assert (made.slow, made.client.is_read_on) == (0, False)
        await trio.sleep(module.PATIENCE)
        assert (made.slow, made.client.is_read_on) == (1, True)
        made.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not made.client.is_read_on


async def test_a_turn_ends_the_taking_of_the_backlog() -> None:
    async with desk() as made:
        made.say(*["echo"] * (TURN + 5))
        assert len(made.client.backlog) == 5
        assert made.dispatcher.turn.is_over
