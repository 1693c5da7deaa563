"""labgrid's SerialDriver, as a test of a board uses it, in both of its protocols."""

from __future__ import annotations

import os
import termios
import threading
from typing import Any

import pytest
import trio

import trio_chardev as tc
from tests.peers import LOOPBACK
from tests.wires import Wire, wire

labgrid: Any = pytest.importorskip("labgrid", reason="labgrid, of the extra 'test', is missing")
driver: Any = pytest.importorskip("labgrid.driver")
resource: Any = pytest.importorskip("labgrid.resource")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial


def run_console(board: int) -> None:
    """Ask who is there, and then for a command, as a board whose end of the line is *board*."""
    for prompt, answer in ((b"login: ", b"root"), (b"Password: ", b"secret"), (b"# ", b"uname")):
        os.write(board, b"\r\n" + prompt)
        got = b""
        while not got.endswith(b"\n"):
            got += os.read(board, 100)
        assert got.strip() == answer
    os.write(board, b"uname\r\nLinux\r\n# ")


@pytest.mark.parametrize("protocol", ["rfc2217", "raw"])
async def test_labgrid_logs_in(protocol: str) -> None:
    def use(port: int, here: Wire) -> None:
        target = labgrid.Target("board")
        resource.NetworkSerialPort(
            target, None, host=LOOPBACK, port=port, speed=9600, protocol=protocol
        )
        serial = driver.SerialDriver(target, "console")
        target.activate(serial)
        board = threading.Thread(target=run_console, args=[here.board])
        board.start()
        for prompt, answer in (("login: ", "root"), ("Password: ", "secret"), ("# ", "uname")):
            serial.expect(prompt, timeout=5)
            serial.sendline(answer)
        serial.expect("Linux", timeout=5)
        board.join()
        target.deactivate(serial)

    with wire() as here:
        async with tc.open_registry() as registry:
            await registry.add("board", tc.SerialOptions(path=here.path))
            addr = tc.InetAddress(LOOPBACK, "0")
            is_rfc2217 = protocol == "rfc2217"
            await registry.add("users", tc.SocketOptions(addr=addr, wait=False, rfc2217=is_rfc2217))
            # With raw, labgrid is connected before the service has taken it in, and the board speaks at once.
            bridge = tc.BridgeOptions(chardev="board", peer="users", when_closed="hold")
            registry.devices.add(bridge)
            port = registry["users"].backend.port
            assert port is not None
            with trio.fail_after(20):
                await trio.to_thread.run_sync(use, port, here)
            speed = here.speed
            assert speed == (termios.B9600 if is_rfc2217 else termios.B115200)
