"""A monitor on a fake device: what it is sent, what it answers, and when it stops reading."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.handlers import stateless
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.peer import Peer
from trio_chardev.errors import ChangeRefusedError, ChardevBusyError
from trio_chardev.events import Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.commands.context import Command, Context, Host, NoArguments
from trio_chardev.qmp.commands.session import CapabilitiesArguments, qmp_capabilities
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server import dispatcher, monitor as module
from trio_chardev.qmp.server.answers import LONGEST_DESC
from trio_chardev.qmp.server.events import Shutdown, message_of
from trio_chardev.qmp.server.monitor import Monitor
from trio_chardev.qmp.server.monitor_client import MESSAGE
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeBackend, FakeDevice, FakeOptions, FakePeer, fake_opener

GREETING = "QMP"


class DisconnectingBackend(FakeBackend):
    """Can drop its peer."""

    @property
    def peer(self) -> Peer:
        return DisconnectingPeer(self)


class DisconnectingPeer(FakePeer):
    def disconnect(self, *, at_once: bool = False) -> None:
        self.backend.set_open(False)


@attrs.define(eq=False)
class Slow:
    """A command that waits until it is told to go on."""

    begun: int = 0
    cancelled: int = 0
    gate: trio.Event = attrs.Factory(trio.Event)

    async def __call__(self, context: Context, arguments: NoArguments) -> dict[str, Any]:
        self.begun += 1
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return {"slow": self.begun}


@attrs.define(eq=False)
class World:
    """A monitor, the device beneath it, and its client."""

    device: FakeDevice
    monitor: Monitor
    registry: Registry
    host: Host
    quits: list[str]
    slow: Slow
    taken: int = 0

    def send(self, *messages: dict[str, Any] | str) -> None:
        """Send *messages* in one packet; a string is a command's name."""
        self.device.feed(b"".join(wire(message) for message in messages))

    def take(self) -> list[Any]:
        """The complete messages that have come since the last time, shortened."""
        text = bytes(self.device.sent[self.taken :])
        end = text.rfind(b"\r\n") + 2
        self.taken += end if end > 1 else 0
        return [short(json.loads(line)) for line in text[:end].splitlines()] if end > 1 else []

    async def settle(self) -> list[Any]:
        """What has come when nothing happens any more."""
        await trio.testing.wait_all_tasks_blocked()
        return self.take()

    async def negotiate(self, *enable: str) -> None:
        self.send({"execute": "qmp_capabilities", "arguments": {"enable": list(enable)}})
        assert await self.settle() == [GREETING, {}]


def wire(message: dict[str, Any] | str) -> bytes:
    if isinstance(message, str):
        message = {"execute": message}
    return json.dumps(message).encode()


def short(message: dict[str, Any]) -> Any:
    """The greeting and events by their name, a reply by what it returns or its error."""
    if "QMP" in message:
        return GREETING
    if "event" in message:
        return message["event"]
    value = message["return"] if "return" in message else message["error"]["desc"]
    return (message["id"], value) if "id" in message else value


def echo(context: Context, arguments: NoArguments) -> str:
    return "echo"


def broken(context: Context, arguments: NoArguments) -> None:
    raise RuntimeError("a bug")


def long(context: Context, arguments: NoArguments) -> str:
    return "x" * 5000


def opener_for(device: FakeDevice) -> Opener:
    @asynccontextmanager
    async def open_it(request: OpenRequest) -> AsyncIterator[Backend]:
        backend = DisconnectingBackend(request, device)
        device.backend, device.is_held_open = backend, True
        backend.set_open(device.connected)
        yield backend

    return open_it


@asynccontextmanager
async def open_world(
    *, connected: bool = True, pretty: bool = False, **device: Any
) -> AsyncIterator[World]:
    fake = FakeDevice("m", eager=True, connected=connected, **device)
    slow = Slow()

    async def wait(context: Context, arguments: NoArguments) -> dict[str, Any]:
        return await slow(context, arguments)

    commands = {
        "qmp_capabilities": Command(CapabilitiesArguments, qmp_capabilities),
        "echo": Command(NoArguments, echo),
        "overtake": Command(NoArguments, echo, allow_oob=True),
        "broken": Command(NoArguments, broken),
        "long": Command(NoArguments, long),
        "slow": Command(NoArguments, wait),
        "quit": COMMANDS["quit"],
    }

    def opener_of(options: BackendOptions) -> Opener:
        assert isinstance(options, FakeOptions)
        return opener_for(options.device) if options.device is fake else fake_opener(options)

    async with open_registry_with(opener_of) as registry, open_background_nursery() as nursery:
        await registry.add("m", FakeOptions(device=fake))
        quits: list[str] = []
        host = Host(registry, quits.append)
        monitor = Monitor(registry["m"], commands, host, pretty)
        await nursery.start(monitor.run)
        yield World(fake, monitor, registry, host, quits, slow)


