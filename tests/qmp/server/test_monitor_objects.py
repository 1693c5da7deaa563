"""The object monitor-qmp: QEMU 11.1's texts, a session that leaves nothing, --object, --state."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.services import PROGRAM, TIMEOUT, Qmp, running, until
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.qmp.client.client import QmpClient, QmpConnectionError, QmpError, open_qmp_client
from trio_chardev.service import Service, open_service


def server(path: Path) -> SocketOptions:
    return SocketOptions(addr=UnixAddress(str(path)), wait=False)


@asynccontextmanager
async def driven(folder: Path) -> AsyncIterator[tuple[Service, QmpClient]]:
    """A service with a chardev "m" for monitors, and a client of another monitor."""
    async with open_service() as service:
        await service.listen_qmp(server(folder / "q"))
        await service.registry.add("m", server(folder / "m"))
        async with open_qmp_client(folder / "q") as qmp:
            yield service, qmp


async def add(qmp: QmpClient, id: str = "mon", chardev: str = "m", **more: Any) -> None:
    properties = {name.replace("_", "-"): value for name, value in more.items()}
    await qmp.execute(
        "object-add", {"qom-type": "monitor-qmp", "id": id, "chardev": chardev} | properties
    )


async def error(qmp: QmpClient, command: str, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(QmpError) as raised:
        await qmp.execute(command, {name.replace("_", "-"): v for name, v in arguments.items()})
    return raised.value.error_class, str(raised.value)


# ---------------------------------------------------------------- as qmp-test.c has it


async def test_added_deleted_and_added_again_with_the_same_id(tmp_path: Path) -> None:
    async with driven(tmp_path) as (service, qmp):
        for _ in range(3):
            await add(qmp)
            async with open_qmp_client(tmp_path / "m") as other:
                assert await other.execute("query-version") == await qmp.execute("query-version")
            assert await qmp.execute("object-del", id="mon") == {}
        assert await qmp.execute("chardev-remove", id="m") == {}
        assert not service.registry.objects
        assert not service.registry.object_devices


async def test_mistakes_are_told_in_qemus_words_and_leave_nothing(tmp_path: Path) -> None:
    def monitor(**properties: Any) -> dict[str, Any]:
        return {"qom_type": "monitor-qmp", "id": "x", "chardev": "m"} | properties

    mistakes = [
        (monitor(chardev="nonexistent"), 'chardev "nonexistent" not found'),
        (monitor(chardev="busy"), "chardev 'busy' is already in use"),
        (monitor(chardev=5), "Invalid parameter type for 'chardev', expected: string"),
        (monitor(id="1"), "Parameter 'id' expects an identifier"),
        (
            monitor(id="mon"),
            "attempt to add duplicate property 'mon' to object (type 'container')",
        ),
        (monitor(close_action="x"), "Parameter 'close-action' does not accept value 'x'"),
        (monitor(readline=True), "Parameter 'readline' is unexpected"),
        ({"qom_type": "monitor-qmp", "id": "x"}, "Parameter 'chardev' is missing"),
        (
            monitor(qom_type="monitor-hmp"),
            "Parameter 'qom-type' does not accept value 'monitor-hmp': "
            "only QMP is spoken here (monitor-qmp)",
        ),
    ]
    async with driven(tmp_path) as (service, qmp):
        await service.registry.add("busy", NullOptions())
        await add(qmp, chardev="busy")
        for properties, text in mistakes:
            assert await error(qmp, "object-add", **properties) == ("GenericError", text)
        assert list(service.registry.objects) == ["mon"]
        assert service.registry["m"].frontends == []
        assert await error(qmp, "chardev-remove", id="busy") == (
            "GenericError",
            "Chardev 'busy' is busy",
        )


async def test_it_is_no_device(tmp_path: Path) -> None:
    """Its id is that of an object: a device may have the same."""
    async with driven(tmp_path) as (service, qmp):
        await service.registry.add("n", NullOptions())
        await add(qmp)
        assert await qmp.execute("query-devices") == []
        assert (await error(qmp, "device_del", id="mon"))[0] == "DeviceNotFound"
        await qmp.execute("device_add", driver="echo", id="mon", chardev="n")
        with qmp.open_events() as events:
            await qmp.execute("object-del", id="mon")
            await qmp.execute("device_del", id="mon")
            await qmp.execute("chardev-remove", id="n")
            with trio.fail_after(5):
                assert (await events.receive()).data["path"] == "/machine/peripheral/mon"


async def test_the_monitor_of_the_command_cannot_be_deleted_by_it(tmp_path: Path) -> None:
    async with driven(tmp_path) as (service, qmp):
        await add(qmp)
        async with open_qmp_client(tmp_path / "m") as own:
            assert await error(own, "object-del", id="mon") == (
                "GenericError",
                "Cannot delete the current QMP monitor",
            )
            assert list(service.registry.objects) == ["mon"]
            await qmp.execute("object-del", id="mon")


async def test_of_two_monitors_on_a_mux_one_can_delete_the_other(tmp_path: Path) -> None:
    async with driven(tmp_path) as (service, qmp):
        await service.registry.add("mux", MuxOptions(chardev="m"))
        await add(qmp, "one", "mux")
        await add(qmp, "two", "mux")  # has the focus
        async with open_qmp_client(tmp_path / "m") as own:
            assert await own.execute("object-del", id="one") == {}
            assert (await error(own, "object-del", id="two"))[1].startswith("Cannot delete")


async def test_pretty_and_whom_it_takes(tmp_path: Path) -> None:
    async with driven(tmp_path) as (_, qmp):
        await add(qmp, pretty=True)
        async with await trio.open_unix_socket(tmp_path / "m") as stream:
            greeting = await stream.receive_some()
            assert b'\n    "QMP": {' in greeting
        await qmp.execute(
            "chardev-add",
            id="far",
            backend={
                "type": "socket",
                "data": {
                    "addr": {"type": "inet", "data": {"host": "0.0.0.0", "port": "0"}},
                    "wait": False,
                },
            },
        )
        _, text = await error(qmp, "object-add", qom_type="monitor-qmp", id="f", chardev="far")
        assert text.endswith("or insecure=on")
        await add(qmp, "f", "far", insecure=True)


# ---------------------------------------------------------------- one session


async def test_a_session_leaves_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path) as (service, qmp):
        before = set(os.listdir("/proc/self/fd"))
        for number in range(5):
            name = f"s{number}"
            await service.registry.add(name, server(tmp_path / name))
            await add(qmp, name, name, close_action="delete")
            with qmp.open_events() as events:
                async with open_qmp_client(tmp_path / name) as session:
                    assert name in [r["label"] for r in await session.execute("query-chardev")]
                with trio.fail_after(5):
                    while (event := await events.receive()).name != "CHARDEV_REMOVED":
                        assert event.data["id"] == name
            await until(lambda: not service.registry.objects)
            assert list(service.registry) == ["m"]
            assert not (tmp_path / name).exists()
            assert not service.registry.object_devices
        assert set(os.listdir("/proc/self/fd")) == before


async def test_a_session_by_a_descriptor(tmp_path: Path) -> None:
    """As systemd-vmspawn has it: the client's end is there from the beginning."""
    async with driven(tmp_path) as (service, qmp):
        ours, theirs = trio.socket.socketpair()
        with ours:
            await qmp.execute("getfd", fdname="s", fds=[theirs.fileno()])
            theirs.close()
            await qmp.execute(
                "chardev-add",
                id="s",
                backend={
                    "type": "socket",
                    "data": {"addr": {"type": "fd", "data": {"str": "s"}}, "server": False},
                },
            )
            await add(qmp, "s", "s", close_action="delete")
            assert (await ours.recv(4096)).startswith(b'{"QMP": ')
            await ours.send(b'{"execute": "qmp_capabilities"}{"execute": "query-version"}')
            ours.shutdown(trio.socket.SHUT_WR)
            answers = b""
            with trio.fail_after(5):
                while data := await ours.recv(4096):
                    answers += data
            assert answers.count(b'"return"') == 2
            await until(lambda: not ("s" in service.registry or service.registry.objects))


