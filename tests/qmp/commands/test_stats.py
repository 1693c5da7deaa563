"""query-chardev-stats and chardev-retry: how chardevs fare, and how to hurry one that waits."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.devices.fakes import open_fakes
from tests.qmp.commands.test_chardev import Commands, open_commands
from tests.users import PATIENCE
from trio_chardev.core.info import ChardevState
from trio_chardev.devices.bridge import Bridge, BridgeOptions, FlowInfo
from trio_chardev.devices.echo import EchoOptions
from trio_chardev.events import LineSettings
from trio_chardev.qmp.commands.context import ROWS_AT_ONCE, Context, Host
from trio_chardev.testing import FakeDevice, open_chardev

COUNTED = (
    *("received", "sent", "queued", "unsent", "lost", "connects", "failures"),
    *("changes", "failed-changes", "paused"),
)


async def row_of(run: Commands, id: str) -> dict[str, Any]:
    rows = [row for row in (await run("query-chardev-stats"))["chardevs"] if row["id"] == id]
    assert len(rows) == 1
    row: dict[str, Any] = rows[0]
    return row


async def until_row(run: Commands, id: str, **wanted: Any) -> dict[str, Any]:
    """The row of chardev *id*, once it has what is *wanted*."""
    with trio.fail_after(PATIENCE):
        while not (row := await row_of(run, id)).items() >= wanted.items():  # noqa: ASYNC110
            await trio.sleep(0.001)
    return row


# ---------------------------------------------------------------- states


async def test_each_chardev_has_a_row_in_order() -> None:
    async with open_commands() as run:
        assert await run("query-chardev-stats") == {
            key: [] for key in ("chardevs", "devices", "consoles", "clients")
        }
        await run.add("b", "ringbuf")
        await run.add("a", "null")
        rows = (await run("query-chardev-stats"))["chardevs"]
    since = [row.pop("since") for row in rows]
    assert since == sorted(since)
    assert time.time() - PATIENCE < since[0] <= since[1] <= time.time() + 0.001
    nothing = dict.fromkeys(COUNTED, 0)
    assert rows == [
        {**nothing, "id": "b", "kind": "ringbuf", "state": "open", "connects": 1},
        {**nothing, "id": "a", "kind": "null", "state": "closed"},
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("socket", {"addr": {"type": "unix", "data": {"path": "PATH"}}, "wait": False}),
        ("pty", {}),
        ("serial", {"device": "PATH", "wait": False}),
    ],
)
async def test_where_somebody_may_come_it_waits(
    kind: str, data: dict[str, Any], tmp_path: Path
) -> None:
    if "addr" in data:
        data = {**data, "addr": {"type": "unix", "data": {"path": str(tmp_path / "s")}}}
    elif "device" in data:
        data = {**data, "device": str(tmp_path / "ttyUSB0")}
    async with open_commands() as run:
        await run.add("c", kind, **data)
        assert (await row_of(run, "c"))["state"] == "waiting"
        await run.add("m", "mux", chardev="c")
        assert (await row_of(run, "m"))["state"] == "waiting"


async def test_a_client_that_dials_says_why_it_waits_and_how_long(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    addr = {"type": "unix", "data": {"path": path}}
    async with open_commands() as run:
        await run.add("c", "socket", addr=addr, server=False, **{"reconnect-ms": 60_000})
        refused = f"Failed to connect to '{path}': No such file or directory"
        row = await until_row(run, "c", **{"state": "waiting", "last-error": refused})
        assert 60 - PATIENCE < row["next-try"] <= 60
        # Somebody comes, and it dials at once.
        await run.add("s", "socket", addr=addr, wait=False)
        assert await run("chardev-retry", id="c") == {}
        row = await until_row(run, "c", state="open")
        assert row.keys() == {"id", "kind", "state", "since", *COUNTED}
        assert row.items() >= {"connects": 1, "failures": 1}.items()
        assert await run("chardev-retry", id="c") == {}, "it is connected, which is what was wanted"
        assert (await row_of(run, "c"))["state"] == "open"
        await run("chardev-change", id="s", backend={"type": "null", "data": {}})
        row = await until_row(run, "c", state="waiting")
        assert row["last-error"].startswith(f"the connection to '{path}' has ended after 0.")
        assert 60 - PATIENCE < row["next-try"] <= 60


async def test_a_client_that_does_not_dial_again_is_closed(tmp_path: Path) -> None:
    addr = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
    async with open_commands() as run:
        await run.add("s", "socket", addr=addr, wait=False)
        await run.add("c", "socket", addr=addr, server=False)
        await until_row(run, "s", state="open")
        await run("chardev-change", id="s", backend={"type": "null", "data": {}})
        row = await until_row(run, "c", state="closed")
        assert row.keys() == {"id", "kind", "state", "since", *COUNTED}
        name = f"disconnected:unix:{tmp_path}/s"
        why = f"'{name}' has nothing to retry: it is no client with 'reconnect-ms'"
        assert await run.error("chardev-retry", id="c") == why


@pytest.mark.parametrize("kind", ["null", "ringbuf", "pty"])
async def test_what_tries_nothing_has_nothing_to_retry(kind: str) -> None:
    async with open_commands() as run:
        await run.add("c", kind)
        name = run.registry["c"].backend.filename
        why = f"'{name}' has nothing to retry"
        assert await run.error("chardev-retry", id="c") == why
        assert await run.error("chardev-retry", id="x") == "Chardev 'x' not found"


async def test_a_line_that_is_absent_says_so_and_is_looked_for_now(tmp_path: Path) -> None:
    path = tmp_path / "ttyUSB0"
    async with open_commands() as run:
        await run.add("c", "serial", device=str(path), wait=False, **{"reopen-ms": 60_000})
        why = f"Could not open '{path}': No such file or directory"
        row = await until_row(run, "c", **{"state": "waiting", "last-error": why})
        assert 60 - PATIENCE < row["next-try"] <= 60
        master, slave = os.openpty()
        path.symlink_to(os.ttyname(slave))
        assert await run("chardev-retry", id="c") == {}
        await until_row(run, "c", state="open")
        os.close(slave)
        os.close(master)
        row = await until_row(run, "c", **{"state": "waiting", "last-error": f"'{path}' went away"})
        assert row["failures"] == 2, "the look that found nothing, and the loss"


async def test_a_backend_that_has_failed_says_why() -> None:
    """As one with ``reopen-ms=0`` whose line goes."""
    master, slave = os.openpty()
    async with open_commands() as run:
        await run.add("c", "serial", device=os.ttyname(slave), **{"reopen-ms": 0})
        name = os.ttyname(slave)
        os.close(slave)
        os.close(master)
        row = await until_row(run, "c", **{"state": "failed", "last-error": f"'{name}' went away"})
        assert row["failures"] >= 1
        assert await run.error("chardev-retry", id="c") == "the backend of chardev 'c' is gone"


async def test_one_that_is_lent_says_so() -> None:
    master, slave = os.openpty()
    try:
        async with open_commands() as run:
            await run.add("c", "serial", device=os.ttyname(slave))
            await run("chardev-lend", id="c")
            row = await row_of(run, "c")
            assert row.items() >= {"kind": "serial", "state": "lent"}.items()
    finally:
        os.close(master)
        os.close(slave)


async def test_since_is_when_somebody_came_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1000.0)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    device = FakeDevice("c", connected=False)
    async with open_chardev(device) as chardev:
        assert chardev.state == ChardevState(state="closed", since=1000)
        device.connect(True)
        assert chardev.state == ChardevState(state="open", since=1001)
        await chardev.change(FakeDevice("new", connected=False).open)
        assert chardev.state == ChardevState(state="closed", since=1002)
        await chardev.change(FakeDevice("newer").open)
        assert chardev.state == ChardevState(state="open", since=1003)


# ---------------------------------------------------------------- bytes


async def test_what_a_bridge_counts_is_shown_with_its_chardevs() -> None:
    async with open_commands() as run:
        await run.add("board", "ringbuf")
        await run.add("user", "ringbuf")
        run.registry.devices.add(BridgeOptions(id="b", chardev="board", peer="user"))
        stats = await run("query-chardev-stats")
        assert stats["devices"] == await run("query-devices")


async def test_bytes_are_counted_whoever_uses_the_chardev() -> None:
    one = FakeDevice("one", eager=True)
    async with open_fakes(one) as registry:
        run = Commands(Context(Host(registry, on_quit=lambda reason: None)))
        one.feed(b"unread")
        await trio.testing.wait_all_tasks_blocked()
        counted = {"received": 6, "sent": 0, "queued": 6}
        assert (await row_of(run, "one")).items() >= counted.items()
        async with registry["one"].attach() as frontend:
            await frontend.send_all(b"hello")
            assert await frontend.receive_some() == b"unread"
        counted = {"received": 6, "sent": 5, "queued": 0}
        assert (await row_of(run, "one")).items() >= counted.items()


async def test_each_side_has_what_came_from_it_and_what_went_to_it() -> None:
    board, user = FakeDevice("board", eager=True), FakeDevice("user", eager=True)
    async with open_fakes(board, user) as registry:
        run = Commands(Context(Host(registry, on_quit=lambda reason: None)))
        registry.devices.add(BridgeOptions(id="b", chardev="board", peer="user"))
        board.feed(b"hello")
        user.feed(b"x\n")
        await trio.testing.wait_all_tasks_blocked()
        assert (await row_of(run, "board")).items() >= {"received": 5, "sent": 2}.items()
        assert (await row_of(run, "user")).items() >= {"received": 2, "sent": 5}.items()
        user.connect(False)
        board.feed(b"lost")  # dropped: nobody is there, as with a cable
        await trio.testing.wait_all_tasks_blocked()
        assert (await row_of(run, "board")).items() >= {"received": 9, "sent": 2}.items()
        assert (await row_of(run, "user")).items() >= {"received": 2, "sent": 5}.items()


# ---------------------------------------------------------------- what is stuck


async def test_who_takes_nothing_is_told_with_the_time(autojump_clock: MockClock) -> None:
    board, user = FakeDevice("board", eager=True), FakeDevice("user", eager=True, room=2)
    async with open_fakes(board, user) as registry:
        run = Commands(Context(Host(registry, on_quit=lambda reason: None)))
        registry.devices.add(BridgeOptions(id="b", chardev="board", peer="user"))
        board.feed(b"hello")
        await trio.sleep(10)
        (bridge,) = await run("query-devices")
        now = time.time()
        for where in (bridge["to-peer"], await row_of(run, "user")):
            assert 9.99 <= now - where["blocked-since"] < 10 + PATIENCE
        assert bridge["to-peer"].items() >= {"bytes": 2, "queued": 3, "failures": 0}.items()
        assert "blocked-since" not in {**bridge["to-chardev"], **await row_of(run, "board")}
        user.make_room(100)
        await trio.testing.wait_all_tasks_blocked()
        (bridge,) = await run("query-devices")
        assert "blocked-since" not in {**bridge["to-peer"], **await row_of(run, "user")}
        assert bridge["to-peer"].items() >= {"bytes": 5, "queued": 0}.items()


async def test_what_is_held_for_nobody_is_told_with_the_time(autojump_clock: MockClock) -> None:
    board, user = FakeDevice("board", eager=True), FakeDevice("user", eager=True, connected=False)
    async with open_fakes(board, user) as registry:
        options = BridgeOptions(id="b", chardev="board", peer="user", when_closed="hold")
        bridge = registry.devices.add(options)
        assert isinstance(bridge, Bridge)
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.info.to_peer.blocked_since is None, "there is nothing to be sent"
        board.feed(b"hello")
        await trio.sleep(10)
        since = bridge.info.to_peer.blocked_since
        assert since is not None
        assert 9.99 <= time.time() - since < 10 + PATIENCE
        user.connect(True)
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.info.to_peer == FlowInfo(5, 0, queued=0, failures=0)


async def test_what_could_not_be_done_is_counted_until_something_is_sent() -> None:
    board, user = FakeDevice("board", eager=True), FakeDevice("user", has_line=True, eager=True)
    async with open_fakes(board, user) as registry:
        bridge = registry.devices.add(BridgeOptions(id="b", chardev="board", peer="user"))
        assert isinstance(bridge, Bridge)
        user.line_fails = True
        board.say(LineSettings(115200))
        await trio.testing.wait_all_tasks_blocked()
        info = bridge.info.to_peer
        assert info.failures == 1
        assert info.last_error == "user does not take 115200 8N1"
        board.feed(b"hello")
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.info.to_peer == FlowInfo(5, 0, queued=0, failures=1)


# ---------------------------------------------------------------- changes


async def test_changes_and_their_failures_are_counted_with_the_last_ones_error() -> None:
    async with open_commands() as run:
        await run.add("c", "ringbuf")
        null = {"type": "null", "data": {}}
        await run("chardev-change", id="c", backend=null)
        row = await row_of(run, "c")
        assert row.items() >= {"changes": 1, "failed-changes": 0, "connects": 1}.items()
        assert 0 < row["last-pause"] == row["paused"] < PATIENCE
        assert "change-error" not in row
        absent = {"type": "serial", "data": {"device": "/dev/absent"}}
        error = await run.error("chardev-change", id="c", backend=absent)
        row = await row_of(run, "c")
        assert row.items() >= {"changes": 1, "failed-changes": 1}.items()
        assert row["change-error"] in error
        await run("chardev-change", id="c", backend=null)
        row = await row_of(run, "c")
        assert row.items() >= {"changes": 2, "failed-changes": 1}.items()
        assert row["last-pause"] < row["paused"]
        assert "change-error" not in row


async def test_a_change_that_is_cancelled_says_so() -> None:
    async with open_chardev(FakeDevice("c")) as chardev:
        with trio.CancelScope() as scope:
            scope.cancel()
            await chardev.change(FakeDevice("new").open)
        statistics = chardev.statistics()
    assert (statistics.changes, statistics.failed_changes) == (0, 1)
    assert statistics.change_error == "it was cancelled"


# ---------------------------------------------------------------- many


@pytest.mark.parametrize("name", ["query-chardev-stats", "query-chardev-details"])
async def test_others_run_while_rows_are_made_and_what_is_removed_then_has_none(name: str) -> None:
    async with open_commands() as run:
        ids = [f"c{number}" for number in range(3 * ROWS_AT_ONCE)]
        for id in ids:
            await run.add(id, "null")

        async def remove_last() -> None:
            await run("chardev-remove", id=ids[-1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove_last)
            result = await run(name)
    rows = result["chardevs"] if isinstance(result, dict) else result
    assert [row.get("id", row.get("label")) for row in rows] == ids[:-1]


# ---------------------------------------------------------------- one id


async def test_one_id_gives_its_chardev_and_what_uses_it() -> None:
    async with open_commands() as run:
        for id in ("board", "user", "other"):
            await run.add(id, "ringbuf")
        run.registry.devices.add(BridgeOptions(id="b", chardev="board", peer="user"))
        run.registry.devices.add(EchoOptions(id="e", chardev="other"))

        async def ids(id: str) -> tuple[list[str], list[str]]:
            stats = await run("query-chardev-stats", id=id)
            return [c["id"] for c in stats["chardevs"]], [d["id"] for d in stats["devices"]]

        assert await ids("user") == (["user"], ["b"])
        assert await ids("e") == ([], ["e"])
        why = "Chardev 'x' not found"
        assert await run.error("query-chardev-stats", id="x") == why
