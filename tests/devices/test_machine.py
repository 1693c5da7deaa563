"""Random histories of devices on chardevs that are changed meanwhile, compared with a simple model.

The model says which device uses which chardev, what each flow has passed on, dropped and
set at its sink, and what waits at a source. Everything that comes from a chardev, bytes and line
settings, goes to its user in one order.

With the environment variable TRIO_CHARDEV_EXAMPLES=N other histories are tried, N of them.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.bridge import BridgeInfo, BridgeOptions, WhenClosed
from trio_chardev.devices.discard import DiscardOptions
from trio_chardev.devices.echo import EchoInfo, EchoOptions
from trio_chardev.devices.table import driver_of
from trio_chardev.devices.translation import LF, Translate
from trio_chardev.errors import (
    BackendError,
    ChangeFailedError,
    ChardevBusyError,
    DeviceExistsError,
    DeviceNotFoundError,
    OptionsError,
)
from trio_chardev.events import LineSettings
from trio_chardev.notices import DeviceDeleted, Notice
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener

EXAMPLES = int(os.environ.get("TRIO_CHARDEV_EXAMPLES", "0"))
PATIENCE = 10  # seconds
Token = int | LineSettings  # one byte, or what the other end has set


@attrs.define(eq=False)
class Place:
    """A chardev."""

    device: FakeDevice
    all_devices: list[FakeDevice] = attrs.Factory(list)
    is_dead: bool = False
    unread: list[Token] = attrs.Factory(list)
    written: bytes = b""
    line: LineSettings | None = None
    """What it was set to last, by whomever."""

    @property
    def is_there(self) -> bool:
        """Is somebody at the other end?"""
        return self.device.connected and not self.is_dead


@attrs.define(eq=False)
class Way:
    """A flow from *source* to *sink*; without a sink it is a discard."""

    source: Place
    sink: Place | None
    when_closed: WhenClosed = "drop"
    has_controls: bool = True
    translate: Translate = "none"
    bytes: int = 0
    dropped: int = 0
    line: LineSettings | None = None

    def settle(self) -> None:
        """What waits goes as far as it can."""
        unread = self.source.unread
        while unread and self._can_pass(unread[0]):
            token = unread.pop(0)
            if isinstance(token, LineSettings):
                self._set_line(token)
                continue
            output = b"\r\n" if self.translate == "onlcr" and token == LF else bytes([token])
            if self.sink is not None and not self.sink.is_there:
                self.dropped += len(output)
            else:
                self.bytes += len(output)
                if self.sink is not None:
                    self.sink.written += output

    def _can_pass(self, token: Token) -> bool:
        if self.sink is None or isinstance(token, LineSettings):
            return True
        return not self.sink.device.stuck if self.sink.is_there else self.when_closed == "drop"

    def _set_line(self, settings: LineSettings) -> None:
        if self.sink is not None and self.has_controls:
            device = self.sink.device
            if self.sink.is_dead or not (device.has_line and device.line_fails):
                self.line = self.sink.line = settings


@attrs.define(eq=False)
class User:
    """A device."""

    options: DeviceOptions
    ways: list[Way]
    places: list[Place]


# ---------------------------------------------------------------- what can happen

ids = st.sampled_from("abc")
names = st.sampled_from(["d", "e"])
data = st.binary(min_size=1, max_size=5) | st.sampled_from([b"\n", b"a\nb\n"])
bridges = st.tuples(
    st.just("bridge"),
    names,
    ids,
    ids,
    st.sampled_from(["drop", "hold"]),
    st.sampled_from(["none", "none", "onlcr"]),
)
faults = st.fixed_dictionaries(
    {
        "connected": st.sampled_from([True, True, False]),
        "eager": st.booleans(),
        "stuck": st.sampled_from([False, False, False, True]),
        "has_line": st.booleans(),
        "line_fails": st.sampled_from([False, False, True]),
    }
)
changes = st.tuples(
    st.just("change"), ids, faults, st.sampled_from(["none"] * 4 + ["open", "commit"])
)
steps = st.one_of(
    changes,
    changes,
    bridges,
    bridges,
    st.tuples(st.just("single"), names, st.sampled_from([EchoOptions, DiscardOptions]), ids),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("remove"), ids),
    *[st.tuples(st.just("feed"), ids, data)] * 3,
    st.tuples(st.just("set_line"), ids, st.sampled_from([300, 9600])),
    st.tuples(st.just("connect"), ids, st.booleans()),
    st.tuples(st.just("die"), ids),
)


@attrs.define(eq=False)
class Machine:
    """Does the steps, to the registry and to the model."""

    registry: Registry
    places: dict[str, Place] = attrs.Factory(dict)
    users: dict[str, User] = attrs.Factory(dict)
    made: list[FakeDevice] = attrs.Factory(list)
    deleted: list[str] = attrs.Factory(list)  # the ids of devices, as they should be told
    told: list[str] = attrs.Factory(list)  # and were

    def on_notice(self, notice: Notice) -> None:
        if isinstance(notice, DeviceDeleted):
            self.told.append(notice.device)

    def make(self, fault: str = "none", **faults: Any) -> FakeDevice:
        device = FakeDevice(f"{len(self.made)}", **faults)
        device.opens, device.activates = fault != "open", fault != "commit"
        self.made.append(device)
        return device

    async def add(self, id: str) -> None:
        device = self.make(eager=True)
        await self.registry.add(id, FakeOptions(device=device))
        self.places[id] = Place(device, [device])

    def user_of(self, id: str) -> User | None:
        place = self.places.get(id)
        return next((user for user in self.users.values() if place in user.places), None)

    def settle(self) -> None:
        for user in self.users.values():
            for way in user.ways:
                way.settle()

    # ------------------------------------------------------------ chardevs

    async def change(self, id: str, faults: dict[str, Any], fault: str) -> None:
        if id not in self.places:
            await self.add(id)
            return
        place, new = self.places[id], self.make(fault, **faults)
        options = FakeOptions(device=new)
        if fault == "open":
            with pytest.raises(BackendError):
                await self.registry.change(id, options)
        elif place.line and new.has_line and new.line_fails:
            with pytest.raises(ChangeFailedError):
                await self.registry.change(id, options)
        elif fault == "commit":
            with pytest.raises(BackendError):
                await self.registry.change(id, options)
        else:
            await self.registry.change(id, options, drain_timeout=0)
            place.device, place.is_dead = new, False
            place.all_devices.append(new)

    async def remove(self, id: str) -> None:
        if id not in self.places:
            return
        if self.user_of(id) is not None:
            with pytest.raises(ChardevBusyError):
                await self.registry.remove(id)
        else:
            await self.registry.remove(id)
            self.check_sent(self.places.pop(id))

    async def feed(self, id: str, data: bytes) -> None:
        if (place := self.places.get(id)) and not place.is_dead:
            place.device.feed(data)
            place.unread += data

    async def set_line(self, id: str, speed: int) -> None:
        if (place := self.places.get(id)) and not place.is_dead:
            place.device.say(LineSettings(speed))
            if self.user_of(id) is not None:  # else nobody hears of it
                place.unread.append(LineSettings(speed))

    async def connect(self, id: str, connected: bool) -> None:
        place = self.places.get(id)
        if place and not place.is_dead and not place.device.stuck:
            place.device.connect(connected)

    async def die(self, id: str) -> None:
        place = self.places.get(id)
        user = self.user_of(id)
        if user is not None and isinstance(user.options, EchoOptions):
            return  # it may send back the last byte just before
        if place and not place.is_dead and not place.device.stuck:
            place.device.dies_after = 0
            await self.feed(id, b"!")
            place.is_dead = True

    # ------------------------------------------------------------ devices

    async def bridge(
        self, name: str, id: str, peer: str, when_closed: WhenClosed, translate: Translate
    ) -> None:
        options = BridgeOptions(
            id=name,
            chardev=id,
            peer=peer,
            when_closed=when_closed,
            translate_to_peer=translate,
        )
        if self.may_add(options):
            here, there = self.places[id], self.places[peer]
            ways = [
                Way(here, there, when_closed, translate=translate),
                Way(there, here, when_closed),
            ]
            self.users[name] = User(options, ways, [here, there])

    async def single(
        self, name: str, cls: type[EchoOptions] | type[DiscardOptions], id: str
    ) -> None:
        options = cls(id=name, chardev=id)
        if self.may_add(options):
            place = self.places[id]
            sink = place if cls is EchoOptions else None
            self.users[name] = User(options, [Way(place, sink, has_controls=False)], [place])

    def may_add(self, options: DeviceOptions) -> bool:
        """Add it; the model has to be told if that was right."""
        error: type[Exception] | None = None
        if options.id in self.users:
            error = DeviceExistsError
        elif len(set(options.chardevs)) < len(options.chardevs):
            error = OptionsError
        else:
            for id in options.chardevs:
                if id not in self.places:
                    error = error or OptionsError
                elif self.user_of(id) is not None:
                    error = error or ChardevBusyError
        if error is None:
            self.registry.devices.add(options)
            return True
        with pytest.raises(error):
            self.registry.devices.add(options)
        return False

    async def delete(self, name: str) -> None:
        if name not in self.users:
            with pytest.raises(DeviceNotFoundError):
                await self.registry.devices.remove(name)
            return
        await self.registry.devices.remove(name)
        self.deleted.append(name)
        for place in self.users.pop(name).places:
            place.unread = [token for token in place.unread if isinstance(token, int)]

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        assert list(self.registry) == list(self.places)
        assert list(self.registry.devices) == list(self.users)
        assert self.told == self.deleted
        in_place = [place.device for place in self.places.values() if not place.is_dead]
        held_open = [device for device in self.made if device.is_held_open]
        assert held_open == sorted(in_place, key=self.made.index)
        for id, place in self.places.items():
            assert len(self.registry[id].frontends) == (self.user_of(id) is not None)
            self.check_sent(place)
            if place.line is not None and place.device.has_line and not place.is_dead:
                assert place.device.line_calls[-1] == place.line
        for name, user in self.users.items():
            self.check_info(name, user)

    def check_sent(self, place: Place) -> None:
        assert b"".join(device.sent for device in place.all_devices) == place.written

    def check_info(self, name: str, user: User) -> None:
        info: Any = self.registry.devices[name].info
        if isinstance(info, BridgeInfo):
            for way, shown in zip(user.ways, (info.to_peer, info.to_chardev), strict=True):
                line = None if way.line is None else str(way.line)
                assert (shown.bytes, shown.dropped, shown.line) == (way.bytes, way.dropped, line)
            device, peer = (place.is_there for place in user.places)
            words = {
                (True, True): "open",
                (True, False): "peer-closed",
                (False, True): "chardev-closed",
            }
            assert info.state == words.get((device, peer), "closed")
        else:
            assert info.bytes == user.ways[0].bytes
            assert isinstance(info, EchoInfo) == isinstance(user.options, EchoOptions)


async def play(history: list[tuple[Any, ...]]) -> None:
    with trio.fail_after(PATIENCE):
        async with open_registry_with(fake_opener, driver_of) as registry:
            machine = Machine(registry)
            registry.on_notice = machine.on_notice
            for id in "ab":
                await machine.add(id)
            for name, *args in history:
                await getattr(machine, name)(*args)
                machine.settle()
                await wait_all_tasks_blocked()
                machine.check()
    assert not any(device.is_held_open for device in machine.made)


@settings(max_examples=EXAMPLES or 300, derandomize=not EXAMPLES, deadline=None)
@given(st.lists(steps, min_size=15, max_size=40))
def test_random_histories_of_devices_agree_with_the_model(history: list[tuple[Any, ...]]) -> None:
    begin = ("bridge", "d", "a", "b", "hold", "none")
    trio.run(play, [begin, *history], clock=MockClock(autojump_threshold=0))
