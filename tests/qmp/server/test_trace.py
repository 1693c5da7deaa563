"""The trace has each message of each client, without secrets, and holds up nobody."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.disk import Disk, eventually
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.errors import BackendError
from trio_chardev.qmp.client.client import QmpError, open_qmp_client
from trio_chardev.qmp.server.trace import Trace, open_trace
from trio_chardev.service import open_service


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(path: Path) -> list[Any]:
    """What was said, as (direction, message)."""
    return [(row["direction"], row["message"]) for row in read(path)]


async def listen(service: Any, path: Path) -> str:
    name: str = await service.listen_qmp(SocketOptions(addr=UnixAddress(str(path))))
    return name


async def test_each_message_is_there_with_who_and_when(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with open_trace(str(path)) as trace, open_service(trace=trace) as service:
        name = await listen(service, tmp_path / "q")
        async with open_qmp_client(tmp_path / "q") as one, open_qmp_client(tmp_path / "q"):
            await one.execute("chardev-add", id="r", backend={"type": "ringbuf", "data": {}})
    rows = read(path)
    me = f"process {os.getpid()} of user {os.getuid()}"
    assert {row["peer"] for row in rows} == {me}
    assert {row["monitor"] for row in rows} == {f"{name}#1", f"{name}#2"}
    assert all(row["time"].endswith("Z") for row in rows)
    first = [row for row in rows if row["monitor"] == f"{name}#1"]
    said = [(row["direction"], row["message"]) for row in first]
    assert "QMP" in said[0][1]
    backend = {"type": "ringbuf", "data": {}}
    command = {"execute": "chardev-add", "arguments": {"id": "r", "backend": backend}, "id": 2}
    assert said[1:5] == [
        ("in", {"execute": "qmp_capabilities", "id": 1}),
        ("out", {"return": {}, "id": 1}),
        ("in", command),
        ("out", {"return": {}, "id": 2}),
    ]
    events = [row["message"]["event"] for row in rows if row["monitor"].endswith("#2") and "event" in row["message"]]  # fmt: skip
    assert "CHARDEV_ADDED" in events
    assert path.stat().st_mode & 0o777 == 0o600


async def test_it_has_no_secrets_even_of_what_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with open_trace(str(path)) as trace, open_service(trace=trace) as service:
        await listen(service, tmp_path / "q")
        async with open_qmp_client(tmp_path / "q") as qmp:
            secret = {"qom-type": "secret", "id": "s"}
            await qmp.execute("object-add", secret | {"data": "hunter1"})
            with pytest.raises(QmpError):
                await qmp.execute("object-add", secret | {"dat": "hunter2"})
        async with await trio.open_unix_socket(str(tmp_path / "q")) as stream:
            await stream.receive_some()
            await stream.send_all(b'{"execute": "object-add", "arguments": {"data": hunter}}')
            assert b"hunter" in await stream.receive_some()
    assert "hunter" not in path.read_text()
    assert ("in", {"malformed": True}) in messages(path)
    assert '"data": "***"' in path.read_text()


async def test_a_message_that_was_printed_before_is_there(tmp_path: Path) -> None:
    """As the reply to query-qmp-schema is."""
    path = tmp_path / "trace"
    async with open_trace(str(path)) as trace, open_service(trace=trace) as service:
        await listen(service, tmp_path / "q")
        async with open_qmp_client(tmp_path / "q") as qmp:
            schema = await qmp.execute("query-qmp-schema")
    assert messages(path)[-1] == ("out", {"return": schema, "id": 2})


async def test_it_is_appended_to_and_opened_anew_with_the_logs(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("torn")
    async with open_trace(str(path)) as trace, open_service(trace=trace) as service:
        await listen(service, tmp_path / "q")
        async with open_qmp_client(tmp_path / "q") as qmp:
            path.rename(tmp_path / "old")
            await qmp.execute("chardev-reopen-log")
            await qmp.execute("query-chardev")
    assert (tmp_path / "old").read_text().startswith('torn\n{"time": ')
    assert messages(path)[-2:] == [
        ("in", {"execute": "query-chardev", "id": 3}),
        ("out", {"return": [], "id": 3}),
    ]


async def test_a_file_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"Could not create '.*/no/trace': No such file"):
        async with open_trace(f"{tmp_path}/no/trace"):
            raise AssertionError


def note(trace: Trace, number: int) -> None:
    trace.note("in", "m", "", {"execute": "x" * 1000, "id": number})


def check_nothing_is_untold(path: Path, count: int) -> int:
    """Check that each of *count* messages is there, or lost where the file says so; return how many."""
    number, lost = 0, 0
    for row in read(path):
        if "lost" in row:
            number += row["lost"]
            lost += row["lost"]
        else:
            assert row["message"]["id"] == number
            number += 1
    assert number == count
    return lost


@pytest.mark.parametrize("trouble", ["full", "hangs"])
async def test_a_disk_in_trouble_costs_messages_that_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(background, "MAX_PENDING", 1 << 13)
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.001)
    path = tmp_path / "trace"
    disk = Disk(monkeypatch)
    async with open_trace(str(path)) as trace:
        note(trace, 0)
        await eventually(lambda: bool(path.read_bytes()))
        if trouble == "full":
            disk.error = OSError(errno.ENOSPC, "full")
        else:
            disk.go.clear()
        for number in range(1, 500):
            note(trace, number)
        await disk.wait_calls(2)
        disk.error = None
        disk.go.set()
        await eventually(lambda: b'"lost"' in path.read_bytes())  # though no more come
        note(trace, 500)
    assert check_nothing_is_untold(path, 501) > 0


async def test_a_full_device_holds_up_no_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(background, "MAX_PENDING", 1 << 12)
    async with open_trace("/dev/full") as trace, open_service(trace=trace) as service:
        await listen(service, tmp_path / "q")
        with trio.fail_after(5):
            async with open_qmp_client(tmp_path / "q") as qmp:
                for _ in range(200):
                    assert await qmp.execute("query-chardev") == []
        assert trace._lost > 0


async def test_a_monitor_on_a_chardev_is_traced_client_by_client(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with open_trace(str(path)) as trace, open_service(trace=trace) as service:
        options = SocketOptions(addr=UnixAddress(str(tmp_path / "m")), wait=False)
        await service.registry.add("m", options)
        await service.add_monitor("m")
        for _ in range(2):
            async with await trio.open_unix_socket(str(tmp_path / "m")) as stream:
                await stream.receive_some()
                await stream.send_all(b'{"execute": "qmp_capabilities"}')
                await stream.receive_some()
    assert {row["monitor"] for row in read(path)} == {"m"}
    directions = [row["direction"] for row in read(path)]
    assert directions == ["out", "in", "out"] * 2
