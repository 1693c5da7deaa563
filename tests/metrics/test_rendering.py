"""The page: what is on it, in both formats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import trio_chardev as tc
from tests.devices.fakes import open_fakes
from tests.metrics.pages import OPENMETRICS, Samples, samples_of
from tests.peers import need
from tests.qmp.commands.test_console import desk
from trio_chardev.metrics import rendering
from trio_chardev.metrics.rendering import SAMPLES_AT_ONCE, render
from trio_chardev.metrics.rows import look
from trio_chardev.metrics.table import METRICS
from trio_chardev.registry import Registry
from trio_chardev.testing import FakeDevice


@asynccontextmanager
async def open_bridged() -> AsyncIterator[tuple[Registry, FakeDevice, FakeDevice]]:
    board, user = FakeDevice("board", eager=True), FakeDevice("user", eager=True)
    async with open_fakes(board, user) as registry:
        registry.devices.add(tc.BridgeOptions(id="b", chardev="board", peer="user"))
        yield registry, board, user


async def page_of(registry: Registry, *, clients: bool = False, accept: str = "") -> Samples:
    page = await render(await look(registry, clients=clients), accept)
    return samples_of(page.content_type, page.body)


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS, "*/*", "image/png"])
async def test_both_formats_have_what_is_counted(accept: str) -> None:
    async with open_bridged() as (registry, board, user):
        board.feed(b"hello")
        await trio.testing.wait_all_tasks_blocked()
        user.connect(False)
        page = await render(await look(registry, clients=False), accept)
    kind = "application/openmetrics-text" if accept == OPENMETRICS else "text/plain"
    assert page.content_type.startswith(f"{kind}; version=")
    found = samples_of(page.content_type, page.body)
    wanted: Samples = {
        ("trio_chardev_received_bytes_total", "board"): 5,
        ("trio_chardev_sent_bytes_total", "user"): 5,
        ("trio_chardev_connects_total", "user"): 1,
        ("trio_chardev_state", "board", "open"): 1,
        ("trio_chardev_state", "user", "open"): 0,
        ("trio_chardev_state", "user", "closed"): 1,
        ("trio_chardev_bridge_passed_bytes_total", "to_peer", "b"): 5,
        ("trio_chardev_bridge_open", "b"): 0,
        ("trio_chardev_last_change_failed", "user"): 0,
        ("trio_chardev_build_info", tc.__version__): 1,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert ("trio_chardev_blocked_since_timestamp_seconds", "user") not in found


async def test_a_console_has_sums_and_each_client_only_if_that_is_wanted() -> None:
    async with desk(history=4096) as it:
        for _ in range(2):
            it.attach()
        await it.device.send_all(b"hello")
        await trio.testing.wait_all_tasks_blocked()
        registry = it.context.host.registry
        sums = await page_of(registry)
        each = await page_of(registry, clients=True)
    assert sums["trio_chardev_console_clients", "c"] == 2
    assert sums["trio_chardev_console_sent_bytes_total", "c"] == 10
    assert not any(key[0].startswith("trio_chardev_client_") for key in sums)
    assert each["trio_chardev_client_sent_bytes_total", "2", "c"] == 5


async def test_what_clients_had_who_have_left_stays_in_the_sums() -> None:
    async with desk(history=4096) as it:
        stream, _ = it.attach()
        await stream.send_all(b"abc")
        await it.device.send_all(b"hello")
        assert await it.device.receive_some() == b"abc"
        await it.run("chardev-kick", id="c", client=1)
        registry = it.context.host.registry
        found = await page_of(registry)
    names = (
        "clients",
        "attached_total",
        "let_go_total",
        "sent_bytes_total",
        "received_bytes_total",
    )
    counts = [found[f"trio_chardev_console_{name}", "c"] for name in names]
    assert counts == [0, 1, 1, 5, 3]


async def test_a_change_is_counted_and_told_with_its_kind() -> None:
    async with tc.open_registry() as registry:
        await registry.add('quoted"\\', tc.NullOptions())
        await registry.change('quoted"\\', tc.RingbufOptions(size=4096))
        found = await page_of(registry)
    assert found["trio_chardev_info", 'quoted"\\', "ringbuf"] == 1
    assert found["trio_chardev_changes_total", 'quoted"\\'] == 1
    pause = found["trio_chardev_last_pause_seconds", 'quoted"\\']
    assert 0 < pause == found["trio_chardev_paused_seconds_total", 'quoted"\\']


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_in_parts_it_is_the_same_page(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tc.open_registry() as registry:
        for number in range(2 * SAMPLES_AT_ONCE + 1):
            await registry.add(f"c{number}", tc.NullOptions())
        rows = await look(registry, clients=False)
        monkeypatch.setattr(rendering, "_encode_process", lambda encode: b"")
        parts = await render(rows, accept)
        monkeypatch.setattr(rendering, "SAMPLES_AT_ONCE", 1 << 20)
        assert await render(rows, accept) == parts


async def test_others_run_while_it_is_made() -> None:
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with tc.open_registry() as registry:
        for number in range(200):
            await registry.add(f"c{number}", tc.NullOptions())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            rows = await look(registry, clients=False)
            looked = steps
            await render(rows, "")
            nursery.cancel_scope.cancel()
    assert looked >= 5
    assert steps - looked >= len(METRICS)


async def test_promtool_finds_nothing_wrong() -> None:
    promtool = need("promtool")
    async with desk(history=4096) as it:
        it.attach()
        registry = it.context.host.registry
        await registry.add("board", tc.NullOptions())
        await registry.add("user", tc.NullOptions())
        registry.devices.add(tc.BridgeOptions(id="b", chardev="board", peer="user"))
        await it.device.send_all(b"hello")
        page = await render(await look(registry, clients=True), "")
    done = await trio.run_process(
        [promtool, "check", "metrics"],
        stdin=page.body,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
