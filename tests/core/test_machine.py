"""Random histories of chardevs, compared with a simple model.

The model says of each chardev: which device is in place, what all its devices were sent
together, and which bytes and events its frontend got, in order.

With the environment variable TRIO_CHARDEV_EXAMPLES=N other histories are tried, N of them.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from hypothesis import Phase, given, settings, strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.info import ChardevInfo
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevExistsError,
    ChardevNotFoundError,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener

EXAMPLES = int(os.environ.get("TRIO_CHARDEV_EXAMPLES", "0"))
PATIENCE = 5  # seconds
Token = int | BackendEvent  # one byte, or an event


@attrs.define(eq=False)
class User:
    """A frontend, and what it must hear."""

    takes_changes: bool
    is_pushed_to: bool
    log: list[Token] = attrs.Factory(list)
    expected: list[Token] = attrs.Factory(list)
    frontend: Frontend = attrs.field(init=False)
    during: Callable[[Controls], Awaitable[None]] | None = None
    set_up_for: str = ""

    def on_event(self, event: BackendEvent) -> None:
        self.log.append(event)

    def on_receive(self, data: bytes) -> int:
        self.log += data
        return len(data)

    async def be_change(self, backend: Controls) -> None:
        self.set_up_for = "nothing"
        if self.during is not None:
            await self.during(backend)
        self.set_up_for = backend.filename


@attrs.define(eq=False)
class Model:
    """What is known of one chardev."""

    device: FakeDevice
    all_devices: list[FakeDevice] = attrs.Factory(list)
    user: User | None = None
    unread: list[Token] = attrs.Factory(list)  # while there is no user
    written: bytes = b""
    carried: bytes = b""  # of what was written: no device has it
    pending: list[bytes] = attrs.Factory(list)  # of writers that are stuck
    is_dead: bool = False

    def comes(self, *tokens: Token) -> None:
        """*tokens* come from the backend in place."""
        if self.user is not None:
            self.user.expected += tokens
        else:
            self.unread += [token for token in tokens if isinstance(token, int)]

    def settle(self) -> None:
        """The writers that are stuck look again at what is in place."""
        if self.is_dead or not self.device.connected:
            self.pending.clear()
        elif not self.device.stuck:
            self.carried = b""
            self.written += b"".join(self.pending)
            self.pending.clear()


# ---------------------------------------------------------------- what can happen


FAULTS = ["none"] * 6 + ["open", "hang", "commit", "refuse", "refuse by hanging"]
ids = st.sampled_from("ab")
data = st.binary(min_size=1, max_size=7)
device = st.fixed_dictionaries(
    {
        "connected": st.booleans(),
        "eager": st.booleans(),
        "stuck": st.sampled_from([0, 0, 0, 1]),
        "holds": st.booleans(),
    }
)
steps = st.one_of(
    st.tuples(st.just("add"), ids, device, st.sampled_from(["none"] * 6 + ["open", "commit"])),
    *[
        st.tuples(
            st.just("change"), ids, device, st.sampled_from(FAULTS), st.booleans(), st.booleans()
        )
    ]
    * 3,
    st.tuples(st.just("remove"), ids),
    *[st.tuples(st.just("attach"), ids, st.sampled_from([1, 1, 1, 0]), st.booleans())] * 2,
    st.tuples(st.just("detach"), ids),
    *[st.tuples(st.just("write"), ids, data)] * 3,
    *[st.tuples(st.just("feed"), ids, data)] * 2,
    st.tuples(st.just("read"), ids, st.integers(1, 9)),
    st.tuples(st.just("connect"), ids, st.booleans()),
    st.tuples(st.just("take_all"), ids),
    st.tuples(st.just("say_break"), ids),
    st.tuples(st.just("die"), ids),
)


@attrs.define(eq=False)
class Machine:
    """Does the steps, to the chardevs and to the model."""

    registry: Registry
    nursery: trio.Nursery  # of the writers that are stuck
    models: dict[str, Model] = attrs.Factory(dict)
    made: list[FakeDevice] = attrs.Factory(list)

    def make(self, faults: dict[str, Any], fault: str) -> FakeDevice:
        device = FakeDevice(f"{len(self.made)}", **faults)
        device.opens, device.activates = fault != "open", fault != "commit"
        device.opens_late = fault == "hang"
        self.made.append(device)
        return device

    async def add(self, id: str, faults: dict[str, Any], fault: str) -> None:
        device = self.make(faults, fault)
        options = FakeOptions(device=device)
        if id in self.models:
            with pytest.raises(ChardevExistsError):
                await self.registry.add(id, options)
        elif fault != "none":
            with pytest.raises(BackendError, match=rf"^Failed to add chardev '{id}': "):
                await self.registry.add(id, options)
        else:
            await self.registry.add(id, options)
            self.models[id] = Model(device, [device])

    async def change(
        self, id: str, faults: dict[str, Any], fault: str, feeds: bool, carry: bool
    ) -> None:
        new = self.make(faults, fault)
        if id not in self.models:
            with pytest.raises(ChardevNotFoundError):
                await self.registry.change(id, FakeOptions(device=new))
            return
        model = self.models[id]
        old, user = model.device, model.user
        if user is not None and not user.takes_changes:
            with pytest.raises(ChangeRefusedError):
                await self.registry.change(id, FakeOptions(device=new))
            return
        if feeds and not model.is_dead:
            old.feed(b"before")
            model.comes(*b"before")
        if fault in ("open", "hang"):
            await self.fail(id, new, BackendError, carry)
            return
        has_closed = old.connected and not model.is_dead and not new.connected
        if has_closed:
            model.comes(Event.CLOSED)
        if user is not None:
            user.during = meanwhile(model, new, fault, feeds)
        if fault == "commit" or (user is not None and fault.startswith("refuse")):
            error = BackendError if fault == "commit" else ChangeFailedError
            await self.fail(id, new, error, carry)
            if has_closed:
                model.comes(Event.OPENED)
        else:
            untaken = bytes(old.sent[old._taken :]) if old.holds and not model.is_dead else b""
            await self.registry.change(id, FakeOptions(device=new), drain_timeout=0, carry=carry)
            if carry:
                model.carried = untaken + model.carried
            else:
                model.written = model.written.removesuffix(model.carried)
                model.carried = b""
            model.device, model.is_dead = new, False
            model.all_devices.append(new)
            if new.connected:
                model.comes(Event.OPENED)
        model.settle()

    async def fail(self, id: str, new: FakeDevice, error: type[Exception], carry: bool) -> None:
        """A change that raises *error*, or hangs and is cancelled."""

        async def change() -> None:
            with pytest.raises(error):
                await self.registry.change(id, FakeOptions(device=new), carry=carry)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def remove(self, id: str) -> None:
        if id not in self.models:
            with pytest.raises(ChardevNotFoundError):
                await self.registry.remove(id)
        elif self.models[id].user is not None:
            with pytest.raises(ChardevBusyError):
                await self.registry.remove(id)
        else:
            await self.registry.remove(id)
            self.check_sent(self.models.pop(id))

    async def attach(self, id: str, takes_changes: bool, is_pushed_to: bool) -> None:
        if (model := self.models.get(id)) is None:
            return
        if model.user is not None:
            with pytest.raises(ChardevBusyError):
                self.registry[id].attach()
            return
        user = model.user = User(takes_changes, is_pushed_to)
        if model.device.connected and not model.is_dead:
            user.expected.append(Event.OPENED)
        user.expected += model.unread
        model.unread = []
        user.frontend = self.registry[id].attach(
            be_change=user.be_change if takes_changes else None,
            on_event=user.on_event,
            on_receive=user.on_receive if is_pushed_to else None,
        )

    async def detach(self, id: str) -> None:
        if (model := self.models.get(id)) and (user := model.user):
            await user.frontend.aclose()
            rest = user.expected[len(user.log) :]
            model.unread = [token for token in rest if isinstance(token, int)]
            model.user = None
            model.pending.clear()

    async def write(self, id: str, data: bytes) -> None:
        if not (model := self.models.get(id)) or not (user := model.user):
            return
        if model.is_dead or not (model.device.connected or model.pending):
            with pytest.raises(BackendDisconnectedError):
                await user.frontend.send_all(data)
        elif model.device.stuck:
            model.pending.append(data)
            self.nursery.start_soon(write_if_possible, user.frontend, data)
        else:
            await user.frontend.send_all(data)
            model.written += data

    async def feed(self, id: str, data: bytes) -> None:
        if (model := self.models.get(id)) and not model.is_dead:
            model.device.feed(data)
            model.comes(*data)

    async def read(self, id: str, size: int) -> None:
        if (model := self.models.get(id)) and (user := model.user):
            user.log += user.frontend.take_ready(size)

    async def connect(self, id: str, connected: bool) -> None:
        model = self.models.get(id)
        if model and not model.is_dead and model.device.connected != connected:
            model.device.connect(connected)
            model.comes(Event.OPENED if connected else Event.CLOSED)
            if connected and not model.device.stuck:
                model.carried = b""

    async def take_all(self, id: str) -> None:
        if model := self.models.get(id):
            model.device.take_all()

    async def say_break(self, id: str) -> None:
        if (model := self.models.get(id)) and not model.is_dead:
            model.device.say(Event.BREAK)
            model.comes(Event.BREAK)

    async def die(self, id: str) -> None:
        if (model := self.models.get(id)) and not model.is_dead:
            model.device.dies_after = 0
            model.device.feed(b"!")
            model.comes(*b"!")
            if model.device.connected:
                model.comes(Event.CLOSED)
            model.is_dead = True
            model.settle()

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        assert self.registry.query() == [
            ChardevInfo(id, f"fake:{model.device.name}", model.user is not None)
            for id, model in self.models.items()
        ]
        in_place = [model.device for model in self.models.values() if not model.is_dead]
        assert [device for device in self.made if device.is_held_open] == sorted(
            in_place, key=self.made.index
        )
        for id, model in self.models.items():
            assert self.registry[id].is_open == (model.device.connected and not model.is_dead)
            self.check_sent(model)
            if user := model.user:
                assert user.log == user.expected[: len(user.log)]
                if user.is_pushed_to:
                    assert user.log == user.expected
                assert user.set_up_for in ("", f"fake:{model.device.name}")

    def check_sent(self, model: Model) -> None:
        sent = b"".join(device.sent for device in model.all_devices)
        assert sent + model.carried == model.written

    def check_all_is_read(self) -> None:
        for model in self.models.values():
            if user := model.user:
                while data := user.frontend.take_ready():
                    user.log += data
                assert user.log == user.expected


def meanwhile(
    model: Model, new: FakeDevice, fault: str, feeds: bool
) -> Callable[[Controls], Awaitable[None]]:
    """What happens in be_change."""

    async def during(backend: Controls) -> None:
        if backend.filename != f"fake:{new.name}":
            return
        if feeds and not model.is_dead:
            model.device.feed(b"during")
            model.comes(*b"during")
            await wait_all_tasks_blocked()  # it has been read before the change goes on
        if fault == "refuse":
            raise ValueError("no")
        if fault == "refuse by hanging":
            await trio.sleep_forever()

    return during


async def write_if_possible(frontend: Frontend, data: bytes) -> None:
    with suppress(BackendDisconnectedError, trio.ClosedResourceError):
        await frontend.send_all(data)


async def play(history: list[tuple[Any, ...]]) -> None:
    with trio.fail_after(PATIENCE):
        async with open_registry_with(fake_opener) as registry, trio.open_nursery() as nursery:
            machine = Machine(registry, nursery)
            for name, *args in history:
                await getattr(machine, name)(*args)
                await wait_all_tasks_blocked()
                machine.check()
            machine.check_all_is_read()
            registry.shut()  # ends the writers that are stuck
    assert not any(device.is_held_open for device in machine.made)


@settings(
    max_examples=EXAMPLES or 400,
    derandomize=not EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(st.lists(steps, max_size=50))
def test_random_histories_agree_with_the_model(history: list[tuple[Any, ...]]) -> None:
    trio.run(play, [("add", "a", {"eager": True}, "none"), ("attach", "a", 1, True), *history])
