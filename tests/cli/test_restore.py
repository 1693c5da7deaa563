"""``serve --state``: after a kill -9 the next start has what clients had set up."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp, running


@contextmanager
def service(
    folder: Path, *chardevs: str, devices: Sequence[str] = (), **more: str
) -> Iterator[tuple[Qmp, list[str]]]:
    """A service with a client; killed at the end. What it said comes then."""
    arguments = [argument for chardev in chardevs for argument in ("--chardev", chardev)]
    arguments += [argument for device in devices for argument in ("--device", device)]
    arguments += [argument for key, value in more.items() for argument in (f"--{key}", value)]
    said: list[str] = []
    qmp = ("--qmp", f"unix:{folder}/q,server=on,wait=off")
    with (
        running(*arguments, *qmp, "--state", f"{folder}/state") as started,
        Qmp(folder / "q") as client,
    ):
        yield client, said
        status, _, errors = started.stop(signal.SIGKILL)
    assert status == -signal.SIGKILL
    said += [json.loads(line)["message"] for line in errors.splitlines()]


def filenames(qmp: Qmp) -> dict[str, str]:
    return {row["label"]: row["filename"] for row in qmp("query-chardev")}


def drivers(qmp: Qmp) -> dict[str, str]:
    return {row["id"]: row["driver"] for row in qmp("query-devices")}


def change(qmp: Qmp, id: str, kind: str, **data: Any) -> Any:
    return qmp("chardev-change", id=id, backend={"type": kind, "data": data})


def test_what_clients_added_changed_and_removed(tmp_path: Path) -> None:
    base = ("null,id=same", "null,id=changed", "null,id=removed")
    with service(tmp_path, *base) as (qmp, said):
        assert qmp.add("base", "ringbuf", size=4096) == {}
        assert qmp.add("gone", "null") == {}
        assert qmp("chardev-remove", id="gone") == {}
        assert change(qmp, "changed", "mux", chardev="base") == {}
        assert qmp("chardev-remove", id="removed") == {}
        assert qmp("object-add", **{"qom-type": "authz-simple", "id": "o", "identity": "x"}) == {}
    assert said == []
    wanted = {"same": "null", "changed": "mux", "base": "ringbuf"}
    answers: list[Any] = [{}, "object 'o' not found"]
    for answer in answers:  # the second finds it deleted by the first
        with service(tmp_path, *base) as (qmp, said):
            assert filenames(qmp) == wanted
            assert qmp("object-del", id="o") == answer
        assert said == []


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_has_what_was_answered_and_no_half(
    tmp_path: Path, seed: int
) -> None:
    """The next start has what the first commands made: all that were answered, or some more."""
    choose = random.Random(seed)
    commands: list[dict[str, Any]] = []
    states: list[dict[str, str]] = [{}]
    for number in range(60):
        now = dict(states[-1])
        if now and choose.random() < 0.3:
            id = choose.choice(list(now))
            commands.append({"execute": "chardev-remove", "arguments": {"id": id}})
            del now[id]
        else:
            id, kind = f"c{number % 7}", choose.choice(["null", "ringbuf"])
            name = "chardev-change" if id in now else "chardev-add"
            backend = {"type": kind, "data": {}}
            commands.append({"execute": name, "arguments": {"id": id, "backend": backend}})
            now[id] = kind
        states.append(now)
    answered = choose.randrange(len(commands))
    with service(tmp_path) as (qmp, said):
        qmp.write(b"".join(json.dumps(command).encode() for command in commands))
        for _ in range(answered):
            assert qmp.read() == {"return": {}}
    assert said == []
    with service(tmp_path) as (qmp, said):
        assert filenames(qmp) in states[answered:]
    assert said == []


def test_devices_that_clients_made_and_deleted(tmp_path: Path) -> None:
    base = ("null,id=a", "null,id=b", "null,id=c")
    devices = ("echo,chardev=a", "echo,id=gone,chardev=b", "echo,id=other,chardev=c")
    with service(tmp_path, *base, devices=devices) as (qmp, said):
        assert qmp("device_del", id="gone") == {}
        assert qmp("device_del", id="other") == {}
        assert qmp("device_add", driver="discard", id="other", chardev="b") == {}
        assert qmp.add("m", "ringbuf") == {}
        assert qmp("device_add", driver="monitor", chardev="m") == {}
        assert qmp("device_add", driver="echo", id="short", chardev="c") == {}
        assert qmp("device_del", id="short") == {}
        wanted = {"#device0": "echo", "#device1": "monitor", "other": "discard"}
        assert drivers(qmp) == wanted
    assert said == []
    with service(tmp_path, *base, devices=devices) as (qmp, said):
        assert drivers(qmp) == wanted
        assert qmp("device_del", id="#device1") == {}
        assert qmp("chardev-remove", id="m") == {}
        del wanted["#device1"]
    assert said == []
    with service(tmp_path, *base, devices=devices) as (qmp, said):
        assert drivers(qmp) == wanted
    assert said == []


def test_a_device_whose_chardev_is_missing_is_told_and_the_command_lines_stands_in(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    addr = {"type": "inet", "data": {"host": "127.0.0.1", "port": port}}
    devices = ("discard,id=d,chardev=a",)
    with service(tmp_path, "null,id=a", devices=devices) as (qmp, _):
        assert qmp.add("server", "socket", addr=addr, wait=False) == {}
        assert qmp("device_del", id="d") == {}
        assert qmp("device_add", driver="echo", id="d", chardev="server") == {}
    with (
        socket.create_server(("127.0.0.1", int(port))),
        service(tmp_path, "null,id=a", devices=devices) as (qmp, said),
    ):
        assert drivers(qmp) == {"d": "discard"}
    assert said[1:] == [
        "--state: device 'd' is not restored: Property 'echo.chardev' can't find value 'server'"
    ]
    with service(tmp_path, "null,id=a", devices=devices) as (qmp, said):
        assert drivers(qmp) == {"d": "echo"}
    assert said == []


def test_what_was_not_restored_can_be_deleted(tmp_path: Path) -> None:
    def nothing_left(qmp: Qmp) -> bool:
        state = json.loads((tmp_path / "state").read_text())
        return [rows for rows in state.values() if rows] == [1]

    with service(tmp_path, "null,id=a") as (qmp, _):
        assert qmp("device_add", driver="echo", id="d", chardev="a") == {}
        assert not nothing_left(qmp)
    with service(tmp_path) as (qmp, said):
        assert qmp("device_del", id="d") == "Device 'd' not found"
        assert nothing_left(qmp)
    assert said == [
        "--state: device 'd' is not restored: Property 'echo.chardev' can't find value 'a'"
    ]


def test_what_can_not_be_restored_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    addr = {"type": "inet", "data": {"host": "127.0.0.1", "port": port}}
    with service(tmp_path, "ringbuf,id=c", "null,id=d") as (qmp, _):
        (tmp_path / "folder").mkdir()
        assert qmp.add("first", "file", out=f"{tmp_path}/folder/f") == {}
        assert qmp.add("server", "socket", addr=addr, wait=False) == {}
        assert qmp.add("last", "null") == {}
        assert change(qmp, "c", "file", out=f"{tmp_path}/folder/c") == {}
        assert change(qmp, "d", "ringbuf") == {}
    (tmp_path / "folder").rename(tmp_path / "moved")
    with (
        socket.create_server(("127.0.0.1", int(port))),
        service(tmp_path, "ringbuf,id=c", "null,id=d") as (qmp, said),
    ):
        assert filenames(qmp) == {"c": "ringbuf", "d": "ringbuf", "last": "null"}
    assert said == [
        "--state: chardev 'c' is not restored: Failed to change chardev 'c': "
        f"Could not open '{tmp_path}/folder/c': No such file or directory",
        "--state: chardev 'first' is not restored: Failed to add chardev 'first': "
        f"Could not open '{tmp_path}/folder/f': No such file or directory",
        "--state: chardev 'server' is not restored: "
        "Failed to add chardev 'server': Failed to find an available port: Address already in use",
    ]
    (tmp_path / "moved").rename(tmp_path / "folder")  # and it was not forgotten
    with service(tmp_path, "ringbuf,id=c", "null,id=d") as (qmp, said):
        assert set(filenames(qmp)) == {"c", "d", "first", "server", "last"}
        assert filenames(qmp)["c"] == "file"
    assert said == []


def test_a_command_line_that_has_changed_counts(tmp_path: Path) -> None:
    with service(tmp_path, "null,id=a", "null,id=b", "null,id=c") as (qmp, _):
        for id in "abc":
            assert change(qmp, id, "ringbuf") == {}
        assert qmp.add("d", "ringbuf") == {}
    with service(tmp_path, "null,id=a", "pty,id=b", "null,id=d") as (qmp, said):
        now = {id: name.partition(":")[0] for id, name in filenames(qmp).items()}
        assert now == {"a": "ringbuf", "b": "pty", "d": "null"}
    assert said == [
        "--state: chardev 'c' is not restored: the command line has it no more",
        "--state: chardev 'b' is not restored: the command line has another now",
        "--state: chardev 'd' is not restored: the command line has another now",
    ]


def test_a_server_that_waited_for_its_client_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    addr = {"type": "unix", "data": {"path": f"{tmp_path}/w"}}
    with service(tmp_path, "null,id=w") as (qmp, _), socket.socket(socket.AF_UNIX) as client:
        backend = {"type": "socket", "data": {"addr": addr, "wait": True}}
        command = {"execute": "chardev-change", "arguments": {"id": "w", "backend": backend}}
        qmp.write(json.dumps(command).encode())
        while client.connect_ex(f"{tmp_path}/w"):
            pass
        assert qmp.read() == {"return": {}}
    with service(tmp_path, "null,id=w") as (qmp, said):
        assert filenames(qmp) == {"w": f"disconnected:unix:{tmp_path}/w,server=on"}
    assert said == []


def test_a_serial_line_that_is_absent_now_is_closed_and_looked_for(tmp_path: Path) -> None:
    master, slave = os.openpty()
    line = tmp_path / "line"
    line.symlink_to(os.ttyname(slave))
    with service(tmp_path, "null,id=c") as (qmp, _):
        assert qmp.add("a", "serial", device=str(line)) == {}
        assert change(qmp, "c", "serial", device=str(line), speed=9600) == {}
    line.unlink()
    with service(tmp_path, "null,id=c") as (qmp, said):
        assert filenames(qmp) == {"a": "disconnected:serial", "c": "disconnected:serial"}
        line.symlink_to(os.ttyname(slave))
        qmp.wait_opened("a", "c")
        assert filenames(qmp) == {"a": "serial", "c": "serial"}
    assert len(said) == 2
    assert all(text.endswith("it is looked for") for text in said)
    os.close(slave)
    os.close(master)


def test_the_sandbox_holds_for_it_too(tmp_path: Path) -> None:
    with service(tmp_path) as (qmp, _):
        assert qmp.add("f", "file", out=f"{tmp_path}/f") == {}
    (tmp_path / "in").mkdir()
    with service(tmp_path, sandbox=f"{tmp_path}/in") as (qmp, said):
        assert filenames(qmp) == {}
    assert said == [
        "--state: chardev 'f' is not restored: Failed to add chardev 'f': "
        f"'{tmp_path}/f' is outside of the sandbox"
    ]


def test_an_alien_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")
    done = subprocess.run(
        [*PROGRAM, "serve", "--state", f"{tmp_path}/state"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"trio-chardev: --state {tmp_path}/state: "
        f"'{tmp_path}/state' is not a state file of trio-chardev: "
    )
    assert (tmp_path / "state").read_text() == "mine"


@pytest.mark.parametrize("end", ["quit", "signal"])
def test_after_an_orderly_end_too(tmp_path: Path, end: str) -> None:
    arguments = [
        *("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
        *("--state", f"{tmp_path}/state"),
    ]
    with running(*arguments) as first, Qmp(tmp_path / "q") as qmp:
        assert qmp.add("a", "null") == {}
        if end == "quit":
            qmp("quit")
            assert first.process.wait(timeout=TIMEOUT) == 0
        else:
            assert first.stop()[0] == 0
    with running(*arguments), Qmp(tmp_path / "q") as qmp:
        assert filenames(qmp) == {"a": "null"}
