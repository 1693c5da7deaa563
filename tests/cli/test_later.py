"""What a configuration names and can't be made keeps nothing else from being served."""

from __future__ import annotations

import itertools
import logging
import socket
import textwrap
from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.config.services import serving
from tests.services import Qmp, running, until
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.cli.later import FIRST_DELAY, MAX_DELAY
from trio_chardev.config.absent import AbsentOptions, Attempts

LIMIT = 20.0  # seconds of a test


def absent_console(folder: Path) -> str:
    return f"""
        [console.gone]
        device = "socket,path={folder}/device,server=off"
        listen = "{folder}/gone.sock"
        [console.here]
        device = "null"
        listen = "{folder}/here.sock"
        """


async def test_a_console_that_can_not_open_is_there_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, absent_console(tmp_path)) as served:
            registry = served.registry
            assert list(registry) == ["gone", "gone-console", "here", "here-console"]
            assert list(registry.devices) == ["gone-bridge", "gone-l0", "here-bridge", "here-l0"]
            await until(lambda: registry["gone"].state.next_try is not None)
            state = registry["gone"].state
            assert state.state == "waiting"
            assert state.next_try is not None
            assert 0 <= state.next_try <= FIRST_DELAY
            assert state.last_error is not None
            assert state.last_error.endswith(f"'{tmp_path}/device': No such file or directory")
            async with await trio.open_unix_socket(str(tmp_path / "gone.sock")):
                console = registry["gone-console"].backend
                assert isinstance(console, ConsoleBackend)
                await until(lambda: len(console.crowd.clients) == 1)
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    said = line.getMessage()
    assert said.startswith(f"{tmp_path}/x.toml:2: [console.gone]: chardev 'gone' is tried again: ")


async def test_it_opens_when_it_can_and_its_users_stay(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, absent_console(tmp_path)) as served:
            registry = served.registry
            client = await trio.open_unix_socket(str(tmp_path / "gone.sock"))
            bridge = registry.devices["gone-bridge"]
            with socket.socket(socket.AF_UNIX) as device:
                device.bind(str(tmp_path / "device"))
                device.listen()
                registry["gone"].retry()
                await until(lambda: registry["gone"].is_open)
                board, _ = device.accept()
                with board:
                    board.send(b"login: ")
                    assert await client.receive_some(100) == b"login: "
            assert isinstance(registry.options_of("gone"), tc.SocketOptions)
            assert registry.devices["gone-bridge"] is bridge
            await client.aclose()
            await until(lambda: not served.later.is_trying("chardevs", "gone"))


async def test_it_is_tried_ever_less_often(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    times: list[float] = []

    async def fail() -> bool:
        times.append(trio.current_time())
        raise tc.BackendError("not yet")

    async with serving(tmp_path, "chardev.x = 'null'\n") as served:
        begin = trio.current_time()
        later = served.later
        later.try_again("chardevs", "x", fail, Attempts("not yet"))
        await trio.sleep(250)
        assert later.pause("chardevs", "x") is not None
    delays = [round(b - a, 3) for a, b in itertools.pairwise([begin, *times])]
    assert delays == [1, 2, 4, 8, 16, 32, MAX_DELAY, MAX_DELAY, MAX_DELAY]


async def test_what_a_client_has_put_there_stays(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, absent_console(tmp_path)) as served:
            registry = served.registry
            assert isinstance(registry.options_of("gone"), AbsentOptions)
            stand_in = registry["gone"]
            await registry.change("gone", tc.NullOptions())
            (tmp_path / "device").touch()
            await until(lambda: not served.later.is_trying("chardevs", "gone"))
            assert registry["gone"] is stand_in
            assert registry.options_of("gone") == tc.NullOptions()


async def test_a_change_instead_of_others_options_is_refused(tmp_path: Path) -> None:
    async with tc.open_registry() as registry:
        await registry.add("x", tc.NullOptions())
        with pytest.raises(tc.ChangeRefusedError, match="changed meanwhile"):
            await registry.change("x", tc.NullOptions(), instead_of=tc.NullOptions(logappend=True))


async def test_a_listener_whose_port_is_taken_is_made_later(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"""
            [console.a]
            device = "null"
            listen = "{port}"
            """
        async with serving(tmp_path, text) as served:
            assert list(served.registry.devices) == ["a-bridge"]
            taken.close()
            await until(lambda: "a-l0" in served.registry.devices)
            (await trio.open_tcp_stream("127.0.0.1", port)).socket.close()


def test_serve_with_a_configuration(tmp_path: Path) -> None:
    """By QMP it is shown why and when; without a configuration the start fails, as in QEMU."""
    (tmp_path / "x.toml").write_text(
        f'qmp = "unix:{tmp_path}/q,server=on,wait=off"\n'
        + textwrap.dedent(absent_console(tmp_path))
    )
    with running("--config", f"{tmp_path}/x.toml") as service, Qmp(tmp_path / "q") as qmp:
        (row,) = qmp("query-chardev-stats", id="gone")["chardevs"]
        assert (row["kind"], row["state"]) == ("socket", "waiting")
        details = {row["label"]: row for row in qmp("query-chardev-details")}
        assert details["gone"]["backend"]["type"] == "socket"
        assert row["last-error"].endswith("No such file or directory")
        status, _, errors = service.stop()
    assert status == 0
    assert f"{tmp_path}/x.toml:3: [console.gone]: chardev 'gone' is tried again" in errors
    with running("--chardev", f"socket,id=x,path={tmp_path}/device,server=off") as service:
        assert service.process.wait(30) == 1


def test_serve_without_options_takes_the_default_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "trio-chardev"
    folder.mkdir()
    (folder / "config.toml").write_text('chardev.x = "null"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    folder.chmod(0o700)
    with running(**environ) as service:
        assert service.wait_line().startswith("QMP at ")
        with Qmp(folder / "qmp.sock") as qmp:
            assert [row["label"] for row in qmp("query-chardev")] == ["x"]


def test_serve_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('chardev.x = "nul"\nchardev.y = "nul"\n')
    with running("--config", f"{tmp_path}/x.toml") as service:
        assert service.process.wait(30) == 1
        assert service.process.stderr is not None
        assert len(service.process.stderr.readlines()) == 2
