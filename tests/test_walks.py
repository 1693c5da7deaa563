"""docs/walks.md: each walk does what the page says."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pages import Block, Machine, blocks_below
from tests.peers import LOOPBACK, free_port, need
from tests.services import TIMEOUT, Qmp, running
from tests.terminals import read_until, until
from tests.test_board_pages import Board, board
from tests.wires import Wire, wire

PAGE = "docs/walks.md"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {"4001": free_port()})


@contextmanager
def serving(machine: Machine, block: Block) -> Iterator[Qmp]:
    (command,) = block.commands
    words = shlex.split(command.replace("consoles.toml", f"{machine.folder}/consoles.toml"))
    run = machine.folder / "run"
    with running(*words[2:], XDG_RUNTIME_DIR=str(run)), Qmp(run / "trio-chardev" / "qmp.sock") as q:
        yield q


def test_from_ser2net(machine: Machine) -> None:
    convert, serve, change = blocks_below(PAGE, "ser2net")
    with wire() as line, wire() as other:
        machine.names |= {"/dev/ttyUSB1": other.path}
        (machine.folder / "ser2net.yaml").write_text(
            f"connection: &board\n  accepter: telnet,tcp,{LOOPBACK},{machine.names['4001']}\n"
            f"  connector: serialdev,{line.path},115200n81,local\n"
        )
        assert machine.run(convert.text).startswith("right: 2 chardevs")
        with serving(machine, serve):
            speaks(line, b"said before\n")
            address = LOOPBACK, int(machine.names["4001"])
            with socket.create_connection(address, timeout=TIMEOUT) as telnet:
                telnet.settimeout(None)
                said = machine.run(change.text)
                assert "said before" in said
                speaks(other, b"another board\n")
                read_until(telnet.fileno(), b"another board")


def speaks(line: Wire, text: bytes) -> None:
    os.write(line.board, text)


def test_from_conserver(machine: Machine) -> None:
    convert, serve, look = blocks_below(PAGE, "conserver")
    with wire() as line:
        (machine.folder / "conserver.cf").write_text(
            "default full { rw *; }\n"
            f"console board {{ include full; type device; device {line.path}; baud 9600; parity none; }}\n"
        )
        assert machine.run(convert.text).startswith("right: 2 chardevs")
        with serving(machine, serve):
            assert line.path in machine.run(look.text)


def test_from_qemu(machine: Machine) -> None:
    vm, ask, file, serve, change = blocks_below(PAGE, "QEMU")
    need("qemu-system-x86_64")
    (machine.folder / "consoles.toml").write_text(
        file.text.replace("vm.sock", f"{machine.folder}/vm.sock")
    )
    (command,) = vm.commands
    qemu = subprocess.Popen(shlex.split(command), cwd=machine.folder, stdin=subprocess.DEVNULL)
    try:
        until((machine.folder / "qemu.sock").exists)
        rows, said = ask.commands
        assert "com1" in machine.run(rows)
        assert isinstance(json.loads(machine.run(said)), str)
        with serving(machine, serve) as qmp:
            dial, rows = change.commands
            machine.run(dial)
            until(lambda: qmp("query-devices")[0]["state"] != "chardev-closed")
            assert " open " in machine.run(rows)
    finally:
        qemu.kill()
        qemu.wait()


def test_from_labgrid(machine: Machine) -> None:
    pytest.importorskip("labgrid", reason="labgrid, of the extra 'test', is missing")
    file, serve, env, program, test = blocks_below(PAGE, "labgrid")
    here: Board
    with board() as here:
        machine.names |= {"/dev/ttyUSB0": here.wire.path}
        for name, block in {
            "consoles.toml": file,
            "env.yaml": env,
            "test_board.py": program,
        }.items():
            (machine.folder / name).write_text(machine.named(block.text))
        with serving(machine, serve):
            assert "1 passed" in machine.run(test.text)
