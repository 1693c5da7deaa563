"""A reload applies the difference between the files before and now, all of it or nothing."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.config.services import Served, serving
from tests.services import PROGRAM, Qmp, running, until
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.config.absent import AbsentOptions
from trio_chardev.config.nodes import ConfigError
from trio_chardev.devices.base import Device
from trio_chardev.errors import OptionsError
from trio_chardev.registry import Registry
from trio_chardev.service_log.options import LogOptions

LIMIT = 120.0  # seconds of a test
COUNT = 500
DESCRIPTORS = 8 * COUNT
CHANGED = ("c7", "c250", "c499")


def consoles(folder: Path, **devices: str) -> str:
    """That many consoles, on PTYs or on *devices*."""
    rows = []
    for number in range(COUNT):
        name = f"c{number}"
        rows += [
            f"[console.{name}]",
            f'device = "{devices.get(name, "pty")}"',
            f'listen = "{folder}/{name}.sock"',
        ]
    return "\n".join(rows) + "\n"


def all_of(registry: Registry) -> dict[str, object]:
    """Each backend and device, to compare."""
    backends = {id: chardev.backend for id, chardev in registry.items()}
    return {**backends, **registry.devices}


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow `DESCRIPTORS`, which the system must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_of_500_consoles_3_are_changed_and_the_others_are_not_touched(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, consoles(tmp_path)) as served:
            registry = served.registry
            before = all_of(registry)
            assert len(before) == 4 * COUNT
            clients = [
                await trio.open_unix_socket(f"{tmp_path}/c{number}.sock") for number in range(COUNT)
            ]
            await until(
                lambda: all(
                    len(chardev.backend.crowd.clients) == 1
                    for chardev in registry.values()
                    if isinstance(chardev.backend, ConsoleBackend)
                )
            )
            notices: list[object] = []
            registry.on_notice = notices.append
            assert (await served.reload(consoles(tmp_path))).text == "nothing has changed"
            result = await served.reload(consoles(tmp_path, **dict.fromkeys(CHANGED, "null")))
            assert (result.added, result.changed, result.removed) == ((), CHANGED, ())
            after = all_of(registry)
            assert {key for key in before if after[key] is not before[key]} == set(CHANGED)
            told = {getattr(notice, "id", None) for notice in notices}
            assert told <= {*CHANGED, *(f"{name}-console" for name in CHANGED)}
            for number, client in enumerate(clients):
                name = f"c{number}"
                await registry[f"{name}-console"].backend.send_some(memoryview(name.encode()))
                assert await client.receive_some(100) == name.encode()
                await client.aclose()


BASE = """
    [chardev]
    a = "null"
    b = "ringbuf,size=4k"
    c = "null"
    [device.echo]
    driver = "echo"
    chardev = "a"
    """


def same(registry: Registry, before: dict[str, object]) -> bool:
    after = all_of(registry)
    return list(after) == list(before) and all(after[key] is before[key] for key in before)


async def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        before = all_of(served.registry)
        with pytest.raises(ConfigError, match=r"x\.toml:3: \[chardev\.b\]: 'ringbuf' has no 'x'"):
            await served.reload('\n[chardev]\nb = "ringbuf,x=1"\n')
        with pytest.raises(ConfigError, match="Invalid"):
            await served.reload("x =")
        with pytest.raises(tc.OptionsError, match="'qmp' has changed .* restart"):
            await served.reload('qmp = "unix:/x,server=on"\n')
        assert same(served.registry, before)


async def test_pages_of_metrics_come_go_and_are_put_back(tmp_path: Path) -> None:
    one, two, busy = (tmp_path / name for name in ("one", "two", "busy"))

    async def are_served(*paths: Path) -> bool:
        for path in (one, two):
            try:
                (await trio.open_unix_socket(str(path))).socket.close()
            except OSError:
                if path in paths:
                    return False
            else:
                if path not in paths:
                    return False
        return True

    async with serving(tmp_path, f'metrics = "unix:{one}"\n' + textwrap.dedent(BASE)) as served:
        before = all_of(served.registry)
        assert await are_served(one)
        result = await served.reload(f'metrics = "{two}"\n' + textwrap.dedent(BASE))
        assert result.text == "1 changed"
        assert result.changed == ("metrics",)
        assert await are_served(two)
        busy.mkdir()
        with pytest.raises(tc.OptionsError, match=r"x\.toml:1: \[metrics\[1\]\]: Failed to unlink"):
            await served.reload(f'metrics = ["{one}", "{busy}"]\n' + textwrap.dedent(BASE))
        assert await are_served(two), "the step before is undone"
        await served.reload(f'metrics = ["{one}", "{two},clients=on"]\n' + textwrap.dedent(BASE))
        assert await are_served(one, two)
        with pytest.raises(ConfigError, match=r"\[metrics\]: metrics at '\*' need a loop"):
            await served.reload('metrics = "*:9101"\n' + textwrap.dedent(BASE))
        await served.reload(BASE)
        assert await are_served()
        assert same(served.registry, before)


async def test_added_changed_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        registry = served.registry
        before = all_of(registry)
        result = await served.reload(
            """
            [chardev]
            m = "mux,chardev=n"
            n = "null"
            a = "null"
            b = "ringbuf,size=8k"
            [device.discard]
            driver = "discard"
            chardev = "m"
            """
        )
        assert result.added == ("n", "m", "discard")
        assert (result.changed, result.removed) == (("b",), ("c", "echo"))
        assert result.text == "3 added, 1 changed, 2 removed"
        assert set(registry) == {"a", "b", "n", "m"}
        assert list(registry.devices) == ["discard"]
        assert registry["a"].backend is before["a"]
        assert registry.options_of("b") == tc.RingbufOptions(size=8192)
        assert not registry["a"].frontends


async def test_what_fails_is_undone(tmp_path: Path) -> None:
    """The last step can't be made; changes, removals and additions before it are undone."""
    async with serving(tmp_path, BASE) as served:
        registry = served.registry
        kept = {id: registry[id] for id in ("a", "b")}
        a = registry["a"].backend
        with pytest.raises(tc.OptionsError, match=r"x\.toml:5: \[chardev\.z\]: .*No such file"):
            await served.reload(
                f"""
                [chardev]
                a = "null"
                b = "ringbuf,size=8k"
                z = "socket,path={tmp_path}/nobody,server=off"
                y = "null"
                """
            )
        assert set(registry) == {"a", "b", "c"}
        assert list(registry.devices) == ["echo"]
        assert {id: registry[id] for id in kept} == kept
        assert registry["a"].backend is a
        assert registry.options_of("b") == tc.RingbufOptions(size=4096)
        assert len(registry["a"].frontends) == 1
        # The next one starts from what is in force.
        assert (await served.reload(BASE)).text == "nothing has changed"


