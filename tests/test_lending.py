"""Lending: the device is away, the users stay, and it comes back or can be fetched again."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import socket
import termios
import tty
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from tests.devices.fakes import Journal, open_fakes
from tests.fakes import any_opener
from tests.services import Qmp, running, until
from tests.steps import steps
from tests.users import PATIENCE
from trio_chardev.backends import lent
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import FdAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.table import Kind
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevClosedError,
    OptionsError,
)
from trio_chardev.events import Event, LineSettings
from trio_chardev.notices import ChardevLent, ChardevReturned, Notice
from trio_chardev.registry import Registry, open_registry, open_registry_with
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeFrontend, FakeOptions

OPENED, CLOSED = Event.OPENED, Event.CLOSED
TO = [None, "pty"]


@attrs.define
class World:
    """A registry whose chardev "board" has a fake device and a user."""

    registry: Registry
    board: FakeDevice
    user: FakeFrontend
    frontend: Frontend
    notices: list[Notice] = attrs.Factory(list)

    def told(self) -> list[Notice]:
        """The notices about lending."""
        return [n for n in self.notices if isinstance(n, ChardevLent | ChardevReturned)]


@asynccontextmanager
async def open_world(**faults: Any) -> AsyncIterator[World]:
    board = FakeDevice("board", **{"eager": True, **faults})
    with trio.fail_after(PATIENCE):
        async with open_fakes(board) as registry:
            user = FakeFrontend()
            frontend = registry["board"].attach(
                be_change=user.be_change, on_event=user.on_event, on_receive=user.on_receive
            )
            world = World(registry, board, user, frontend)
            registry.on_notice = world.notices.append
            yield world


# ---------------------------------------------------------------- closed for another program


async def test_the_device_is_closed_while_it_is_lent_and_the_user_stays() -> None:
    async with open_world() as world:
        await world.registry.lend("board")
        assert not world.board.is_held_open
        assert world.registry.is_lent("board")
        assert world.registry["board"].backend.filename == "lent:fake:board"
        with pytest.raises(BackendDisconnectedError, match=r"^'fake:board' is lent$"):
            await world.frontend.send_all(b"x")
        await world.registry.take_back("board")
        assert world.board.is_held_open
        assert not world.registry.is_lent("board")
        await world.frontend.send_all(b"out")
        world.board.feed(b"in")
        await wait_all_tasks_blocked()
        assert world.board.sent == b"out"
        assert world.user.seen == [
            *(OPENED, CLOSED, "lent:fake:board"),
            *("fake:board", OPENED, b"in"),
        ]
        assert world.told() == [ChardevLent("board"), ChardevReturned("board")]


async def test_its_options_are_those_of_the_device_all_the_time() -> None:
    async with open_world() as world:
        options = world.registry.options_of("board")
        await world.registry.lend("board")
        assert world.registry.options_of("board") == options


async def test_what_was_set_of_the_line_is_set_again_when_it_is_back() -> None:
    async with open_world(has_line=True, line=LineSettings()) as world:
        await world.frontend.line.set(LineSettings(300))
        await world.registry.lend("board")
        world.board.line = LineSettings(921600)  # by the other program
        await world.registry.take_back("board")
        assert world.board.line == LineSettings(300)


async def test_if_it_can_not_be_opened_it_stays_lent_and_that_can_be_tried_again() -> None:
    async with open_world() as world:
        await world.registry.lend("board")
        world.board.opens = False
        with pytest.raises(
            BackendError, match=r"^Failed to take back chardev 'board': board does not open$"
        ):
            await world.registry.take_back("board")
        assert world.registry.is_lent("board")
        assert world.told() == [ChardevLent("board")]
        world.board.opens = True
        await world.registry.take_back("board")
        assert world.board.is_held_open


@pytest.mark.parametrize("to", TO)
async def test_a_user_that_refuses_keeps_it_from_being_lent(to: str | None) -> None:
    async with open_world() as world:

        async def refuse(backend: object) -> None:
            raise ValueError("not now")

        world.frontend.detach()
        world.registry["board"].attach(be_change=refuse)
        with pytest.raises(ChangeFailedError, match=r"not now$"):
            await world.registry.lend("board", to)
        assert not world.registry.is_lent("board")
        assert world.board.is_held_open


async def test_what_is_lent_can_not_be_lent_and_what_is_not_can_not_be_returned() -> None:
    async with open_world() as world:
        with pytest.raises(ChangeRefusedError, match=r"^Chardev 'board' is not lent$"):
            await world.registry.take_back("board")
        await world.registry.lend("board")
        for to in TO:
            with pytest.raises(ChangeRefusedError, match=r"^Chardev 'board' is lent already$"):
                await world.registry.lend("board", to)
        with pytest.raises(OptionsError, match=r": a device can be lent to a 'pty', not to 'me'$"):
            await world.registry.lend("board", "me")


@pytest.mark.parametrize("to", TO)
async def test_a_change_ends_it(to: str | None) -> None:
    async with open_world() as world:
        await world.registry.lend("board", to)
        new = FakeDevice("new", eager=True)
        await world.registry.change("board", FakeOptions(device=new))
        assert not world.registry.is_lent("board")
        assert not world.board.is_held_open
        assert world.told()[1:] == [ChardevReturned("board")]
        await world.frontend.send_all(b"x")
        assert new.sent == b"x"


@pytest.mark.parametrize("to", TO)
async def test_what_is_told_comes_in_order_also_if_nobody_is_at_the_device(to: str | None) -> None:
    async with open_world(connected=False) as world:
        await world.registry.lend("board", to)
        await world.registry.take_back("board")
        names = [type(notice).__name__ for notice in world.notices]
        assert names == ["ChardevChanged", "ChardevLent", "ChardevChanged", "ChardevReturned"]


@pytest.mark.parametrize("to", TO)
async def test_the_backend_that_was_in_place_is_forgotten(to: str | None) -> None:
    async with open_world() as world:
        before = weakref.ref(world.registry["board"].backend)
        await world.registry.lend("board", to)
        gc.collect()
        assert before() is None


async def test_a_pty_with_a_link_keeps_it(tmp_path: Path) -> None:
    """What a kind prepares and puts in place it does here, too."""
    link = tmp_path / "link"
    async with open_registry() as registry:
        await registry.add("board", PtyOptions(path=str(link)))
        before = os.readlink(link)
        await registry.lend("board", "pty")
        assert os.readlink(link) not in (before, registry["board"].pty)
        assert os.path.exists(os.readlink(link))  # noqa: ASYNC240
        await registry.take_back("board")
        assert os.readlink(link) == registry["board"].pty


@pytest.mark.parametrize("to", TO)
async def test_it_can_be_removed(to: str | None) -> None:
    async with open_world() as world:
        await world.registry.lend("board", to)
        world.frontend.detach()
        chardev = world.registry["board"]
        await world.registry.remove("board")
        assert not world.board.is_held_open
        assert chardev not in world.registry._lending, "nothing is left of it"
        await world.registry.add("board", FakeOptions(device=FakeDevice("new")))
        assert not world.registry.is_lent("board")


async def test_of_two_who_take_it_back_one_does() -> None:
    async with open_world() as world:
        await world.registry.lend("board")
        errors: list[str] = []

        async def take_back() -> None:
            try:
                await world.registry.take_back("board")
            except ChangeRefusedError as exc:
                errors.append(str(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_back)
            nursery.start_soon(take_back)
        assert errors == ["Chardev 'board' is not lent any more"]
        assert world.told()[1:] == [ChardevReturned("board")]


async def test_what_has_no_device_of_its_own_is_not_lent() -> None:
    async with open_registry_with(any_opener) as registry:
        await registry.add("base", NullOptions())
        await registry.add("m", MuxOptions(chardev="base"))
        with pytest.raises(
            ChangeRefusedError, match=r"^Chardev 'm' has no device to lend: lend 'base'$"
        ):
            await registry.lend("m")


async def test_a_descriptor_that_was_given_away_can_not_be_opened_again() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours:
        async with open_registry() as registry:
            address = FdAddress(str_=str(theirs.detach()))
            await registry.add("s", SocketOptions(addr=address, server=False))
            with pytest.raises(ChangeRefusedError, match=r"its descriptor can't be opened again$"):
                await registry.lend("s")


async def test_a_server_is_back_without_waiting_for_a_client(tmp_path: Path) -> None:
    address = UnixAddress(path=str(tmp_path / "s"))
    is_there = (tmp_path / "s").exists
    async with open_registry() as registry, trio.open_nursery() as nursery:
        nursery.start_soon(registry.add, "s", SocketOptions(addr=address, server=True, wait=True))
        with trio.fail_after(PATIENCE):
            with socket.socket(socket.AF_UNIX) as client:  # the file is there before it listens
                await until(lambda: client.connect_ex(address.path) == 0)
                await until(lambda: "s" in registry)
                await registry.lend("s")
                assert not is_there()
                await registry.take_back("s")
                assert is_there()


async def test_a_log_and_a_file_go_on_when_it_is_back(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    async with open_registry() as registry:
        await registry.add("f", FileOptions(out=str(out), logfile=str(log)))
        async with registry["f"].attach(be_change=stateless) as frontend:
            await frontend.send_all(b"before ")
            await registry.lend("f")
            await registry.take_back("f")
            await frontend.send_all(b"after")
    assert out.read_bytes() == log.read_bytes() == b"before after"


# ---------------------------------------------------------------- to the user of a PTY


@attrs.define
class Flasher:
    """Has the PTY open."""

    fd: int

    @classmethod
    def at(cls, registry: Registry) -> Flasher:
        pty = registry["board"].pty
        assert pty is not None
        return cls(os.open(pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))

    @classmethod
    async def visit(cls, world: World) -> None:
        """Open it, send a byte and close it."""
        flasher, sent = cls.at(world.registry), len(world.board.sent)
        os.write(flasher.fd, b"x")
        await until(lambda: len(world.board.sent) > sent)
        os.close(flasher.fd)

    async def read(self) -> bytes:
        await trio.lowlevel.wait_readable(self.fd)
        return os.read(self.fd, 100)


async def test_its_user_has_the_device_and_the_chardevs_user_nothing() -> None:
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        assert world.told() == [ChardevLent("board", world.registry["board"].pty)]
        flasher = Flasher.at(world.registry)
        os.write(flasher.fd, b"to the board")
        await until(lambda: world.board.sent == b"to the board")
        world.board.feed(b"to the flasher")
        assert await flasher.read() == b"to the flasher"
        assert world.user.seen == [OPENED, CLOSED, "lent:fake:board"]
        os.close(flasher.fd)


async def test_its_last_close_takes_the_device_back_when_all_is_sent() -> None:
    async with open_world() as world:
        world.board.room = 3
        await world.registry.lend("board", "pty")
        flasher = Flasher.at(world.registry)
        os.write(flasher.fd, b"all of it")
        os.close(flasher.fd)
        await until(lambda: world.board.sent == b"all")
        await wait_all_tasks_blocked()
        assert world.registry.is_lent("board")
        world.board.make_room(100)
        await until(lambda: not world.registry.is_lent("board"))
        assert world.board.sent == b"all of it"
        world.board.feed(b"hello")
        await wait_all_tasks_blocked()
        assert world.user.seen[-2:] == [OPENED, b"hello"]
        assert world.told()[1:] == [ChardevReturned("board")]


async def test_what_its_user_has_not_taken_goes_to_the_users_when_it_is_back() -> None:
    """The PTY takes some 4 KiB; the rest must not be lost with it."""
    sent = b"".join(b"%07d\n" % number for number in range(4000))
    async with open_world() as world:
        chardev = await world.registry.lend("board", "pty")
        fd = os.open(str(chardev.pty), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(fd)
            await wait_all_tasks_blocked()
            world.board.feed(sent)
            await until_quiet()
            taken = os.read(fd, 1000)
            await until_quiet()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.registry.take_back, "board")
                while world.registry.is_lent("board"):
                    await wait_all_tasks_blocked()
                    with contextlib.suppress(BlockingIOError):
                        taken += os.read(fd, 65536)
        finally:
            os.close(fd)
        world.board.feed(b"end\n")
        await wait_all_tasks_blocked()
        seen = b"".join(item for item in world.user.seen if isinstance(item, bytes))
        assert len(seen) > 10_000
        got = taken + seen
        assert sent + b"end\n" == got


async def until_quiet() -> None:
    """Let the kernel move what it moves in the background."""
    for _ in range(20):
        await trio.sleep(0.002)
        await wait_all_tasks_blocked()


async def test_without_a_user_what_the_device_sends_is_dropped() -> None:
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        world.board.feed(b"boot log")
        await wait_all_tasks_blocked()
        assert not world.board.unread
        flasher = Flasher.at(world.registry)
        world.board.feed(b"hello")
        await until(lambda: not world.board.unread)
        assert b"hello".endswith(await flasher.read())
        os.close(flasher.fd)


async def test_if_the_last_close_can_not_take_it_back_that_is_told_and_the_next_one_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        pty = world.registry["board"].pty
        world.user.refuses = world.board
        await Flasher.visit(world)
        await until(lambda: "stays lent" in caplog.text)
        assert caplog.messages[-1] == (
            f"chardev 'board' stays lent to '{pty}': "
            "Chardev 'board' change failed: the frontend does not want this backend"
        )
        assert world.registry.is_lent("board")
        await wait_all_tasks_blocked()
        assert sum("stays lent" in text for text in caplog.messages) == 1
        world.user.refuses = None
        await Flasher.visit(world)
        await until(lambda: not world.registry.is_lent("board"))


async def test_its_settings_go_to_the_device_and_the_users_come_back_after_it() -> None:
    async with open_world(has_line=True, line=LineSettings()) as world:
        await world.frontend.line.set(LineSettings(9600))
        await world.registry.lend("board", "pty")
        flasher = Flasher.at(world.registry)
        tty.setraw(flasher.fd)
        assert termios.tcgetattr(flasher.fd)[5] == termios.B9600, "it is shown the device's"
        modes = termios.tcgetattr(flasher.fd)
        modes[4] = modes[5] = termios.B921600
        termios.tcsetattr(flasher.fd, termios.TCSANOW, modes)
        os.write(flasher.fd, b"x")
        await until(lambda: world.board.sent == b"x")
        assert world.board.line.speed == 921600  # type: ignore[union-attr]
        os.close(flasher.fd)
        await until(lambda: not world.registry.is_lent("board"))
        assert world.board.line_calls == [
            *(LineSettings(9600), LineSettings(9600)),  # by the user, and as it is lent
            *(LineSettings(921600), LineSettings(9600)),
        ]


async def test_who_opens_it_soon_after_another_still_has_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``stty -F PTY 115200; cat image >PTY``"""
    monkeypatch.setattr(lent, "CLOSE_DELAY", math.inf)
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        for _ in range(3):
            await Flasher.visit(world)
        assert world.board.sent == b"xxx"
        assert world.registry.is_lent("board")
        backend = world.registry["board"].backend
        assert isinstance(backend, lent.LentToPty)
        terminal = backend._terminal
        await until(lambda: terminal.left_at < math.inf)
        assert not terminal._came.is_set(), "its settings are polled for nobody"
        flasher = Flasher.at(world.registry)
        os.write(flasher.fd, b"y")
        await until(lambda: world.board.sent == b"xxxy")
        assert terminal.left_at == math.inf, "it is in use, and not about to be taken back"
        os.close(flasher.fd)


