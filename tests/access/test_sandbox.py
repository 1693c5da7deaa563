"""The paths that QMP clients may name: all of them, whatever the kind, and no others."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.certificates import server_certificate, write_folder
from tests.services import PROGRAM, Qmp, running
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.qmp.client.client import QmpClient, QmpError, open_qmp_client
from trio_chardev.service import Service, open_service

RDONLY, CREATE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """What is in the sandbox; ``outside`` is beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


@pytest.fixture
def outside(inside: Path) -> Path:
    return inside.parent / "outside"


def text_of(sandbox: Sandbox, path: Path | str, flags: int = RDONLY) -> bytes:
    fd = sandbox.open(str(path), flags)
    try:
        return os.read(fd, 100) if flags == RDONLY else b""
    finally:
        os.close(fd)


# ---------------------------------------------------------------- opening


def test_files_in_it_can_be_opened_and_made(inside: Path) -> None:
    sandbox = Sandbox([str(inside)])
    text_of(sandbox, inside / "new", CREATE)
    (inside / "new").write_bytes(b"x")
    (inside / "deep").mkdir()
    (inside / "deep" / "link").symlink_to("../new")
    (inside / "absolute").symlink_to(inside / "new")
    for path in ("new", "deep/link", "absolute", "deep/../new", "../inside/new"):
        assert text_of(sandbox, inside / path) == b"x"


def test_what_is_outside_can_not_however_it_is_named(inside: Path, outside: Path) -> None:
    sandbox = Sandbox([str(inside)])
    (inside / "file").symlink_to(outside / "f")
    (inside / "folder").symlink_to(outside)
    (inside / "dangling").symlink_to(outside / "new")
    (outside / "inside-too").symlink_to(inside)
    fd = os.open(outside / "f", RDONLY)
    try:
        paths = ["file", "folder/f", "folder/new", "dangling", "../outside/f", "..", "../inside2"]
        for path in [*(f"{inside}/{path}" for path in paths), f"/proc/self/fd/{fd}", "/", "f"]:
            with pytest.raises(BackendError) as raised:
                sandbox.open(path, CREATE)
            assert str(raised.value) == f"'{path}' is outside of the sandbox"
            with pytest.raises(BackendError):
                sandbox.check(path)
        assert [path.name for path in outside.iterdir() if path.name == "new"] == []
        assert text_of(EVERYWHERE, inside / "file") == b"secret"
    finally:
        os.close(fd)


