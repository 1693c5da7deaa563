"""Brute force: cancel what is done with a crowd, or the whole service, at every scheduler step.

Whatever is cut off, each client sees each byte once, what is typed arrives once, and what is left is
what was there before. By default at every sixth step, after it; with the environment variable
TRIO_CHARDEV_SEEDS=N before and after each, under N schedules.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_chardev as tc
from tests.places import come_by_descriptor
from tests.steps import SEEDS, steps
from trio_chardev.backends.console import goodbye
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.devices.listener import ListenerOptions
from trio_chardev.qmp.commands.history import HistoryArguments, chardev_history
from trio_chardev.testing import CancelAtStep

trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
scheduler_random = trio_run._r

KICKED = Goodbye("kicked", "kicked")
OUTPUT = [b"%d\n" % i for i in range(5)]
TYPED = [b"%d," % i for i in range(4)]
NAMES = "abc"
HISTORY = 65536


@attrs.define(eq=False)
class Run:
    """One run, with the cancellation at step *k*."""

    scenario: Scenario
    injector: CancelAtStep
    scopes: dict[str, trio.CancelScope]
    folder: Path
    registry: tc.Registry = attrs.field(init=False)
    people: dict[str, socket.socket] = attrs.Factory(dict)
    """The clients' ends; what they are sent waits in the kernel."""
    typed: bytearray = attrs.Factory(bytearray)
    """What the device has got."""
    printed: bytearray = attrs.Factory(bytearray)
    excerpts: list[dict[str, Any]] = attrs.Factory(list)
    was_done: bool = False

    async def main(self) -> bool:
        """True if step k was reached."""
        trio.lowlevel.add_instrument(self.injector)
        try:
            with self.scopes["service"]:
                async with tc.open_registry() as self.registry:
                    await self.use()
            self.check(is_over=not self.scopes["service"].cancel_called)
        finally:
            for person in self.people.values():
                person.close()
        return self.injector.fired

    @property
    def console(self) -> ConsoleBackend:
        backend = self.registry["users"].backend
        assert isinstance(backend, ConsoleBackend)
        return backend

    async def use(self) -> None:
        options = tc.ConsoleOptions(history=HISTORY, write=self.scenario.write)  # type: ignore[arg-type]
        await self.registry.add("users", options)
        device = self.registry["users"].attach(be_change=tc.stateless, on_receive=self.take)
        await self.registry.devices.open(self.listener("l0"))
        for name in NAMES:
            if name == "c":
                self.come("c", "l0")
            else:
                self.people[name] = come_by_descriptor(self.console).socket._sock  # type: ignore[attr-defined]
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.print, device)
            nursery.start_soon(self.type)
            await trio.lowlevel.checkpoint()
            self.injector.armed = True
            with self.scopes["act"]:
                await self.scenario.act(self)
                self.was_done = True
            trio.lowlevel.remove_instrument(self.injector)
        await wait_all_tasks_blocked()
        await self.scenario.check(self)

    def take(self, data: bytes) -> int:
        self.typed += data
        return len(data)

    def listener(self, id: str, **options: Any) -> ListenerOptions:
        path = f"m18-{os.getpid()}-{id}"
        return ListenerOptions(
            id=id, console="users", **{"path": path, "abstract": True, **options}
        )

    def come(self, name: str, listener: str) -> None:
        """Connect, without a task that could take a step."""
        person = self.people[name] = socket.socket(socket.AF_UNIX)
        person.setblocking(False)
        person.connect(f"\0m18-{os.getpid()}-{listener}")

    async def print(self, device: tc.Frontend) -> None:
        for piece in OUTPUT:
            with suppress(tc.ChardevError, trio.ClosedResourceError):
                self.printed += piece[: device.try_send(piece)]
            await trio.lowlevel.checkpoint()

    async def type(self) -> None:
        for piece in TYPED:
            for name in self.scenario.typists:
                with suppress(OSError):
                    self.people[name].send(name.encode() + piece)
            await trio.lowlevel.checkpoint()

    def check(self, *, is_over: bool) -> None:
        for name, person in self.people.items():
            seen = bytearray()
            with suppress(BlockingIOError, ConnectionResetError):
                while data := person.recv(4096):
                    seen += data
            if is_over and name not in self.scenario.leave:
                assert seen == self.printed, name
            else:
                assert self.printed.startswith(seen), name
        for name in self.scenario.typists:
            mine = [int(n) for n in re.findall(rb"%b(\d+)," % name.encode(), self.typed)]
            assert mine == sorted(set(mine)), name
            if self.scenario.write == "all":
                assert mine == list(range(len(mine))), name
                assert len(mine) == len(TYPED) or self.scenario.leave or not is_over


# ---------------------------------------------------------------- what is done


async def change(run: Run) -> None:
    await run.registry.change("users", tc.ConsoleOptions(history=HISTORY * 2))


async def replace(run: Run) -> None:
    await run.registry.change("users", tc.NullOptions(), drain_timeout=1)


async def kick(run: Run) -> None:
    for client in run.console.crowd:
        run.console.crowd.remove(client, KICKED)
        await trio.lowlevel.checkpoint()


async def hand_over(run: Run) -> None:
    for client in run.console.crowd:
        run.console.crowd.keyboard.give_write(client)
        await trio.lowlevel.checkpoint()


async def listen(run: Run) -> None:
    await run.registry.devices.open(run.listener("l1"))


async def listen_at_a_file(run: Run) -> None:
    path = str(run.folder / "s")
    await run.registry.devices.open(run.listener("l1", path=path, abstract=False))