async def test_a_device_that_is_away_gets_the_bytes_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lent, "RETRY_INTERVAL", 0.001)
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        world.board.connect(False)
        flasher = Flasher.at(world.registry)
        os.write(flasher.fd, b"late")
        await trio.sleep(0.01)
        assert not world.board.sent
        world.board.connect()
        await until(lambda: world.board.sent == b"late")
        os.close(flasher.fd)


async def test_its_settings_come_before_the_bytes_that_were_written_after_them() -> None:
    async with open_world(has_line=True, line=LineSettings()) as world:
        await world.registry.lend("board", "pty")
        journal = Journal(world.board)
        flasher = Flasher.at(world.registry)
        await until(lambda: world.told() != [])
        for number, speed in enumerate((termios.B300, termios.B9600)):
            modes = termios.tcgetattr(flasher.fd)
            modes[4] = modes[5] = speed
            termios.tcsetattr(flasher.fd, termios.TCSANOW, modes)
            os.write(flasher.fd, b"x")
            await until(lambda number=number: len(world.board.sent) > number)  # type: ignore[misc]
        assert journal == [(LineSettings(300), b""), (LineSettings(9600), b"x")]
        os.close(flasher.fd)


async def test_before_the_commit_nothing_of_the_device_is_taken() -> None:
    async with open_world() as world:
        world.frontend.detach()
        asked, go_on = trio.Event(), trio.Event()
        got: list[bytes] = []

        async def refuse(backend: Controls) -> None:
            if not backend.is_original:
                asked.set()
                await go_on.wait()
                raise ValueError("no")

        def take(data: bytes) -> int:
            got.append(data)
            return len(data)

        world.registry["board"].attach(be_change=refuse, on_receive=take)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def lend_it() -> None:
                with pytest.raises(ChangeFailedError):
                    await world.registry.lend("board", "pty")

            await asked.wait()
            world.board.feed(b"early")
            await wait_all_tasks_blocked()
            go_on.set()
        await wait_all_tasks_blocked()
        assert got == [b"early"]


