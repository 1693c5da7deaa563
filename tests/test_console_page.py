"""docs/consoles.md: its tables are those of the code, and its commands do what it says."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import websockets.sync.client

from tests.backends.console.test_peers import Terminal, piped
from tests.crowds import read_until
from tests.peers import LOOPBACK, free_port, need
from tests.services import PROGRAM, TIMEOUT, Qmp, running
from tests.wires import wire
from trio_chardev.backends.console.goodbye import CODES
from trio_chardev.backends.console.options import ConsoleOptions
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.listener import ListenerOptions
from trio_chardev.options.backend import BackendOptions

PAGE = (Path(__file__).parent.parent / "docs" / "consoles.md").read_text()


def blocks(title: str, language: str = "sh") -> list[str]:
    """The blocks below that title; an empty one is the page's beginning."""
    part = PAGE.split(f"## {title}\n")[1] if title else PAGE
    part = part.split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def rows(title: str) -> list[list[str]]:
    """The cells of the table below that title."""
    lines = PAGE.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| ")
    ]


def own(cls: type, base: type) -> set[str]:
    inherited = {field.name for field in attrs.fields(base)}
    return {f.name.replace("_", "-") for f in attrs.fields(cls) if f.name not in inherited}


@pytest.mark.parametrize(
    ("title", "cls", "base"),
    [
        ("Options of a console", ConsoleOptions, BackendOptions),
        ("Options of a listener", ListenerOptions, DeviceOptions),
    ],
)
def test_every_option_is_in_its_table(title: str, cls: type, base: type) -> None:
    named = {
        span.partition("=")[0]
        for row in rows(title)[1:]
        for span in re.findall(r"`([a-z0-9-]+(?:=[^`]*)?)`", row[0])
    } - {"off", "kick", "wait", "first", "one"}
    assert named == own(cls, base)


def test_every_goodbye_is_in_its_table() -> None:
    table = {
        reason: row[2]
        for row in rows("Goodbyes")[1:]
        for reason in re.findall(r"`([a-z]+)`", row[0])
    }
    expected = {str(reason): str(code) for reason, code in CODES.items()}
    assert {reason: code for reason, code in table.items() if code} == expected


# ---------------------------------------------------------------- the walks