# ---------------------------------------------------------------- sessions


async def test_the_greeting_comes_with_the_client() -> None:
    async with open_world(connected=False) as world:
        assert await world.settle() == []
        world.device.connect()
        assert world.take() == [GREETING]


async def test_the_greeting_names_version_and_oob() -> None:
    async with open_world() as world:
        greeting = json.loads(bytes(world.device.sent))
        assert bytes(world.device.sent).endswith(b"}\r\n")
    assert greeting["QMP"]["capabilities"] == ["oob"]
    assert "qemu" in greeting["QMP"]["version"]


async def test_pipelined_commands_are_answered_in_order() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send(*({"execute": "echo", "id": n} for n in range(50)))
        assert await world.settle() == [(n, "echo") for n in range(50)]


async def test_negotiation_and_a_command_in_one_packet() -> None:
    async with open_world() as world:
        world.send("echo", "qmp_capabilities", "echo")
        expecting = "Expecting capabilities negotiation with 'qmp_capabilities'"
        assert await world.settle() == [GREETING, expecting, {}, "echo"]


async def test_bytes_may_be_cut_anywhere() -> None:
    whole = wire("qmp_capabilities") + b"\r\n" + wire({"execute": "echo", "id": "é"}) + wire("slow")
    for cut in range(1, len(whole)):
        async with open_world() as world:
            world.slow.gate.set()
            world.device.feed(whole[:cut])
            await trio.testing.wait_all_tasks_blocked()
            world.device.feed(whole[cut:])
            assert await world.settle() == [GREETING, {}, ("é", "echo"), {"slow": 1}], cut


async def test_junk_is_answered_and_left_behind() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.feed(b"\xff" + wire("echo"))
        assert await world.settle() == ["JSON parse error, stray '\ufffd'", "echo"]


async def test_errors_carry_the_id_and_the_class() -> None:
    async with open_world() as world:
        await world.negotiate()
        before = len(world.device.sent)
        world.send({"execute": "x", "id": [1]}, {"foo": 1, "id": {}})
        await trio.testing.wait_all_tasks_blocked()
        lines = [json.loads(line) for line in bytes(world.device.sent[before:]).splitlines()]
    assert lines == [
        {
            "id": [1],
            "error": {"class": "CommandNotFound", "desc": "The command x has not been found"},
        },
        {
            "id": {},
            "error": {"class": "GenericError", "desc": "QMP input member 'foo' is unexpected"},
        },
    ]