async def test_a_device_that_never_stops_and_that_nobody_reads_holds_up_nobody() -> None:
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        world.board.endless = True
        world.board.feed(b"!")
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        world.board.endless = False
        await world.registry.take_back("board")


async def test_settings_that_the_device_refuses_are_told_of_and_shown_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_world(has_line=True, line=LineSettings(9600), line_fails=True) as world:
        await world.registry.lend("board", "pty")
        flasher = Flasher.at(world.registry)
        modes = termios.tcgetattr(flasher.fd)
        modes[4] = modes[5] = termios.B300
        termios.tcsetattr(flasher.fd, termios.TCSANOW, modes)
        await until(lambda: termios.tcgetattr(flasher.fd)[5] == termios.B9600)
        pty = world.registry["board"].pty
        assert caplog.messages == [f"chardev 'board', lent to '{pty}': board does not take 300 8N1"]
        os.close(flasher.fd)


@pytest.mark.parametrize("to", TO)
async def test_a_recording_goes_on_without_what_the_flasher_sends(
    to: str | None, tmp_path: Path
) -> None:
    cast = tmp_path / "cast"
    board = FakeDevice("board", eager=True)
    async with open_registry(Kind(FakeOptions, lambda o, r: o.device.open(r))) as registry:
        await registry.add("board", FakeOptions(device=board, record=str(cast)))
        async with registry["board"].attach(be_change=stateless) as frontend:
            await frontend.send_all(b"before")
            await registry.lend("board", to)
            if to is not None:
                flasher = Flasher.at(registry)
                os.write(flasher.fd, b"secret")
                with trio.fail_after(PATIENCE):
                    await until(lambda: board.sent == b"beforesecret")
                os.close(flasher.fd)
            await registry.take_back("board")
            await frontend.send_all(b"after")
    lines = [json.loads(line) for line in cast.read_text().splitlines()[1:]]
    assert [data for _, kind, data in lines if kind == "i"] == ["before", "after"]