async def test_what_a_client_uses_is_not_removed_and_then_nothing_is(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        served.registry.devices.add(tc.BridgeOptions(id="own", chardev="b", peer="c"))
        before = all_of(served.registry)
        with pytest.raises(tc.OptionsError, match="'c' can't be removed: 'own' uses it"):
            await served.reload('[chardev]\na = "null"\nb = "ringbuf,size=8k"\n')
        assert same(served.registry, before)
        await served.registry.devices.remove("own")
        await served.reload('[chardev]\na = "null"\nb = "ringbuf,size=8k"\n')


async def test_a_failing_change_of_a_backend_leaves_the_one_before(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        before = all_of(served.registry)
        with pytest.raises(tc.OptionsError, match=r"\[chardev\.a\]"):
            await served.reload(BASE.replace('a = "null"', 'a = "pipe,path=/nonexistent"'))
        assert same(served.registry, before)


async def test_what_clients_have_changed_stays_where_the_files_are_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        registry = served.registry
        await registry.change("a", tc.RingbufOptions(size=512))
        await registry.change("b", tc.NullOptions())
        await registry.remove("c")
        await registry.add("d", tc.NullOptions())
        await registry.add("own", tc.NullOptions())
        before = all_of(registry)
        assert (await served.reload(BASE)).text == "nothing has changed"
        assert same(registry, before)
        text = BASE.replace("4k", "16k").replace('c = "null"', 'd = "ringbuf,size=1k"')
        result = await served.reload(text)
        assert (result.added, result.changed, result.removed) == (("d",), ("b",), ("c",))
        assert registry.options_of("a") == tc.RingbufOptions(size=512)
        assert registry.options_of("b") == tc.RingbufOptions(size=16384)
        assert registry.options_of("d") == tc.RingbufOptions(size=1024)
        assert set(registry) == {"a", "b", "d", "own"}


async def test_what_could_not_open_is_tried_as_the_files_say_now(tmp_path: Path) -> None:
    def text(name: str, more: str = "") -> str:
        return f'[chardev]\nx = "socket,path={tmp_path}/{name},server=off"\n{more}'

    async with serving(tmp_path, text("one")) as served:
        registry = served.registry
        stand_in = registry.options_of("x")
        assert isinstance(stand_in, AbsentOptions)
        with pytest.raises(tc.OptionsError, match="No such file"):
            await served.reload(text("two"))
        assert registry.options_of("x") is stand_in
        assert served.later.is_trying("chardevs", "x")
        await served.reload("# moved\n" + text("one", 'y = "null"'))
        assert registry.options_of("x") is stand_in
        registry["x"].retry()
        await until(lambda: stand_in.attempts.next_try is not None)
        assert stand_in.attempts.error.startswith("Failed to connect to ")
        with socket.socket(socket.AF_UNIX) as device:
            device.bind(f"{tmp_path}/two")
            device.listen()
            await served.reload(text("two"))
            assert registry["x"].is_open
            assert not served.later.is_trying("chardevs", "x")


async def test_objects(tmp_path: Path) -> None:
    def text(identity: str) -> str:
        return f'[object.o]\nqom-type = "authz-simple"\nidentity = "{identity}"\n'

    async with serving(tmp_path, text("x")) as served:
        objects = served.registry.objects
        first = objects["o"]
        await served.reload(text("x"))
        assert objects["o"] is first
        await served.reload(text("y"))
        assert objects["o"] is not first
        failing = 'chardev.z = "pipe,path=/nonexistent"\n'
        with pytest.raises(tc.OptionsError):
            await served.reload(failing + text("z"))
        assert objects["o"].identity == "y"  # type: ignore[attr-defined]
        await served.reload("")
        assert objects == {}


async def test_reloads_come_one_after_another_and_go_on_when_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path, BASE) as served:
        served.file.write_text('chardev.n = "null"\n')
        with trio.CancelScope() as scope:
            scope.cancel()
            await served.reloader.reload()
        await until(lambda: set(served.registry) == {"n"})
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(served.reloader.reload)
        assert set(served.registry) == {"n"}


async def test_a_listener_that_others_need_gone_first(tmp_path: Path) -> None:
    """A console that has another name now has the same address."""

    def text(name: str) -> str:
        return f'[console.{name}]\ndevice = "null"\nlisten = "{tmp_path}/sock"\n'

    def devices(served: Served) -> list[Device]:
        return list(served.registry.devices.values())

    async with serving(tmp_path, text("a")) as served:
        await served.reload(text("b"))
        assert [device.id for device in devices(served)] == ["b-bridge", "b-l0"]
        (await trio.open_unix_socket(f"{tmp_path}/sock")).socket.close()


def test_a_service_by_signal_and_command(tmp_path: Path) -> None:
    file, state = tmp_path / "x.toml", tmp_path / "state"
    qmp_at = f'qmp = "unix:{tmp_path}/q,server=on,wait=off"\n'

    def command() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, "reload", "-s", f"{tmp_path}/q"], capture_output=True, text=True, check=False
        )

    def ids(qmp: Qmp) -> set[str]:
        return {row["label"] for row in qmp("query-chardev")}

    file.write_text(qmp_at + 'chardev.a = "null"\n')
    arguments = ("--config", str(file), "--state", str(state))
    with running(*arguments) as service, Qmp(tmp_path / "q") as qmp:
        assert qmp("chardev-change", id="a", backend={"type": "ringbuf", "data": {}}) == {}
        file.write_text(qmp_at + 'chardev.a = "null"\nchardev.b = "null"\n')
        service.process.send_signal(signal.SIGHUP)
        while ids(qmp) != {"a", "b"}:
            pass
        assert "ringbuf" in json.loads(state.read_text())["chardevs"][0]["now"]["type"]
        file.write_text(qmp_at + 'chardev.a = "ringbuf,size=1k"\n')
        done = command()
        assert (done.returncode, done.stdout) == (0, "changed: a\nremoved: b\n"), done.stderr
        assert json.loads(state.read_text())["chardevs"] == []
        assert qmp("config-reload") == {"added": [], "changed": [], "removed": []}
        file.write_text(qmp_at + 'chardev.a = "nul"\n')
        done = command()
        assert done.returncode == 1
        assert f"{file}:2: [chardev.a]: 'nul' is not a valid" in done.stderr
        service.process.send_signal(signal.SIGHUP)
        assert service.process.stderr is not None
        lines = [json.loads(service.process.stderr.readline())["message"] for _ in range(5)]
        assert lines[:3] == [
            "reloaded: 1 added",
            "reloaded: 1 changed, 1 removed",
            "reloaded: nothing has changed",
        ]
        assert all(line.startswith(f"not reloaded: {file}:2: [chardev.a]") for line in lines[3:])
        assert ids(qmp) == {"a"}
        assert service.stop()[0] == 0


