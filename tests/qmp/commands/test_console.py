"""QMP commands about consoles."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import trio_chardev as tc
from tests.qmp.commands.test_chardev import Commands
from tests.rooms import read, read_all, read_until
from trio_chardev.core.frontend import Frontend
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.service import open_service


@attrs.define(eq=False)
class Desk:
    """A console c, its device's side, and commands."""

    context: Context
    run: Commands
    device: Frontend
    streams: list[trio.SocketStream] = attrs.Factory(list)

    def attach(self, id: str = "c", **arguments: Any) -> tuple[trio.SocketStream, dict[str, Any]]:
        """Attach one end of a pair; returns the other."""
        ours, theirs = socket.socketpair()
        self.context.fds.add("pair", theirs.detach())
        ours.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.streams.append(stream)
        from trio_chardev.qmp.commands.console import CONSOLE_COMMANDS

        answer = CONSOLE_COMMANDS["chardev-attach"].run(
            self.context,
            {"id": id, "fd": "pair"} | {k.replace("_", "-"): v for k, v in arguments.items()},
        )
        return stream, answer


@asynccontextmanager
async def desk(**options: Any) -> AsyncIterator[Desk]:
    async with open_service() as service:
        context = Context(Host(service.registry, lambda reason: None))
        await service.registry.add("c", tc.ConsoleOptions(**options))
        device = service.registry["c"].attach(be_change=tc.stateless)
        it = Desk(context, Commands(context), device)
        try:
            yield it
        finally:
            for stream in it.streams:
                stream.socket.close()


async def test_a_descriptor_becomes_a_client_that_gets_what_it_wants() -> None:
    async with desk(history=65536) as it:
        await it.device.send_all(b"one\ntwo\n")
        stream, answer = it.attach(replay="1", cols=132, rows=43)
        assert (answer["client"], answer["cursor"], answer["live-from"]) == (1, 4, 8)
        assert await read(stream, 4) == b"two\n"
        again, answer = it.attach(since=2)
        assert (answer["client"], answer["cursor"]) == (2, 2)
        assert await read(again, 6) == b"e\ntwo\n"
        rows = await it.run("query-clients", id="c")
        assert [(row["client"], row["who"], row["role"], row["types"]) for row in rows] == [
            (1, "uid 0", "write", True),
            (2, "uid 0", "write", True),
        ]
        assert (rows[0]["cols"], rows[0]["rows"]) == (132, 43)
        assert "cols" not in rows[1]
        assert [row["sent"] for row in rows] == [4, 6]


async def test_a_reconnect_goes_on_where_it_was_or_is_told_how_much_is_gone() -> None:
    async with desk(history=65536) as it:
        await it.device.send_all(b"x" * 60_000 + b"\n" + b"y" * 60_000 + b"\n")
        stream, answer = it.attach(since=0, in_band=True)
        lost = 120_002 - 65_536
        assert answer["cursor"] == lost
        told = f"\r\n[trio-chardev: skipped {lost} bytes]\r\n".encode()
        assert await read(stream, len(told)) == told
        assert (await it.run("query-clients"))[0]["skipped"] == lost


async def test_kicking_tells_why() -> None:
    async with desk() as it:
        stream, _ = it.attach(in_band=True)
        await it.run("chardev-kick", id="c", client=1, reason="lunch")
        assert await read_all(stream) == b"\r\n[trio-chardev: kicked: lunch]\r\n"
        assert await it.run("query-clients") == []
        with pytest.raises(tc.ChardevError, match="console 'c' has no client 1"):
            await it.run("chardev-kick", id="c", client=1)


async def test_the_right_to_write_is_handed_over() -> None:
    async with desk(write="one") as it:
        one, _ = it.attach()
        two, _ = it.attach()
        await it.run("chardev-give-write", id="c", client=2)
        await one.send_all(b"no")
        await two.send_all(b"yes")
        assert await read(it.device, 3) == b"yes"
        assert [row["types"] for row in await it.run("query-clients")] == [False, True]


async def test_the_history_is_read_without_being_taken() -> None:
    async with desk(history=65536) as it:
        await it.device.send_all(b"one\ntwo\n")
        whole = {"data": "one\ntwo\n", "start": 0, "next": 8, "lost": 0}
        for _ in range(2):
            assert await it.run("chardev-history", id="c") == whole
        assert await it.run("chardev-history", id="c", start=-4, max=4) == {
            "data": "two\n",
            "start": 4,
            "next": 8,
            "lost": 0,
        }
        got = await it.run("chardev-history", id="c", format="base64", max=3)
        assert base64.b64decode(got["data"]) == b"one"
        assert got["next"] == 3


async def test_a_reader_can_wait_for_more() -> None:
    async with desk(history=65536) as it, trio.open_nursery() as nursery:
        await it.device.send_all(b"old")

        async def print_later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await it.device.send_all(b"new")

        nursery.start_soon(print_later)
        with trio.fail_after(5):
            got = await it.run("chardev-history", id="c", start=3, wait=60.0)
        assert got == {"data": "new", "start": 3, "next": 6, "lost": 0}


async def test_or_gives_up(autojump_clock: trio.testing.MockClock) -> None:
    async with desk(history=65536) as it:
        got = await it.run("chardev-history", id="c", wait=5.0)
        assert got == {"data": "", "start": 0, "next": 0, "lost": 0}


async def test_marks_are_starts() -> None:
    async with desk(history=65536) as it:
        await it.device.send_all(b"A\n")
        assert await it.run("chardev-mark", id="c", name="here") == {"cursor": 2}
        await it.device.send_all(b"B\n")
        assert (await it.run("chardev-history", id="c", since="here"))["data"] == "B\n"
        marks = {row["name"]: row["cursor"] for row in await it.run("query-marks", id="c")}
        assert marks == {"started": 0, "here": 2}
        stream, _ = it.attach(replay="here")
        assert await read_until(stream, b"\n") == b"B\n"


async def test_mistakes_use_the_descriptor_up_and_change_nothing(tmp_path: Path) -> None:
    async with desk(max_clients=1) as it:
        await it.run.add("n", "null")
        for arguments, error in (
            ({"id": "n"}, "Chardev 'n' is no console"),
            ({"since": 5}, "'since' must be from 0 to 0"),
        ):
            with pytest.raises(tc.OptionsError, match=error):
                it.attach(**arguments)
            assert await it.streams[-1].receive_some() == b""
        it.attach()
        with pytest.raises(tc.BackendError, match="console 'c' is full: 1 clients"):
            it.attach()
        with pytest.raises(tc.ChardevError, match="has not been found"):
            await it.run("chardev-attach", id="c", fd="pair")


async def test_the_statistics_have_the_consoles_and_their_clients() -> None:
    async with desk(history=65536, write="first") as it:
        await it.device.send_all(b"x" * 70_000)
        it.attach()
        stats = await it.run("query-chardev-stats", id="c")
        assert stats["consoles"][0].pop("last-output") > 0
        assert stats["consoles"] == [
            {
                "id": "c",
                "start": 70_000 - 65_536,
                "end": 70_000,
                "clients": 1,
                "writer": 1,
                "sent": 0,
                "received": 0,
                "skipped": 0,
                "queued": 65_536,
                "blocked": 0,
                "attached": 1,
                "refused": 0,
                "let-go": 0,
            }
        ]
        assert stats["clients"] == await it.run("query-clients")