async def test_a_device_that_dies_stays_lent_until_it_is_fetched() -> None:
    async with open_world() as world:
        await world.registry.lend("board", "pty")
        world.board.dies_after = 0
        world.board.feed(b"!")
        await until(lambda: not world.board.is_held_open)
        assert world.registry.is_lent("board")
        world.board.dies_after = None
        await world.registry.take_back("board")
        assert world.board.is_held_open


async def test_a_serial_line_is_not_closed_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """So DTR and RTS have no edge: whoever shares a line opens it no second time."""
    opened: list[str] = []
    open_path = os.open

    def open_noting(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if not flags & os.O_PATH:  # which only looks at it
            opened.append(str(path))
        return open_path(path, flags, mode, **more)

    master, slave = os.openpty()
    line = os.ttyname(slave)
    try:
        async with open_registry() as registry:
            await registry.add("board", SerialOptions(path=line))
            await registry.add("user", NullOptions())
            registry.devices.add(BridgeOptions(chardev="board", peer="user"))
            monkeypatch.setattr(os, "open", open_noting)
            await registry.lend("board", "pty")
            flasher = Flasher.at(registry)
            os.write(flasher.fd, b"x")
            await trio.lowlevel.wait_readable(master)
            assert os.read(master, 9) == b"x"
            os.write(master, b"y")
            assert await flasher.read() == b"y"
            os.close(flasher.fd)
            with trio.fail_after(PATIENCE):
                await until(lambda: not registry.is_lent("board"))
            assert line not in opened
            assert registry["board"].backend.filename == "serial"
    finally:
        os.close(master)
        os.close(slave)


async def test_a_line_that_may_come_later_is_an_error_for_who_asks_and_else_looked_for(
    tmp_path: Path,
) -> None:
    """As a board that is another USB device while it is flashed."""
    master, slave = os.openpty()
    link = tmp_path / "line"
    link.symlink_to(os.ttyname(slave))
    try:
        async with open_registry() as registry:
            await registry.add("board", SerialOptions(path=str(link), wait=False))
            await registry.lend("board")
            link.unlink()
            with pytest.raises(
                BackendError, match=r"^Failed to take back chardev 'board': .*No such"
            ):
                await registry.take_back("board")
            assert registry.is_lent("board")
            link.symlink_to(os.ttyname(slave))
            await registry.take_back("board")
            assert registry["board"].is_open
            await registry.lend("board", "pty")
            flasher = Flasher.at(registry)
            os.write(flasher.fd, b"x")
            await trio.lowlevel.wait_readable(master)
            link.unlink()
            os.close(flasher.fd)
            with trio.fail_after(PATIENCE):
                await until(lambda: not registry.is_lent("board"))
            assert not registry["board"].is_open
    finally:
        os.close(master)
        os.close(slave)


# ---------------------------------------------------------------- cancelled, and after a crash


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["lend", "take_back"])
@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("ends", [False, True])
def test_cancelled_at_every_step_it_is_lent_or_not_and_nothing_leaks(
    when: str, what: str, to: str | None, ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Either the caller alone is cancelled, or the whole service *ends*."""
    caplog.set_level(logging.ERROR)

    async def once(k: int) -> bool:
        board = FakeDevice("board", eager=True)
        scope, whole = trio.CancelScope(), trio.CancelScope()
        injector = CancelAtStep(k, when, whole if ends else scope)
        before = len(os.listdir("/proc/self/fd"))
        with whole:
            async with open_fakes(board) as registry:
                user = FakeFrontend(bound="fake:board")
                registry["board"].attach(be_change=user.be_change, on_event=user.on_event)
                if what == "take_back":
                    await registry.lend("board", to)
                trio.lowlevel.add_instrument(injector)
                injector.armed = True
                is_done = False
                with scope:
                    try:
                        if what == "lend":
                            await registry.lend("board", to)
                        else:
                            await registry.take_back("board")
                        is_done = True
                    except ChardevClosedError:
                        assert ends
                trio.lowlevel.remove_instrument(injector)
                is_lent = is_done is (what == "lend")
                assert registry.is_lent("board") is is_lent
                name = "lent:fake:board" if is_lent else "fake:board"
                assert registry["board"].backend.filename == user.bound == name
                assert board.holders == (not is_lent or to is not None) or ends
                if not ends:
                    await (registry.take_back if is_lent else registry.lend)("board")
                    assert board.is_held_open is is_lent
        assert not board.is_held_open
        assert len(os.listdir("/proc/self/fd")) <= before + 1, "inotify's stays"
        return injector.fired

    for k in steps(10_000):
        if not trio.run(once, k):
            assert k > 5
            break
    assert not caplog.messages


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("is_refused", [False, True])
def test_cancelled_at_every_step_of_its_own_return_the_service_ends_in_order(
    when: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lent, "CLOSE_DELAY", 0)
    caplog.set_level(logging.ERROR)

    async def once(k: int) -> bool:
        board, whole = FakeDevice("board", eager=True), trio.CancelScope()
        injector = CancelAtStep(k, when, whole)
        before = len(os.listdir("/proc/self/fd"))
        with whole:
            async with open_fakes(board) as registry:
                user = FakeFrontend(refuses=board if is_refused else None, bound="fake:board")
                registry["board"].attach(be_change=user.be_change)
                await registry.lend("board", "pty")
                world = World(registry, board, user, registry["board"].frontends[0])
                trio.lowlevel.add_instrument(injector)
                await Flasher.visit(world)
                injector.armed = True
                await until(
                    lambda: user.seen.count("lent:fake:board") == 2 or user.bound == "fake:board"
                )
        assert (board.is_held_open, board.holders) == (False, 0)
        assert len(os.listdir("/proc/self/fd")) <= before + 1, "inotify's stays"
        return injector.fired

    for k in steps(10_000):
        if not trio.run(once, k):
            assert k > 5
            break
    assert not caplog.messages


def test_after_a_crash_the_chardev_has_its_device(tmp_path: Path) -> None:
    """Also one that a client has added, whose options the state file has."""
    master, slave = os.openpty()
    line, sock = os.ttyname(slave), tmp_path / "qmp"
    arguments = [
        *("--chardev", f"serial,id=theirs,path={line},exclusive=off", "--chardev", "null,id=n"),
        *("--qmp", f"unix:{sock},server=on,wait=off", "--state", str(tmp_path / "state")),
    ]
    try:
        with running(*arguments) as service, Qmp(sock) as qmp:
            assert qmp.add("ours", "serial", device=line, exclusive=False) == {}
            assert qmp("chardev-lend", id="theirs") == {}
            assert qmp("chardev-lend", id="ours", to="pty")["pty"].startswith("/dev/pts/")
            rows = {row["label"]: row for row in qmp("query-chardev-details")}
            assert [rows[id]["lent"] for id in ("theirs", "ours", "n")] == [True, True, False]
            assert rows["ours"]["lent-to"].startswith("/dev/pts/")
            assert rows["ours"]["backend"]["type"] == "serial"
            service.process.kill()
        with running(*arguments), Qmp(sock) as qmp:
            rows = {row["label"]: row for row in qmp("query-chardev-details")}
            for id in ("theirs", "ours"):
                assert (rows[id]["lent"], rows[id]["filename"]) == (False, "serial")
    finally:
        os.close(master)
        os.close(slave)


def test_the_commands_say_what_they_refuse(tmp_path: Path) -> None:
    sock = tmp_path / "qmp"
    with (
        running("--chardev", "null,id=n", "--qmp", f"unix:{sock},server=on,wait=off"),
        Qmp(sock) as qmp,
        Qmp(sock) as other,
    ):
        assert qmp("chardev-return", id="n") == "Chardev 'n' is not lent"
        assert qmp("chardev-lend", id="x") == "Chardev 'x' not found"
        text = "Parameter 'to' does not accept value 'me'"
        assert qmp("chardev-lend", id="n", to="me") == text
        assert qmp("chardev-lend", id="n") == {}
        assert qmp("chardev-lend", id="n") == "Chardev 'n' is lent already"
        assert qmp("chardev-return", id="n") == {}
        other("query-version")
        told = [e["event"] for e in other.events if e["data"] == {"id": "n"}]
        assert told == ["CHARDEV_LENT", "CHARDEV_RETURNED"]