@attrs.define
class Site:
    """What the page's names stand for here."""

    folder: Path
    device: str = ""
    ports: dict[str, str] = attrs.Factory(lambda: {"4001": free_port(), "4101": free_port()})

    def named(self, text: str) -> str:
        for name, here in {
            "/run/trio-chardev": str(self.folder),
            "/run/vm": str(self.folder),
            "/dev/ttyUSB0": self.device,
            "logfile=": f"logfile={self.folder}/",
            "\\\n": "",
            **self.ports,
        }.items():
            text = text.replace(name, here)
        return text

    @contextmanager
    def serving(self, command: str) -> Iterator[Qmp]:
        arguments = shlex.split(self.named(command))
        assert arguments[:2] == ["trio-chardev", "serve"]
        with running(*arguments[2:]), Qmp(self.folder / "qmp.sock") as qmp:
            yield qmp

    def run(self, command: str) -> str:
        """Run a command of ours."""
        arguments = shlex.split(self.named(command))
        assert arguments[0] == "trio-chardev"
        done = subprocess.run(
            [*PROGRAM, *arguments[1:]], capture_output=True, text=True, timeout=TIMEOUT
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    @contextmanager
    def attached(self, command: str) -> Iterator[Terminal]:
        """Run the page's socat, without the terminal that it wants."""
        name, _, address = shlex.split(self.named(command))
        with piped(need(name), "-", address) as terminal:  # it has no terminal to set
            yield terminal


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


SERVE, ATTACH = blocks("")[:2]
HISTORY, MARK, MARKS = blocks("History: cursors and marks")[0].splitlines()


@contextmanager
def a_board(site: Site) -> Iterator[tuple[Qmp, int]]:
    with wire() as line:
        site.device = line.path
        with site.serving(SERVE) as qmp:
            qmp.wait_opened()
            yield qmp, line.board


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""
    for _ in range(int(TIMEOUT / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it does not happen")


def wait_attached(qmp: Qmp, count: int) -> None:
    wait_for(lambda: len(qmp("query-clients")) >= count)


def test_a_board_with_its_console_and_its_history(site: Site) -> None:
    with a_board(site) as (qmp, board), site.attached(ATTACH) as human:
        wait_attached(qmp, 1)
        keys = Terminal(board, board)
        keys.type(b"U-Boot\r\n")
        human.wait(b"U-Boot\r\n")
        human.type(b"help\r")
        keys.wait(b"help\r")
        assert json.loads(site.run(HISTORY))["data"] == "U-Boot\r\n"
        assert json.loads(site.run(MARK)) == {"cursor": 8}
        assert {"name": "test-17", "cursor": 8} in json.loads(site.run(MARKS))
        url = f"ws://{LOOPBACK}:{site.ports['4101']}/"
        with websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as page:
            assert page.recv(timeout=TIMEOUT) == b"U-Boot\r\n"
            page.send("reboot\r")
            told = page.recv(timeout=TIMEOUT)
            assert b"you can only read" in told
    log = (site.folder / "board.log").read_text()
    assert log.endswith(" U-Boot\n")
    assert "help" not in log


def test_an_agent_and_a_human(site: Site) -> None:
    mark, look = blocks("An agent and a human on one console")[0].splitlines()
    with a_board(site) as (qmp, board), site.attached(ATTACH) as human:
        wait_attached(qmp, 1)
        keys = Terminal(board, board)
        keys.type(b"before\r\n")
        human.wait(b"before\r\n")
        site.run(mark)
        found: list[str] = []
        agent = threading.Thread(target=lambda: found.append(site.run(look)))
        agent.start()
        human.type(b"uname\r")
        keys.wait(b"uname\r")
        keys.type(b"Linux\r\n")
        agent.join()
        excerpt: dict[str, Any] = json.loads(found[0])
        assert "Linux\r\n".startswith(excerpt["data"])
        assert (excerpt["start"], excerpt["lost"]) == (8, 0)
        human.wait(b"Linux\r\n")


def test_conservers_users_come_by_its_server(site: Site) -> None:
    (config,) = blocks("From conserver", "")
    path, passwd = site.folder / "conserver.cf", site.folder / "conserver.passwd"
    path.write_text(site.named(config))
    passwd.touch()
    port, second = free_port(), free_port()
    server = [need("conserver"), "-C", str(path), "-P", str(passwd), "-p", port, "-b", second]
    client = [need("console"), "-M", LOOPBACK, "-p", port, "-E", "-n", "-f", "board"]
    with a_board(site) as (qmp, board), piped(*server, "-M", LOOPBACK, "-E", "-v") as log:
        log.wait(f"on port {second}".encode())
        wait_attached(qmp, 1)
        with piped(*client) as human:
            human.wait(b"help]")
            keys = Terminal(board, board)
            keys.type(b"login: ")
            human.wait(b"login: ")
            human.type(b"root\r")
            keys.wait(b"root\r")


def test_a_vm_of_libvirts_dials_in_and_incus_shows_its_log(site: Site) -> None:
    """QEMU as libvirt runs it; the firmware is what prints."""
    serve, attach = blocks("From `virsh console`")
    (show_log,) = blocks("From Incus")
    qemu = [need("qemu-system-x86_64"), "-machine", "pc,graphics=off", "-nodefaults"]
    with site.serving(serve):
        vm = f"unix:{site.folder}/vm.sock"
        with (
            piped(*qemu, "-display", "none", "-serial", vm),
            site.attached(attach) as early,
            site.attached(attach) as late,
        ):
            early.wait(b"No bootable device.")
            late.wait(b"No bootable device.")
            assert site.run(show_log) == site.run(show_log)
            assert "SeaBIOS" in site.run(show_log)
        assert "SeaBIOS" in site.run(show_log)


@contextmanager
def hypervisor(path: Path) -> Iterator[socket.socket]:
    """Listen for one client, as QEMU in KubeVirt does and cloud-hypervisor."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(TIMEOUT)
        listener.bind(str(path))
        listener.listen(1)
        vm, _ = listener.accept()
        with vm:
            vm.settimeout(TIMEOUT)
            yield vm
    path.unlink()


def test_users_of_kubevirts_come_by_websocket(site: Site) -> None:
    (serve,) = blocks("From KubeVirt and the like")
    url = f"ws://{LOOPBACK}:{site.ports['4101']}/"
    with site.serving(serve), hypervisor(site.folder / "virt-serial0") as vm:
        vm.sendall(b"guest login: ")
        with (
            websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as one,
            websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as two,
        ):
            for user in (one, two):
                got = b""
                while got != b"guest login: ":
                    piece = user.recv(timeout=TIMEOUT)
                    assert isinstance(piece, bytes)
                    got += piece
            two.send("root\r")
            assert read_until(vm, b"\r") == b"root\r"
        log = site.folder / "vm.json"
        wait_for(lambda: log.read_text().endswith("\n"))
        assert json.loads(log.read_text())["text"] == "guest login: "


def test_cloud_hypervisor_is_dialled_again_and_again(site: Site) -> None:
    (serve,) = blocks("From cloud-hypervisor")
    command = "socat - UNIX-CONNECT:/run/trio-chardev/vm-users.sock"
    with site.serving(serve) as qmp:
        with hypervisor(site.folder / "serial.sock") as vm:
            vm.sendall(b"first boot\n")
            name, dash, address = shlex.split(site.named(command))
            human = piped(need(name), dash, address)
            terminal = human.__enter__()
            terminal.wait(b"first boot\n")
        terminal.wait(b"[trio-chardev: device gone]")
        with hypervisor(site.folder / "serial.sock") as vm:
            terminal.wait(b"[trio-chardev: device back]")
            vm.sendall(b"second boot\n")
            terminal.wait(b"second boot\n")
            terminal.type(b"root\r")
            assert read_until(vm, b"\r") == b"root\r"
        human.__exit__(None, None, None)
        marks = {mark["name"] for mark in qmp("query-marks", id="vm-console")}
        assert marks >= {"gone", "back"}
