"""device_add, device_del, query-devices: QEMU's error texts, and what clients do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.services import until
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.devices.table import DEVICE, DRIVERS
from trio_chardev.options.structure import structure
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.client.client import QmpClient, QmpError, QmpEvent, QmpEvents, open_qmp_client
from trio_chardev.service import Service, open_service


def server(path: Path) -> SocketOptions:
    return SocketOptions(addr=UnixAddress(str(path)))


async def error(qmp: QmpClient, command: str, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(QmpError) as raised:
        await qmp.execute(command, arguments)
    return raised.value.error_class, str(raised.value)


async def next_of(events: QmpEvents, name: str) -> QmpEvent:
    with trio.fail_after(5):
        async for event in events:
            if event.name == name:
                return event
    raise AssertionError("the server went away")


async def add_nulls(service: Service, *ids: str) -> None:
    for id in ids:
        await service.registry.add(id, NullOptions())


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "Parameter 'driver' is missing"),
    ({"id": "x"}, "Parameter 'driver' is missing"),
    ({"driver": 5}, "Invalid parameter type for 'driver', expected: string"),
    ({"driver": "bogus"}, "'bogus' is not a valid device model name"),
    ({"driver": "{}"}, "'{}' is not a valid device model name"),
    ({"driver": "echo"}, "Parameter 'chardev' is missing"),
    ({"driver": "echo", "chardev": "a", "foo": 1}, "Property 'echo.foo' not found"),
    ({"driver": "echo", "chardev": "a", "{x}": 1}, "Property 'echo.{x}' not found"),
    ({"driver": "echo", "chardev": "x"}, "Property 'echo.chardev' can't find value 'x'"),
    ({"driver": "echo", "chardev": 5}, "Invalid parameter type for 'chardev', expected: string"),
    (
        {"driver": "echo", "chardev": "busy"},
        "Property 'echo.chardev' can't take value 'busy': Device 'busy' is in use",
    ),
    ({"driver": "echo", "chardev": "a", "id": "d"}, "Duplicate device ID 'd'"),
    ({"driver": "echo", "chardev": "a", "id": "1"}, "Parameter 'id' expects an identifier"),
    (
        {"driver": "bridge", "chardev": "a", "peer": "a"},
        "Property 'bridge.peer' can't take value 'a': it is the bridge's other side",
    ),
    (
        {"driver": "bridge", "chardev": "a", "peer": "b", "when-closed": "x"},
        "Parameter 'when-closed' does not accept value 'x'",
    ),
]


async def test_mistakes_are_told_in_qemus_words(tmp_path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await add_nulls(service, "a", "b", "busy")
        async with open_qmp_client(tmp_path / "q") as qmp:
            await qmp.execute("device_add", driver="discard", id="d", chardev="busy")
            for arguments, text in MISTAKES:
                assert await error(qmp, "device_add", **arguments) == ("GenericError", text)
            assert await error(qmp, "device_del", id="x") == (
                "DeviceNotFound",
                "Device 'x' not found",
            )
            assert await error(qmp, "chardev-remove", id="busy") == (
                "GenericError",
                "Chardev 'busy' is busy",
            )
            assert list(service.registry.devices) == ["d"]


async def test_a_device_comes_is_listed_and_goes(tmp_path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await add_nulls(service, "board", "net")
        async with open_qmp_client(tmp_path / "q") as qmp:
            await qmp.execute("device_add", driver="bridge", id="b", chardev="board", peer="net")
            flow = {"bytes": 0, "dropped": 0, "queued": 0, "failures": 0}
            assert await qmp.execute("query-devices") == [
                {
                    "driver": "bridge",
                    "id": "b",
                    "chardev": "board",
                    "peer": "net",
                    "when-closed": "drop",
                    "state": "closed",  # a null is never open
                    "to-peer": flow,
                    "to-chardev": flow,
                }
            ]
            assert await qmp.execute("device_del", id="b") == {}
            assert await qmp.execute("query-devices") == []
            await qmp.execute("chardev-remove", id="board")


@pytest.mark.parametrize("driver", sorted(set(DRIVERS) - {"bridge", "listener"}))
async def test_every_driver_tells_what_it_is(tmp_path: Path, driver: str) -> None:
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await add_nulls(service, "c")
        async with open_qmp_client(tmp_path / "q") as qmp:
            await qmp.execute("device_add", driver=driver, chardev="c")
            (row,) = await qmp.execute("query-devices")
            assert (row["driver"], row["id"], row["chardev"]) == (driver, "#device0", "c")


async def test_device_deleted_comes_to_all_clients_also_to_the_one_that_asked(
    tmp_path: Path,
) -> None:
    """As in QEMU, whose clients wait for it."""
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await add_nulls(service, "c")
        async with open_qmp_client(tmp_path / "q") as one, open_qmp_client(tmp_path / "q") as two:
            await one.execute("device_add", driver="echo", id="e", chardev="c")
            with one.open_events() as heard_by_one, two.open_events() as heard_by_two:
                await one.execute("device_del", id="e")
                for events in (heard_by_one, heard_by_two):
                    event = await next_of(events, "DEVICE_DELETED")
                    assert event.data == {"device": "e", "path": "/machine/peripheral/e"}


# ---------------------------------------------------------------- monitor


async def test_a_monitor_can_be_added_and_may_delete_itself(tmp_path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await service.registry.add("m", server(tmp_path / "m"))
        async with open_qmp_client(tmp_path / "q") as first:
            await first.execute("device_add", driver="monitor", id="mon", chardev="m")
            async with open_qmp_client(tmp_path / "m") as qmp:
                assert [row["id"] for row in await qmp.execute("query-devices")] == ["mon"]
                assert await qmp.execute("device_del", id="mon") == {}
            await until(lambda: not service.registry.devices)
            await first.execute("chardev-remove", id="m")


async def test_a_monitor_hears_of_events(tmp_path: Path) -> None:
    async with open_service() as service:
        await service.listen_qmp(server(tmp_path / "q"))
        await service.registry.add("m", server(tmp_path / "m"))
        async with open_qmp_client(tmp_path / "q") as first:
            await first.execute("device_add", driver="monitor", chardev="m", pretty=True)
            async with open_qmp_client(tmp_path / "m") as qmp:
                with qmp.open_events() as events:
                    await first.execute("chardev-add", id="n", backend={"type": "null", "data": {}})
                    event = await next_of(events, "CHARDEV_ADDED")
                    assert event.data["id"] == "n"


# ---------------------------------------------------------------- as text


def test_options_can_be_written_down_and_read_again() -> None:
    options = BridgeOptions(id="b", chardev="x", peer="y", when_closed="hold")
    text = unstructure(options, DEVICE)
    assert text == {
        "driver": "bridge",
        "id": "b",
        "chardev": "x",
        "peer": "y",
        "when-closed": "hold",
    }
    assert structure(DEVICE, text) == options