async def test_a_session_that_nobody_has_come_to_can_be_deleted(tmp_path: Path) -> None:
    async with driven(tmp_path) as (service, qmp):
        await add(qmp, close_action="delete")
        await qmp.execute("object-del", id="mon")
        assert "m" in service.registry
        await add(qmp, close_action="delete")
        async with open_qmp_client(tmp_path / "m") as session:
            await qmp.execute("object-del", id="mon")  # also one that somebody is at
            await qmp.execute("chardev-remove", id="m")
            with pytest.raises(QmpConnectionError):
                await session.execute("query-version")


async def test_a_chardev_with_other_users_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with driven(tmp_path) as (service, qmp):
        await service.registry.add("mux", MuxOptions(chardev="m"))
        await add(qmp, "other", "mux")
        await add(qmp, "session", "mux", close_action="delete")
        async with open_qmp_client(tmp_path / "m") as session:
            await session.execute("query-version")
        await until(lambda: list(service.registry.objects) == ["other"])
        await until(lambda: "chardev 'mux' stays" in caplog.text)
        assert "mux" in service.registry


# ---------------------------------------------------------------- serve


def test_serve_makes_it_behind_the_chardevs_and_it_can_be_deleted(tmp_path: Path) -> None:
    with (
        running(
            *("--object", "monitor-qmp,id=cli,chardev=c", "--chardev", "null,id=c"),
            *("--object", "monitor-qmp,id=q,chardev=q"),
            *("--chardev", f"socket,id=q,path={tmp_path}/q,server=on,wait=off"),
        ) as service,
        Qmp(tmp_path / "q") as qmp,
    ):
        assert qmp("object-del", id="cli") == {}
        assert qmp("chardev-remove", id="c") == {}
        qmp("quit")
        said = service.process.communicate(timeout=TIMEOUT)
    assert said == ("", "")  # and no monitor that nobody asked for
    assert service.process.returncode == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("monitor-qmp,id=x,chardev=no", 'chardev "no" not found'),
        ("monitor-qmp,id=x", "Parameter 'chardev' is missing"),
        (
            "monitor-hmp,id=x,chardev=c",
            "Parameter 'qom-type' does not accept value 'monitor-hmp': "
            "only QMP is spoken here (monitor-qmp)",
        ),
    ],
)
def test_a_mistake_ends_serve_with_one_line(text: str, error: str) -> None:
    ended = subprocess.run(
        [*PROGRAM, "serve", "--chardev", "null,id=c", "--object", text],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (ended.returncode, ended.stderr) == (1, f"trio-chardev: --object {text}: {error}\n")


def test_help() -> None:
    def ask(text: str) -> str:
        command = [*PROGRAM, "serve", "--object", text]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout

    assert "  monitor-qmp " in ask("help")
    assert "  close-action=<none|delete> " in ask("monitor-qmp,help")


def restarted(folder: Path, *more: str) -> Any:
    return running(
        *("--qmp", f"unix:{folder}/q,server=on,wait=off", "--state", f"{folder}/state", *more)
    )


def listening(folder: Path, id: str) -> dict[str, Any]:
    address = {"type": "unix", "data": {"path": f"{folder}/{id}"}}
    backend = {"type": "socket", "data": {"addr": address, "wait": False}}
    return {"id": id, "backend": backend}


def monitor(id: str, **more: str) -> dict[str, Any]:
    return {"qom-type": "monitor-qmp", "id": id, "chardev": id} | more


def test_a_crash_keeps_those_that_are_no_session_under_way(tmp_path: Path) -> None:
    with restarted(tmp_path) as service, Qmp(tmp_path / "q") as qmp:
        for id in ("kept", "deleted", "waiting", "session"):
            assert qmp("chardev-add", **listening(tmp_path, id)) == {}
        assert qmp("object-add", **monitor("kept")) == {}
        assert qmp("object-add", **monitor("deleted")) == {}
        assert qmp("object-add", **monitor("waiting", **{"close-action": "delete"})) == {}
        assert qmp("object-add", **monitor("session", **{"close-action": "delete"})) == {}
        assert qmp("object-del", id="deleted") == {}
        with Qmp(tmp_path / "session") as session:
            assert session("object-add", **{"qom-type": "secret", "id": "s", "data": "x"}) == {}
            _, _, errors = service.stop(signal.SIGKILL)
    assert errors == ""
    with restarted(tmp_path) as service, Qmp(tmp_path / "q") as qmp:
        assert {row["label"] for row in qmp("query-chardev")} == {"kept", "deleted", "waiting"}
        for id in ("kept", "waiting"):
            with Qmp(tmp_path / id) as other:
                assert other("object-del", id="s") in ({}, "object 's' not found")
        _, _, errors = service.stop(signal.SIGKILL)
    assert errors == ""


def test_the_command_lines_session_is_there_again_at_the_next_start(tmp_path: Path) -> None:
    more = (
        *("--chardev", f"socket,id=c,path={tmp_path}/c,server=on,wait=off"),
        *("--object", "monitor-qmp,id=c,chardev=c,close-action=delete"),
    )
    for _ in range(2):
        with restarted(tmp_path, *more) as service, Qmp(tmp_path / "q") as qmp:
            with Qmp(tmp_path / "c") as session:
                session("query-version")
            while qmp("query-chardev"):
                pass
            service.stop(signal.SIGKILL)
    with restarted(tmp_path, *more), Qmp(tmp_path / "q") as qmp:
        assert qmp("object-del", id="c") == {}  # a client's word is kept
    with restarted(tmp_path, *more), Qmp(tmp_path / "q") as qmp:
        assert qmp("object-del", id="c") == "object 'c' not found"
