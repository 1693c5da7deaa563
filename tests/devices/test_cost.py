"""What a line costs a bridge: it is counted, as the time that it takes is another on each machine."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from tests.devices.test_looks import Steps

LINE = b"a line of a console\r\n"
COUNT = 5  # fewer than the quick ones after which a line is polled


async def test_a_line_is_one_read_and_one_step_of_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(os, "read", counting(os.read, reads))
    master, slave = pty.openpty()
    tty.setraw(slave)
    async with tc.open_registry() as registry:
        await registry.add("board", tc.SerialOptions(path=os.ttyname(slave)))
        listener = tc.SocketOptions(addr=tc.InetAddress("127.0.0.1", "0"), wait=False)
        port = (await registry.add("user", listener)).port
        assert port is not None
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            os.write(master, LINE)  # now both are there
            await client.receive_some()
            await wait_all_tasks_blocked()
            reads.clear()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _ in range(COUNT):
                os.write(master, LINE)
                assert await client.receive_some() == LINE
            await wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(steps)
            assert (len(reads), steps.count) == (COUNT, COUNT)
    os.close(master)
    os.close(slave)


def counting(read: Callable[[int, int], bytes], reads: list[int]) -> Callable[[int, int], bytes]:
    """Note in *reads* the descriptor of each call of *read*."""

    def call(fd: int, size: int) -> bytes:
        reads.append(fd)
        return read(fd, size)

    return call