async def test_a_message_that_is_too_long_is_one_error_and_left_behind() -> None:
    async with open_world() as world:
        await world.negotiate()
        for long, what in [
            (b'"' + b"x" * MESSAGE.size + b'"', "size"),
            (b"[" + b"1," * (MESSAGE.tokens // 2) + b"1]", "count"),
        ]:
            world.device.feed(b'{"execute":"echo","arguments":' + long + b"}" + wire("echo"))
            error = f"JSON token {what} limit exceeded"
            assert await world.settle() == [error, "echo"]


async def test_an_error_quotes_only_so_much() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send("x" * LONGEST_DESC)
        [error] = await world.settle()
        assert error == "The command ".ljust(LONGEST_DESC, "x")


async def test_each_connection_has_a_session_and_a_parser_of_its_own() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.feed(b'{"execute": "ec')
        await trio.testing.wait_all_tasks_blocked()
        world.device.connect(False)
        world.device.connect()
        world.send("echo")
        expecting = "Expecting capabilities negotiation with 'qmp_capabilities'"
        assert await world.settle() == [GREETING, expecting]


async def test_pretty_indents() -> None:
    async with open_world(pretty=True) as world:
        assert bytes(world.device.sent).startswith(b'{\r\n    "QMP": {\r\n        "')
        assert bytes(world.device.sent).endswith(b"\r\n}\r\n")


async def test_a_bug_in_a_command_is_answered_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send("broken", "echo")
        assert await world.settle() == ["RuntimeError: a bug", "echo"]
    assert "a command failed in a way that it must not" in caplog.text


# ---------------------------------------------------------------- commands that wait


async def test_replies_keep_the_order_of_commands_that_wait_and_that_do_not() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send("echo", "slow", "echo", "slow", "echo")
        assert await world.settle() == ["echo"]
        assert world.slow.begun == 1
        world.slow.gate.set()
        assert await world.settle() == [{"slow": 1}, "echo", {"slow": 2}, "echo"]


async def test_oob_overtakes() -> None:
    async with open_world() as world:
        await world.negotiate("oob")
        world.send("slow", "echo", {"exec-oob": "overtake", "id": 1}, {"exec-oob": "echo"})
        assert await world.settle() == [(1, "echo"), "The command echo does not support OOB"]
        world.slow.gate.set()
        assert await world.settle() == [{"slow": 1}, "echo"]


async def test_without_oob_exec_oob_is_unexpected() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send({"exec-oob": "overtake"})
        assert await world.settle() == ["QMP input member 'exec-oob' is unexpected"]


async def test_with_eight_commands_waiting_oob_is_stuck_too() -> None:
    """As in QEMU, whose queue has that many places."""
    async with open_world() as world:
        await world.negotiate("oob")
        world.send(*["slow"] * 7, {"exec-oob": "overtake"})
        assert await world.settle() == ["echo"]
        world.send("slow", {"exec-oob": "overtake"})
        assert await world.settle() == []
        world.slow.gate.set()
        replies = await world.settle()
        assert replies.pop(1) == "echo"  # as soon as there was a place
        assert replies == [{"slow": n} for n in range(1, 9)]


async def test_while_a_command_waits_no_more_is_read() -> None:
    """The end of one that shuts down its side and waits for the answers is not met either."""
    async with open_world() as world:
        await world.negotiate()
        world.send("slow")
        await trio.testing.wait_all_tasks_blocked()
        world.send("echo")
        assert await world.settle() == []
        assert world.device.unread > 0
        world.slow.gate.set()
        assert await world.settle() == [{"slow": 1}, "echo"]
        assert world.device.unread == 0


async def begin_slow(world: World) -> None:
    await world.negotiate()
    world.send("slow", "echo")
    await trio.testing.wait_all_tasks_blocked()


async def test_a_client_that_leaves_ends_its_command_and_drops_the_rest() -> None:
    async with open_world() as world:
        await begin_slow(world)
        world.device.connect(False)
        await trio.testing.wait_all_tasks_blocked()
        assert world.slow.cancelled == 1
        world.device.connect()
        await world.negotiate()
        world.send("echo")
        assert await world.settle() == ["echo"]


async def test_the_leaving_is_heard_behind_commands_that_were_not_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After PATIENCE the client is read on, up to READ_AHEAD bytes."""
    async with open_world() as world:
        await begin_slow(world)
        for _ in range(3):
            world.send("echo")
        await trio.sleep(dispatcher.PATIENCE + 0.1)
        assert world.device.unread == 0
        world.device.connect(False)
        await trio.testing.wait_all_tasks_blocked()
        assert world.slow.cancelled == 1
        world.device.connect()
        await world.negotiate()


async def test_commands_read_ahead_are_run_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        await begin_slow(world)
        await trio.sleep(dispatcher.PATIENCE + 0.1)
        for _ in range(3):
            world.send("slow", "echo")
            await trio.testing.wait_all_tasks_blocked()
        world.slow.gate.set()
        assert await world.settle() == [{"slow": 1}, "echo"] + [
            reply for n in (2, 3, 4) for reply in ({"slow": n}, "echo")
        ]


async def test_what_is_read_ahead_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        await begin_slow(world)
        await trio.sleep(dispatcher.PATIENCE + 0.1)
        world.device.feed(b" " * 1_000_000)
        await trio.testing.wait_all_tasks_blocked()
        assert world.device.unread > 1_000_000 - 4 * module.READ_AHEAD
        world.slow.gate.set()
        world.send("echo")
        assert await world.settle() == [{"slow": 1}, "echo", "echo"]


async def test_a_change_that_its_client_leaves_alone_is_undone() -> None:
    hanging, other = FakeDevice("hanging", opens_late=True), FakeDevice("other")

    async def change(context: Context, arguments: NoArguments) -> dict[str, Any]:
        await context.host.registry.change("c", FakeOptions(device=hanging))
        return {}

    async with open_world() as world:
        world.monitor.dispatcher.commands = {
            **world.monitor.dispatcher.commands,
            "change": Command(NoArguments, change),
        }
        await world.registry.add("c", FakeOptions(device=other))
        async with world.registry["c"].attach(be_change=stateless):
            await world.negotiate()
            world.send("change")
            await trio.testing.wait_all_tasks_blocked()
            world.device.connect(False)
            await trio.testing.wait_all_tasks_blocked()
            assert world.registry["c"].backend.filename == "fake:other"
            assert not hanging.is_held_open
            await world.registry.change("c", FakeOptions(device=FakeDevice("third")))


# ---------------------------------------------------------------- output


async def test_a_client_that_does_not_read_is_not_read_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "OUTPUT_SUSPENDS", 20_000)
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 0
        world.send(*["long"] * 10)
        await trio.testing.wait_all_tasks_blocked()
        world.send("long")
        await trio.testing.wait_all_tasks_blocked()
        assert world.device.unread > 0
        assert len(world.monitor._out) < 30_000
        world.device.room = None
        world.device.make_room(1 << 30)
        assert len(await world.settle()) == 11
        assert world.device.unread == 0


async def test_output_goes_on_where_it_stopped() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 10
        world.send("long", "echo")
        for _ in range(1200):
            await trio.testing.wait_all_tasks_blocked()
            world.device.make_room(7)
        assert await world.settle() == ["x" * 5000, "echo"]


async def test_a_reply_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the output is for events, which the client did not ask for."""
    monkeypatch.setattr(dispatcher, "OUTPUT_SUSPENDS", 1000)
    monkeypatch.setattr(module, "OUTPUT_LIMIT", 2000)
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 100
        world.send("long", "long")
        await trio.testing.wait_all_tasks_blocked()
        world.device.make_room(1 << 30)
        assert await world.settle() == ["x" * 5000] * 2


async def test_a_client_that_does_not_take_its_events_is_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one finds a monitor that works, though commands of the first were left."""
    monkeypatch.setattr(dispatcher, "OUTPUT_SUSPENDS", 1000)
    monkeypatch.setattr(module, "OUTPUT_LIMIT", 2000)
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 0
        world.send("long")
        await trio.testing.wait_all_tasks_blocked()
        world.send("echo")
        emit(world)
        assert not world.monitor._out
        assert "it is let go" in caplog.text
        await trio.testing.wait_all_tasks_blocked()
        world.device.make_room(1 << 30)
        world.device.connect()
        await world.negotiate()


def emit(world: World) -> None:
    world.monitor.send_event(message_of(Shutdown(guest=False, reason="host-signal")))


async def test_events_are_for_those_who_have_negotiated() -> None:
    async with open_world() as world:
        emit(world)
        await world.negotiate()
        emit(world)
        assert await world.settle() == ["SHUTDOWN"]
        world.device.connect(False)
        emit(world)
        assert await world.settle() == []


async def test_an_event_has_a_time_and_its_data() -> None:
    async with open_world() as world:
        await world.negotiate()
        before = len(world.device.sent)
        emit(world)
        message = json.loads(bytes(world.device.sent[before:]))
    assert set(message.pop("timestamp")) == {"seconds", "microseconds"}
    assert message == {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}}


async def test_after_quit_nothing_is_answered() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.send("quit", "quit", "echo")
        assert await world.settle() == [{}, {}]
        assert world.quits == ["host-qmp-quit"]


async def test_wait_drained_ends_with_the_output_or_the_client() -> None:
    async with open_world() as world:
        await world.negotiate()
        await world.monitor.wait_drained()
        ends: list[Callable[[], None]] = [
            lambda: world.device.make_room(1 << 30),
            lambda: world.device.connect(False),
        ]
        for end in ends:
            world.device.room = 0
            emit(world)
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.monitor.wait_drained)
                    await trio.testing.wait_all_tasks_blocked()
                    assert len(nursery.child_tasks) == 1
                    end()


async def test_a_client_that_leaves_in_the_middle_of_a_reply() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.room = 10
        world.send("long")
        await trio.testing.wait_all_tasks_blocked()
        world.device.connect(False)
        world.device.room = None
        world.taken = len(world.device.sent)
        world.device.connect()
        await world.negotiate()


# ---------------------------------------------------------------- the chardev


async def test_the_chardev_of_a_monitor_takes_no_change_and_is_busy() -> None:
    async with open_world() as world:
        text = "^Chardev user does not support chardev hotswap\n"
        with pytest.raises(ChangeRefusedError, match=text):
            await world.registry.change("m", FakeOptions(device=FakeDevice("other")))
        with pytest.raises(ChardevBusyError, match=r"^Chardev 'm' is busy$"):
            await world.registry.remove("m")
        with pytest.raises(ChardevBusyError, match=r"^Device 'm' is in use$"):
            await world.monitor.run()


async def test_a_break_is_nothing_to_a_monitor() -> None:
    async with open_world() as world:
        await world.negotiate()
        world.device.say(Event.BREAK)
        world.send("echo")
        assert await world.settle() == ["echo"]