def test_without_a_configuration_there_is_nothing_to_reload(tmp_path: Path) -> None:
    with running("--qmp", f"unix:{tmp_path}/q,server=on,wait=off") as service:
        with Qmp(tmp_path / "q") as qmp:
            assert qmp("config-reload") == "There is no configuration to reload"
        assert service.stop(signal.SIGHUP)[0] == 0


async def test_fifty_reloads_under_load_lose_nothing(tmp_path: Path) -> None:
    """A board prints all the time while its console, its log and another board are changed."""

    def text(number: int) -> str:
        return f"""
            [console.a]
            device = "socket,path={tmp_path}/board,server=on,wait=off"
            listen = "{tmp_path}/a.sock"
            history = "{64 + number % 3}k"
            log = {{ file = "{tmp_path}/{number % 2}.log" }}
            [console.b]
            device = "{["null", "pty"][number % 2]}"
            """

    async def print_lines(board: trio.SocketStream, is_over: trio.Event) -> None:
        number = 0
        while not is_over.is_set():
            await board.send_all(b"%06d\n" % number)
            number += 1
            await trio.sleep(0.0005)
        await board.send_all(b"end")

    received = bytearray()

    async def read(client: trio.SocketStream) -> None:
        while not received.endswith(b"end"):
            received.extend(await client.receive_some(1 << 16))

    with trio.fail_after(LIMIT):
        async with serving(tmp_path, text(0)) as served:
            client = await trio.open_unix_socket(f"{tmp_path}/a.sock")
            board = await trio.open_unix_socket(f"{tmp_path}/board")
            bridge = served.registry.devices["a-bridge"]
            is_over = trio.Event()
            async with client, board, trio.open_nursery() as nursery:
                nursery.start_soon(print_lines, board, is_over)
                nursery.start_soon(read, client)
                for number in range(1, 51):
                    await served.reload(text(number))
                is_over.set()
            assert served.registry.devices["a-bridge"] is bridge
    lines = received.removesuffix(b"end").split()
    assert lines == [b"%06d" % number for number in range(len(lines))]
    assert len(lines) > 50