async def end_listening(run: Run) -> None:
    await run.registry.devices.remove("l0")


async def come_and_go(run: Run) -> None:
    """Attach by both ways, and leave."""
    run.come("d", "l0")
    run.people["e"] = come_by_descriptor(run.console).socket._sock  # type: ignore[attr-defined]
    for _ in range(4):
        await trio.lowlevel.checkpoint()
    for name in "dabe":
        run.people[name].shutdown(socket.SHUT_RDWR)
        await trio.lowlevel.checkpoint()


async def follow(run: Run) -> None:
    """Read the history by cursors, and wait for more."""
    at = 0
    context: Any = Fake(run)
    while at < len(b"".join(OUTPUT)):
        arguments = HistoryArguments(id="users", start=at, max=5, wait=60)
        run.excerpts.append(result := await chardev_history(context, arguments))
        at = result["next"]


@attrs.frozen
class Fake:
    """As much of a QMP monitor's context as the command looks at."""

    run: Run

    @property
    def host(self) -> Run:
        return self.run


# ---------------------------------------------------------------- what is so afterwards


async def all_are_there(run: Run) -> None:
    await trio.lowlevel.checkpoint()
    assert len(run.console.crowd.clients) == len(NAMES)


async def all_or_nobody(run: Run) -> None:
    await trio.lowlevel.checkpoint()
    backend = run.registry["users"].backend
    if isinstance(backend, ConsoleBackend):
        assert len(backend.crowd.clients) == len(NAMES)
        assert not run.was_done
    else:
        assert all(len(run.people[name].recv(1 << 16)) < 99 for name in NAMES)


async def the_console_goes_on(run: Run) -> None:
    await trio.lowlevel.checkpoint()
    assert run.console.history.end == len(run.printed)


async def it_listens_or_leaves_nothing(run: Run) -> None:
    await trio.lowlevel.checkpoint()
    assert ("l1" in run.registry.devices) == run.was_done
    assert (run.folder / "s").exists() == (run.was_done and run.scenario.act is listen_at_a_file)
    if run.scenario.act is listen:
        try:
            run.come("d", "l1")
        except ConnectionRefusedError:
            run.people.pop("d").close()
            assert not run.was_done
        else:
            await wait_all_tasks_blocked()
            assert run.was_done
    await all_are_there_or_more(run)


async def all_are_there_or_more(run: Run) -> None:
    await trio.lowlevel.checkpoint()
    assert len(run.console.crowd.clients) == len(run.people)


async def it_listens_no_more(run: Run) -> None:
    """Who is told to end does so, also when nobody waits for it."""
    await wait_all_tasks_blocked()
    assert "l0" not in run.registry.devices
    assert len(run.console.crowd.clients) == len(NAMES) - 1


async def what_was_read_joins(run: Run) -> None:
    await the_console_goes_on(run)
    data = "".join(excerpt["data"] for excerpt in run.excerpts).encode()
    assert run.printed.startswith(data)
    assert not run.was_done or data == run.printed


@attrs.frozen
class Scenario:
    act: Callable[[Run], Awaitable[None]]
    check: Callable[[Run], Awaitable[None]]
    target: str = "act"
    leave: str = ""
    """Who may be let go."""
    write: str = "all"
    typists: str = NAMES

    def __str__(self) -> str:
        return f"{self.act.__name__}-{self.target}".replace("_", "-")


SCENARIOS = [
    attrs.evolve(scenario, target=target)
    for target in ("act", "service")
    for scenario in (
        Scenario(change, all_are_there),
        Scenario(replace, all_or_nobody, leave=NAMES),
        Scenario(kick, the_console_goes_on, leave=NAMES),
        Scenario(hand_over, all_are_there, write="one"),
        Scenario(listen, it_listens_or_leaves_nothing),
        Scenario(listen_at_a_file, it_listens_or_leaves_nothing),
        Scenario(end_listening, it_listens_no_more, leave="c"),
        Scenario(come_and_go, the_console_goes_on, leave="abde"),
        Scenario(follow, what_was_read_joins),
    )
]


def clock_of(scenario: Scenario) -> MockClock | None:
    """A clock that jumps, unless a thread makes a file, for which it would not wait."""
    return None if scenario.act is listen_at_a_file else MockClock(autojump_threshold=0)


def brute_force(scenario: Scenario, folder: Path) -> Counter[bool]:
    fired: Counter[bool] = Counter()
    before = None
    for when in ("before", "after") if SEEDS else ("after",):
        for seed in range(int(SEEDS or 1)):
            for k in steps(5_000)[:: 1 if SEEDS else 3]:
                scheduler_random.seed(seed)
                scopes = {name: trio.CancelScope() for name in ("act", "service")}
                own = folder / f"{when}{seed}-{k}"
                own.mkdir()
                run = Run(scenario, CancelAtStep(k, when, scopes[scenario.target]), scopes, own)
                try:
                    was_reached = trio.run(run.main, clock=clock_of(scenario))
                    now = len(os.listdir("/proc/self/fd"))
                    assert before in (None, now)
                    assert not list(own.iterdir())
                except BaseException as exc:
                    exc.add_note(f"{scenario}: {when} {k=} {seed=}")
                    raise
                before = now
                fired[was_reached] += 1
                if not was_reached:
                    break
    return fired


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_cancelled_at_every_step_a_crowd_sees_and_types_each_byte_once(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody reads: while clients are let go, each step is as the one before.
    monkeypatch.setattr(goodbye, "TIMEOUT", 0.02)
    fired = brute_force(scenario, tmp_path)
    assert fired[True] > 2