@pytest.mark.parametrize("swapped", ["deep", "deep/f"])
def test_a_link_that_is_put_there_meanwhile_is_not_followed(
    inside: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """Between resolving and opening somebody makes a link of a folder, or of the file."""
    (inside / "deep").mkdir()
    (inside / "deep" / "f").write_bytes(b"x")
    realpath = os.path.realpath

    def resolve_and_swap(path: str) -> str:
        real = realpath(path)
        (inside / swapped).rename(inside / "gone")
        (inside / swapped).symlink_to(outside / swapped.removeprefix("deep").lstrip("/"))
        return real

    sandbox = Sandbox([str(inside)])
    monkeypatch.setattr(os.path, "realpath", resolve_and_swap)
    with pytest.raises(OSError, match="Not a directory|Too many levels of symbolic links"):
        sandbox.open(str(inside / "deep" / "f"), RDONLY)


def test_a_link_that_is_a_folder_when_it_is_read_is_an_error_and_no_crash(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "link").symlink_to(inside)

    def swapped(path: str, **_: object) -> str:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    sandbox = Sandbox([str(inside)])
    monkeypatch.setattr(os, "readlink", swapped)
    if sys.version_info >= (3, 13):  # realpath takes it for a folder
        sandbox.check(str(inside / "link" / "f"))
        return
    with pytest.raises(BackendError, match="Invalid argument$"):
        sandbox.check(str(inside / "link" / "f"))


def test_what_is_open_is_in_it_whatever_led_there(inside: Path, outside: Path) -> None:
    for folder in (inside, outside):
        (folder / "f").touch()
    (inside / "away").symlink_to(outside / "f")
    (outside / "back").symlink_to(inside / "f")

    def is_in(path: Path) -> bool:
        fd = os.open(path, os.O_PATH)
        try:
            assert EVERYWHERE.contains(fd)
            return Sandbox([str(inside)]).contains(fd)
        finally:
            os.close(fd)

    assert is_in(inside / "f")
    assert is_in(outside / "back")
    assert not is_in(outside / "f")
    assert not is_in(inside / "away")
    fd = os.open(inside / "f", os.O_PATH)
    (inside / "f").rename(outside / "moved")
    assert not Sandbox([str(inside)]).contains(fd)
    os.close(fd)


def test_nothing_of_another_name_that_begins_alike_is_in_it(inside: Path) -> None:
    (inside.parent / "inside2").write_bytes(b"x")
    with pytest.raises(BackendError, match="outside"):
        Sandbox([str(inside)]).open(f"{inside}2", RDONLY)


def test_it_may_be_a_device_or_several_folders(inside: Path, outside: Path) -> None:
    sandbox = Sandbox(["/dev/null", str(outside)])
    assert text_of(sandbox, "/dev/null") == b""
    assert text_of(sandbox, outside / "f") == b"secret"
    with pytest.raises(BackendError, match="outside"):
        sandbox.open("/dev/zero", RDONLY)


def test_the_kernel_still_says_what_is_wrong_within(inside: Path) -> None:
    sandbox = Sandbox([str(inside)])
    for path in (inside / "missing", inside / "missing" / "f"):
        with pytest.raises(FileNotFoundError):
            sandbox.open(str(path), RDONLY)
    with pytest.raises(FileNotFoundError):
        sandbox.open("", RDONLY)
    with pytest.raises(ValueError, match="null"):
        sandbox.open("a\0b", RDONLY)
    with pytest.raises(BackendError, match="null byte"):
        sandbox.check("a\0b")


def test_a_link_itself_is_in_it_wherever_it_leads(inside: Path, outside: Path) -> None:
    sandbox = Sandbox([str(inside)])
    (inside / "link").symlink_to(outside / "f")
    sandbox.check(str(inside / "link"), follow=False)
    for path in (inside / "..", outside / "link", inside / ".." / "outside" / "link"):
        with pytest.raises(BackendError, match="outside"):
            sandbox.check(str(path), follow=False)


def test_a_sandbox_must_exist() -> None:
    with pytest.raises(OptionsError, match="Could not open '/missing': No such file"):
        Sandbox(["/missing"])


# ---------------------------------------------------------------- what QMP clients may name


def unix(path: Path, **more: Any) -> dict[str, Any]:
    return {"addr": {"type": "unix", "data": {"path": str(path)}}, **more}


OUTSIDE: list[tuple[str, Any]] = [
    ("file", lambda path: {"out": f"{path}/new"}),
    ("file", lambda path: {"out": "/dev/null", "in": f"{path}/f"}),
    ("pipe", lambda path: {"device": f"{path}/f"}),
    ("serial", lambda path: {"device": f"{path}/f"}),
    ("parallel", lambda path: {"device": f"{path}/f"}),
    ("pty", lambda path: {"path": f"{path}/new"}),
    ("ringbuf", lambda path: {"path": f"{path}/new"}),
    ("null", lambda path: {"logfile": f"{path}/new"}),
    ("null", lambda path: {"record": f"{path}/new"}),
    ("replay", lambda path: {"path": f"{path}/f"}),
    ("socket", lambda path: unix(path / "new", wait=False)),
    ("socket", lambda path: unix(path / "s", server=False)),
    ("socket", lambda path: unix(path / "s", server=False, reconnect=1)),
]


async def add(qmp: QmpClient, kind: str, data: dict[str, Any], id: str = "x") -> Any:
    return await qmp.execute("chardev-add", id=id, backend={"type": kind, "data": data})


@pytest.mark.parametrize(("kind", "data"), OUTSIDE, ids=range(len(OUTSIDE)))
async def test_a_client_can_not_name_what_is_outside(
    inside: Path, outside: Path, kind: str, data: Any
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(outside / "s"))
        server.listen()
        before = sorted(os.listdir(outside))
        async with open_service(sandbox=Sandbox([str(inside), "/dev/null"])) as service:
            await service.listen_qmp(SocketOptions(addr=UnixAddress(str(outside.parent / "q"))))
            async with open_qmp_client(outside.parent / "q") as qmp:
                with pytest.raises(QmpError, match="' is outside of the sandbox$"):
                    await add(qmp, kind, data(outside))
                (inside / "link").symlink_to(outside)
                with pytest.raises(QmpError, match="' is outside of the sandbox$"):
                    await add(qmp, kind, data(inside / "link"))
                await add(qmp, "null", {})
                backend = {"type": kind, "data": data(outside)}
                with pytest.raises(QmpError, match="' is outside of the sandbox$"):
                    await qmp.execute("chardev-change", id="x", backend=backend)
        assert sorted(os.listdir(outside)) == before


async def test_a_client_can_name_what_is_inside(inside: Path) -> None:
    os.mkfifo(inside / "fifo")
    master, terminal = os.openpty()
    line = os.ttyname(terminal)
    async with open_service(sandbox=Sandbox([str(inside), line])) as service:
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(inside.parent / "q"))))
        async with open_qmp_client(inside.parent / "q") as qmp:
            await add(qmp, "file", {"out": f"{inside}/out", "in": f"{inside}/fifo"}, "file")
            await add(qmp, "pipe", {"device": f"{inside}/fifo"}, "pipe")
            await add(qmp, "serial", {"device": line}, "serial")
            await add(qmp, "pty", {"path": f"{inside}/pty"}, "pty")
            ring = {"path": f"{inside}/ring", "logfile": f"{inside}/l", "record": f"{inside}/r"}
            await add(qmp, "ringbuf", ring, "ring")
            await add(qmp, "socket", unix(inside / "s", wait=False), "server")
            await add(qmp, "socket", unix(inside / "s", server=False), "client")
            again = {"type": "pty", "data": {"path": f"{inside}/pty"}}
            await qmp.execute("chardev-change", id="pty", backend=again)
            assert len(await qmp.execute("query-chardev")) == 7
    os.close(master)
    os.close(terminal)


