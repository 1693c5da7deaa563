"""esptool's ways into the boot loader, by RFC 2217: the board sees the documented edges."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_chardev as tc
from tests.fakes import any_opener
from trio_chardev.devices.table import driver_of
from trio_chardev.events import OUTPUTS, ModemLines
from trio_chardev.registry import open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

serial: Any = pytest.importorskip("serial", reason="pyserial, of the extra 'test', is missing")
reset: Any = pytest.importorskip("esptool.reset", reason="esptool, of the extra 'test', is missing")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial

NONE, DTR, RTS = ModemLines(0), ModemLines.DTR, ModemLines.RTS
BOTH = DTR | RTS


@pytest.mark.parametrize(
    ("way", "edges"),
    [
        # RTS resets the chip, DTR holds its boot pin low.
        ("ClassicReset", [RTS, BOTH, DTR, NONE]),
        ("HardReset", [RTS, NONE]),
        ("USBJTAGSerialReset", [DTR, NONE, DTR, BOTH, RTS, NONE]),
    ],
)
async def test_a_reset_gives_the_edges(way: str, edges: list[ModemLines]) -> None:
    device = FakeDevice("board", has_line=True)

    def use(port: int) -> None:
        with serial.serial_for_url(f"rfc2217://127.0.0.1:{port}") as client:
            client.dtr = client.rts = way != "HardReset"
            device.line_calls.clear()
            getattr(reset, way)(client)()

    async with open_registry_with(any_opener, driver_of) as registry:
        await registry.add("board", FakeOptions(device=device))
        addr = tc.InetAddress("127.0.0.1", "0")
        await registry.add("users", tc.SocketOptions(addr=addr, wait=False, rfc2217=True))
        registry.devices.add(tc.BridgeOptions(chardev="board", peer="users"))
        port = registry["users"].backend.port
        assert port is not None
        with trio.fail_after(20):
            await trio.to_thread.run_sync(use, port)
    seen = [call & OUTPUTS for call in device.line_calls if isinstance(call, ModemLines)]
    assert [now for before, now in zip([None, *seen], seen, strict=False) if now != before] == edges
