"""object-add and object-del, compared with QEMU's."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.peers import need
from tests.services import PROGRAM, TIMEOUT, Qmp, running
from trio_chardev.access.secret import Secret
from trio_chardev.access.table import OBJECT
from trio_chardev.errors import ChardevError
from trio_chardev.options.structure import structure
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.registry import Registry, open_registry


def add(**arguments: Any) -> tuple[str, dict[str, Any]]:
    return "object-add", {name.replace("_", "-"): value for name, value in arguments.items()}


def delete(id: str) -> tuple[str, dict[str, Any]]:
    return "object-del", {"id": id}


EXCHANGES = [
    add(),
    add(qom_type="bogus", id="x"),
    add(qom_type=5, id="x"),
    add(qom_type="secret"),
    add(id="x"),
    add(qom_type="secret", id="s", data="abc"),
    add(qom_type="secret", id="s", data="abc"),
    add(qom_type="secret", id="t"),
    add(qom_type="secret", id="t", data="x", foo=1),
    add(qom_type="secret", id="1 x", data="x"),
    add(qom_type="secret", id=5, data="x"),
    add(qom_type="secret", id="t", data=5),
    add(qom_type="secret", id="t", data="x", format="hex"),
    add(qom_type="tls-creds-x509", id="c", endpoint="server", dir="/nonexistent"),
    add(qom_type="tls-creds-x509", id="c", endpoint="both", dir="/nonexistent"),
    add(qom_type="authz-list", id="a"),
    add(qom_type="authz-list", id="b", rules=[{"match": "x"}]),
    add(qom_type="authz-list", id="b", rules=[{"match": "x", "policy": "allow"}]),
    add(qom_type="authz-simple", id="i"),
    delete("nosuch"),
    delete("s"),
    delete("s"),
]


async def run(registry: Registry, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    context = Context(Host(registry, lambda reason: None))
    try:
        return {"return": await COMMANDS[name].run(context, arguments)}
    except ChardevError as exc:
        return {"error": {"class": "GenericError", "desc": str(exc)}}


async def test_answers_are_those_of_qemu_storage_daemon(tmp_path: Path) -> None:
    path = str(tmp_path / "q")
    theirs = await trio.to_thread.run_sync(ask_daemon, need("qemu-storage-daemon"), path)
    async with open_registry() as registry:
        ours = [await run(registry, name, arguments) for name, arguments in EXCHANGES]
    assert ours == theirs


def ask_daemon(program: str, path: str) -> list[Any]:
    with socket.socket(socket.AF_UNIX) as listener:  # as a client it cannot be too early
        listener.bind(path)
        listener.listen()
        chardev = f"socket,id=q,path={path},server=off"
        with subprocess.Popen([program, "--chardev", chardev, "--monitor", "q"]) as daemon:
            try:
                sock, _ = listener.accept()
                with sock, sock.makefile("rwb") as wire:
                    wire.readline()
                    ask(wire, "qmp_capabilities", {})
                    return [ask(wire, name, arguments) for name, arguments in EXCHANGES]
            finally:
                daemon.kill()


def ask(wire: Any, name: str, arguments: dict[str, Any]) -> Any:
    wire.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
    wire.flush()
    return json.loads(wire.readline())


async def test_what_was_added_is_kept_by_its_id_until_deleted() -> None:
    async with open_registry() as registry:
        rule = {"match": "CN=a", "policy": "allow"}
        await run(registry, *add(qom_type="authz-list", id="who", rules=[rule]))
        authorizer: Any = registry.objects["who"]
        assert authorizer.allows("CN=a")
        await run(registry, *delete("who"))
        assert not registry.objects


def test_serve_makes_objects_before_chardevs(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with (
        running(
            *("--object", "secret,id=s,data=abc", "--object", "authz-list,id=who,policy=allow"),
            *("--qmp", f"unix:{path},server=on,wait=off"),
        ),
        Qmp(path) as qmp,
    ):
        assert qmp("object-del", id="who") == {}
        assert qmp("object-del", id="who") == "object 'who' not found"


@pytest.mark.parametrize(
    "text", ["secret,id=s", "bogus,id=s", "secret,data=x", "secret,id=1,data=x"]
)
def test_a_bad_object_ends_serve_with_one_line(text: str) -> None:
    ended = subprocess.run(
        [*PROGRAM, "serve", "--object", text], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("trio-chardev: --object ")
    assert "Traceback" not in ended.stderr


def test_objects_are_structured_by_their_type() -> None:
    assert structure(OBJECT, {"qom-type": "secret", "id": "s", "data": "x"}) == Secret(
        id="s", data="x"
    )