async def test_objects_are_read_from_inside_only(inside: Path, outside: Path) -> None:
    write_folder(outside / "tls", server=server_certificate())
    async with open_service(sandbox=Sandbox([str(inside)])) as service:
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(inside.parent / "q"))))
        async with open_qmp_client(inside.parent / "q") as qmp:
            with pytest.raises(QmpError, match="outside"):
                await qmp.execute(
                    "object-add", {"qom-type": "secret", "id": "s", "file": f"{outside}/f"}
                )
            (inside / "tls").symlink_to(outside / "tls")
            for folder in (inside, outside):
                tls = {"qom-type": "tls-creds-x509", "id": "t", "endpoint": "server"}
                with pytest.raises(QmpError, match="outside"):
                    await qmp.execute("object-add", {**tls, "dir": f"{folder}/tls"})


async def test_the_operator_is_not_limited(inside: Path, outside: Path) -> None:
    async with open_service(sandbox=Sandbox([str(inside)])) as service:
        options = SocketOptions(addr=UnixAddress(str(outside / "s")))
        await service.registry.add("s", options)
        with trio.fail_after(5):
            await service.registry.change("s", options)


def test_serve(inside: Path, outside: Path) -> None:
    arguments = ["--qmp", f"unix:{outside}/q,server=on,wait=off", "--sandbox", str(inside)]
    with running(*arguments, "--sandbox", "/dev/null") as service, Qmp(outside / "q") as qmp:
        path = outside / "f"
        said = qmp.add("x", "file", out=str(path))
        assert said == f"Failed to add chardev 'x': '{path}' is outside of the sandbox"
        assert qmp.add("x", "file", out="/dev/null") == {}
        assert service.process.poll() is None
    done = subprocess.run(
        [*PROGRAM, "serve", "--sandbox", "/missing"], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 1
    assert done.stderr == (
        "trio-chardev: --sandbox: Could not open '/missing': No such file or directory\n"
    )


# ---------------------------------------------------------------- what the operator has open


@asynccontextmanager
async def client_of(service: Service, folder: Path) -> AsyncIterator[QmpClient]:
    await service.listen_qmp(SocketOptions(addr=UnixAddress(str(folder / "q"))))
    async with open_qmp_client(folder / "q") as qmp:
        yield qmp


async def test_a_serial_line_that_is_open_is_not_had_by_its_path(inside: Path) -> None:
    master, terminal = os.openpty()
    line = os.ttyname(terminal)
    async with open_service(sandbox=Sandbox([str(inside)])) as service:
        await service.registry.add("x", SerialOptions(path=line))
        async with client_of(service, inside.parent) as qmp:
            again = {"type": "serial", "data": {"device": line}}
            with pytest.raises(QmpError, match=f"'{line}' is outside of the sandbox$"):
                await qmp.execute("chardev-change", id="x", backend=again)
    os.close(master)
    os.close(terminal)


async def test_a_recording_that_is_going_on_is_not_had_by_its_path(
    inside: Path, outside: Path
) -> None:
    async with open_service(sandbox=Sandbox([str(inside)])) as service:
        await service.registry.add("x", NullOptions(record=str(outside / "r")))
        async with client_of(service, inside.parent) as qmp:
            again = {"type": "null", "data": {"record": f"{outside}/r"}}
            with pytest.raises(QmpError, match="/r' is outside of the sandbox$"):
                await qmp.execute("chardev-change", id="x", backend=again)


async def test_a_recording_goes_on_in_its_file_only(inside: Path, outside: Path) -> None:
    """What is at the path by now is another file: it begins anew in that."""
    (inside / "r").symlink_to(outside / "r")
    async with open_service(sandbox=Sandbox([str(inside)])) as service:
        await service.registry.add("x", NullOptions(record=str(inside / "r")))
        (inside / "r").unlink()
        async with client_of(service, inside.parent) as qmp:
            again = {"type": "null", "data": {"record": f"{inside}/r"}}
            await qmp.execute("chardev-change", id="x", backend=again)
    first, second = ((folder / "r").read_text() for folder in (outside, inside))
    assert "CHANGED" in first
    assert second.startswith('{"version": 2')
    assert "CHANGED" not in second


async def test_standard_input_and_output_are_outside(inside: Path) -> None:
    async with (
        open_service(sandbox=Sandbox([str(inside)])) as service,
        client_of(service, inside.parent) as qmp,
    ):
        with pytest.raises(QmpError, match="input and output are outside of the sandbox$"):
            await add(qmp, "stdio", {})


async def test_whom_to_trust_is_not_for_a_client_to_say(inside: Path) -> None:
    async with (
        open_service(sandbox=Sandbox([str(inside)])) as service,
        client_of(service, inside.parent) as qmp,
    ):
        inet = {"type": "inet", "data": {"host": "0.0.0.0", "port": "0"}}
        await add(qmp, "socket", {"addr": inet, "wait": False})
        monitor: dict[str, Any] = {"id": "m", "chardev": "x", "insecure": True}
        refused = "^'insecure' is for the operator to say: the service has a sandbox$"
        with pytest.raises(QmpError, match=refused):
            await qmp.execute("device_add", driver="monitor", **monitor)
        with pytest.raises(QmpError, match=refused):
            await qmp.execute("object-add", {"qom-type": "monitor-qmp", **monitor})
        with pytest.raises(QmpError, match="needs TLS with 'verify-peer'"):
            await qmp.execute("device_add", driver="monitor", **(monitor | {"insecure": False}))


async def test_a_name_that_is_long_by_way_of_its_folder_is_bound_all_the_same(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/self/fd/N/NAME is longer than bind(2) takes."""
    monkeypatch.chdir(inside)
    name = "n" * 108
    async with (
        open_service(sandbox=Sandbox([str(inside)])) as service,
        client_of(service, inside.parent) as qmp,
    ):
        await add(qmp, "socket", unix(Path(name), wait=False), "s")
        await add(qmp, "socket", unix(Path(name), server=False), "c")
        again = {"type": "socket", "data": unix(Path(name), wait=False)}
        await qmp.execute("chardev-change", id="s", backend=again)
        assert os.listdir(inside) == [name]
        await qmp.execute("chardev-remove", id="s")
    assert os.listdir(inside) == []
