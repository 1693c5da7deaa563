"""labgrid's SerialDriver, as a test of a board uses it, in both of its protocols."""

from __future__ import annotations

import os
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio

import trio_chardev as tc

labgrid: Any = pytest.importorskip("labgrid", reason="labgrid, of the extra 'test', is missing")
driver: Any = pytest.importorskip("labgrid.driver")
resource: Any = pytest.importorskip("labgrid.resource")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial

LOOPBACK = "127.0.0.1"
OSPEED = 5  # its place in what tcgetattr gives


@attrs.define
class Console:
    """A board that asks who is there, and then for commands."""

    master: int
    line: int

    def run(self) -> None:
        """Let one user log in, and run one command."""
        self._ask("login: ", b"root")
        self._ask("Password: ", b"secret")
        self._ask("# ", b"uname")
        os.write(self.master, b"uname\r\nLinux\r\n# ")

    def _ask(self, prompt: str, answer: bytes) -> None:
        os.write(self.master, b"\r\n" + prompt.encode())
        got = b""
        while not got.endswith(b"\n"):
            got += os.read(self.master, 100)
        assert got.strip() == answer


@contextmanager
def console() -> Iterator[Console]:
    master, line = os.openpty()
    tty.setraw(line)
    try:
        yield Console(master, line)
    finally:
        os.close(line)
        os.close(master)


@pytest.mark.parametrize("protocol", ["rfc2217", "raw"])
async def test_labgrid_logs_in(protocol: str) -> None:
    def use(port: int, here: Console) -> None:
        target = labgrid.Target("board")
        resource.NetworkSerialPort(
            target, None, host=LOOPBACK, port=port, speed=9600, protocol=protocol
        )
        serial = driver.SerialDriver(target, "console")
        target.activate(serial)
        board = threading.Thread(target=here.run)
        board.start()
        for prompt, answer in (("login: ", "root"), ("Password: ", "secret"), ("# ", "uname")):
            serial.expect(prompt, timeout=5)
            serial.sendline(answer)
        serial.expect("Linux", timeout=5)
        board.join()
        target.deactivate(serial)

    with console() as here:
        async with tc.open_registry() as registry:
            await registry.add("board", tc.SerialOptions(path=os.ttyname(here.line)))
            addr = tc.InetAddress(LOOPBACK, "0")
            is_rfc2217 = protocol == "rfc2217"
            await registry.add("users", tc.SocketOptions(addr=addr, wait=False, rfc2217=is_rfc2217))
            registry.devices.add(tc.BridgeOptions(chardev="board", peer="users"))
            port = registry["users"].backend.port
            assert port is not None
            with trio.fail_after(20):
                await trio.to_thread.run_sync(use, port, here)
            speed = termios.tcgetattr(here.line)[OSPEED]
            assert speed == (termios.B9600 if is_rfc2217 else termios.B115200)
