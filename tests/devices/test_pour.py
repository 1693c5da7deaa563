"""Bytes that a sink takes in pieces arrive as others do; and when they are offered again."""

from __future__ import annotations

import itertools
import os
import pty
import random
import socket
import threading
import tty
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from trio_chardev.core import look_again
from trio_chardev.devices import pour
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.devices.pour import Pour
from trio_chardev.errors import BackendDisconnectedError

DATA = random.Random(1).randbytes(300_000)
REST = memoryview(b"abcdef")


@attrs.define
class FakeFlow:
    """What `Pour` uses of a flow; it is its own sink, and takes as much each time as is said."""

    takes: list[int | Exception]
    taken: bytes = b""

    @property
    def sink(self) -> FakeFlow:
        return self

    def try_send(self, data: memoryview) -> int:
        size = self.takes.pop(0) if self.takes else 0
        if isinstance(size, Exception):
            raise size
        self.taken += data[:size]
        return size


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second later: how fast this machine is does not matter."""
    times = {"QUICKLY": 1e9, "IDLE": 5, "LATE": 1e9, "BURST": 1e9}
    for name, seconds in times.items():
        monkeypatch.setattr(look_again, name, seconds)
    monkeypatch.setattr(look_again, "perf_counter", itertools.count().__next__)


def warmed(*takes: int | Exception) -> tuple[Pour, FakeFlow]:
    """One that is about to offer what is left, to a sink that takes *takes* of it."""
    flow: Any = FakeFlow(list(takes))
    its = Pour(flow)
    for _ in range(look_again.IN_A_ROW):
        assert its.send_rest(REST) == 0
    assert flow.taken == b""
    return its, flow


def test_what_is_left_is_offered_until_all_is_taken() -> None:
    its, flow = warmed(0, 2, 0, 0, 1, 3, 7)
    assert its.send_rest(REST) == 6
    assert flow.taken == REST
    assert flow.takes == [7]


def test_what_is_not_taken_soon_is_left() -> None:
    its, flow = warmed(2, 0, 1)
    assert its.send_rest(REST) == 3
    assert flow.taken == b"abc"


def test_while_some_is_taken_each_time_it_is_not_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    its, _ = warmed(1, 1, 1, 1, 1, 1)
    monkeypatch.setattr(look_again, "IDLE", 1.5)
    assert its.send_rest(REST) == 6


def test_after_it_was_left_once_it_is_not_offered_for_a_while() -> None:
    its, flow = warmed(2)
    assert its.send_rest(REST) == 2
    flow.takes = [6]
    assert [its.send_rest(REST) for _ in range(look_again.PAUSE)] == [0] * look_again.PAUSE
    assert its.send_rest(REST) == 6


@pytest.mark.parametrize("error", [BackendDisconnectedError("x"), trio.ClosedResourceError()])
def test_what_was_taken_before_an_error_counts(error: Exception) -> None:
    its, flow = warmed(2, 1, error, 3)
    assert its.send_rest(REST) == 3
    assert flow.takes == [3]


# ---------------------------------------------------------------- in a bridge


def converse(sock: socket.socket, master: int) -> bytes:
    """What comes at *master* when DATA is sent to *sock*."""
    sender = threading.Thread(target=sock.sendall, args=(DATA,), daemon=True)
    sender.start()
    heard = b""
    while len(heard) < len(DATA):
        heard += os.read(master, 1 << 16)
    sender.join(5)
    return heard


async def carry() -> tuple[bytes, int]:
    """What comes at the other end of a serial line, and how much the bridge says it was."""
    ours, theirs = socket.socketpair()
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        async with tc.open_registry() as registry:
            await registry.add("line", tc.SerialOptions(path=os.ttyname(slave)))
            user = tc.FdAddress(str(theirs.detach()))
            await registry.add("user", tc.SocketOptions(addr=user, server=False))
            bridge = registry.devices.add(BridgeOptions(chardev="line", peer="user"))
            await wait_all_tasks_blocked()
            with trio.fail_after(60):
                heard = await trio.to_thread.run_sync(converse, ours, master)
            await wait_all_tasks_blocked()
            info: Any = bridge.info
            return heard, info.to_chardev.bytes
    finally:
        ours.close()
        os.close(slave)
        os.close(master)


async def test_offered_again_or_not_it_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much a terminal takes when it is offered more at once is the kernel's affair."""
    took: list[int] = []
    send_rest = pour.Pour.send_rest

    def note(its: Pour, rest: memoryview) -> int:
        took.append(send_rest(its, rest))
        return took[-1]

    monkeypatch.setattr(pour.Pour, "send_rest", note)
    monkeypatch.setattr(look_again, "IN_A_ROW", 0)
    assert await carry() == (DATA, len(DATA))
    assert took
    took.clear()
    monkeypatch.setattr(look_again, "IN_A_ROW", 1e9)
    assert await carry() == (DATA, len(DATA))
    assert sum(took) == 0