# ---------------------------------------------------------------- the service's log


async def test_levels_and_form_of_the_log_are_applied(tmp_path: Path) -> None:
    applied: list[LogOptions] = []
    async with serving(tmp_path, 'log.level = "info"\n') as served:
        served.reloader.apply_log = applied.append
        await served.reload('log.level = "info"\nchardev.a = "null"\n')
        assert applied == []  # what is the same is not touched: a client may have set it
        await served.reload('log.level = "info,qmp=debug"\nlog.format = "json"\n')
        assert applied == [LogOptions.parse("info,qmp=debug", "json")]
        await served.reload("")
        assert applied[1:] == [LogOptions()]


async def test_after_a_reload_that_fails_the_log_is_as_before(tmp_path: Path) -> None:
    applied: list[LogOptions] = []
    async with serving(tmp_path, 'log.level = "error"\n') as served:
        served.reloader.apply_log = applied.append
        with pytest.raises(ConfigError, match=r"x\.toml:1: .*there is no level 'loud'"):
            await served.reload('log.level = "loud"\n')
        assert applied == []
        with pytest.raises(tc.ChardevError):
            await served.reload('log.level = "info"\nchardev.a = "file,path=/missing/a"\n')
        assert applied == [LogOptions.parse("info"), LogOptions.parse("error")]


async def test_a_form_that_can_not_be_is_no_reload(tmp_path: Path) -> None:
    def refuse(options: LogOptions) -> None:
        raise OptionsError("there is no journal")

    async with serving(tmp_path, 'chardev.a = "null"\n') as served:
        served.reloader.apply_log = refuse
        with pytest.raises(OptionsError, match="there is no journal"):
            await served.reload('log.format = "journal"\nchardev.b = "null"\n')
        assert set(served.registry) == {"a"}


def test_the_service_logs_as_the_file_says_then(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    listener = f"unix:{tmp_path}/q,server=on,wait=off"
    file.write_text('log.level = "error"\n')
    arguments = ("--config", str(file), "--qmp", listener, "--qmp-trace", f"{tmp_path}/trace")
    with running(*arguments) as service:
        with Qmp(tmp_path / "q") as qmp:
            qmp.add("before", "null")
            file.write_text('log.level = "info"\n')
            qmp("config-reload")
            qmp.add("after", "null")
            (tmp_path / "trace").rename(tmp_path / "old")
            service.process.send_signal(signal.SIGUSR2)
            while not (tmp_path / "trace").exists():
                qmp("query-chardev")
            qmp("query-chardev")
        errors = service.stop()[2]
    assert '"before"' not in errors
    assert '"chardev": "after"' in errors
    assert '"config-reload"' in (tmp_path / "old").read_text()
    assert '"query-chardev"' in (tmp_path / "trace").read_text()
