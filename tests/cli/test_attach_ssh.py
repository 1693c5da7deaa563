"""``trio-chardev attach`` as what a real sshd runs at a login."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.terminals import Board, board, program_at_terminal, until
from tests.peers import free_port, need
from tests.services import PROGRAM

PRIVILEGE_SEPARATION = Path("/run/sshd")  # where Debian's sshd wants a folder, if it is root's


def keygen(path: Path) -> None:
    command = [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


@contextmanager
def sshd(folder: Path, it: Board) -> Iterator[list[str]]:
    """Run an sshd whose logins are attached to the board; gives the command of its client."""
    program, client = need("sshd"), need("ssh")
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    keygen(folder / "host")
    keygen(folder / "user")
    script = folder / "attach"
    command = ["env", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", *PROGRAM, *it.attach()]
    script.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    script.chmod(0o755)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        f"PermitRootLogin yes\nForceCommand {script}\n"
    )
    with (folder / "sshd.log").open("w") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", f"{folder}/sshd_config"], stderr=log)
    try:
        until(lambda: accepts(int(port)), lambda: (folder / "sshd.log").read_text())
        options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={folder}/known"]
        yield [
            *(client, "-tt", "-F", "none", "-i", f"{folder}/user", "-p", port),
            *(word for option in [*options, "LogLevel=ERROR"] for word in ("-o", option)),
            f"{getpass.getuser()}@127.0.0.1",
        ]
    finally:
        server.kill()
        server.wait()


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_login_is_attached_with_the_window_of_its_terminal(tmp_path: Path) -> None:
    with board(tmp_path) as it, it.qmp() as qmp:
        path = qmp("chardev-change", id="board", backend={"type": "pty", "data": {}})["pty"]
        device = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(device)
        try:
            with (
                sshd(tmp_path, it) as login,
                program_at_terminal(login, cols=100, rows=30) as user,
            ):
                user.expect(b"attached to board-console")
                until(lambda: os.get_terminal_size(device) == (100, 30))
                user.resize(120, 40)
                until(lambda: os.get_terminal_size(device) == (120, 40))
                os.write(device, b"login: ")
                user.expect(b"login: ")
                user.type(b"\x03\x1dd")
                assert user.wait() == 0
                assert os.read(device, 9) == b"\x03"
        finally:
            os.close(device)


def test_one_whose_network_is_gone_is_a_client_no_more(tmp_path: Path) -> None:
    with (
        board(tmp_path) as it,
        it.qmp() as qmp,
        sshd(tmp_path, it) as login,
        program_at_terminal(login) as user,
    ):
        user.expect(b"attached to board-console")
        assert len(qmp("query-clients")) == 1
        user.process.kill()
        until(lambda: not qmp("query-clients"))
