"""What happens again and again leaves no cycles, which only the garbage collector could free.

A collection holds up all tasks. Successes and failures are tried alike: an exception is in a cycle if
a frame of its traceback keeps it.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import trio_chardev as tc

TIMES = 5


async def change(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    await service.registry.change("it", tc.PtyOptions())
    await service.registry.change("it", tc.NullOptions())


async def change_in_vain(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    with pytest.raises(tc.BackendError):
        await service.registry.change("it", tc.FileOptions(out=str(folder / "nowhere" / "x")))


async def dial_in_vain(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    address = tc.UnixAddress(path=str(folder / "nobody"))
    with pytest.raises(tc.BackendError):
        await service.registry.change("it", tc.SocketOptions(addr=address, server=False))


async def give_up_a_change(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    address = tc.UnixAddress(path=str(folder / "slow"))
    with trio.move_on_after(0.01):
        await service.registry.change("it", tc.SocketOptions(addr=address, server=True, wait=True))


async def add_and_remove(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    await service.registry.add("other", tc.RingbufOptions())
    await service.registry.remove("other")


async def attach_and_detach(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    async with service.registry["it"].attach() as frontend:
        await frontend.send_all(b"x")
        with trio.move_on_after(0.001):
            await frontend.receive_some()


async def serve_a_peer(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    path = str(folder / "peer")
    options = tc.SocketOptions(addr=tc.UnixAddress(path=path), server=True, wait=False)
    await service.registry.add("other", options)
    peer = await trio.open_unix_socket(path)
    await peer.send_all(b"x")
    await peer.aclose()
    await service.registry.remove("other")


async def ask_by_qmp(service: tc.Service, qmp: tc.QmpClient, folder: Path) -> None:
    await qmp.execute("query-chardev")
    with pytest.raises(tc.QmpError):
        await qmp.execute("chardev-add", {"id": "x", "backend": {"type": "nil", "data": {}}})
    with pytest.raises(tc.QmpError):
        await qmp.execute("chardev-remove", id="nobody")


@pytest.mark.parametrize(
    "act",
    [
        change,
        change_in_vain,
        dial_in_vain,
        give_up_a_change,
        add_and_remove,
        attach_and_detach,
        serve_a_peer,
        ask_by_qmp,
    ],
)
async def test_nothing_is_left_for_the_collector(
    act: Callable[[tc.Service, tc.QmpClient, Path], Awaitable[None]], tmp_path: Path
) -> None:
    address = tc.UnixAddress(path=str(tmp_path / "qmp"))
    async with tc.open_service() as service:
        await service.registry.add("it", tc.NullOptions())
        await service.listen_qmp(tc.SocketOptions(addr=address, server=True, wait=False))
        async with tc.open_qmp_client(address.path) as qmp:
            gc.disable()
            try:
                await act(service, qmp, tmp_path)  # what is made once may be in cycles
                gc.collect()
                for _ in range(TIMES):
                    await act(service, qmp, tmp_path)
                assert gc.collect() < TIMES
            finally:
                gc.enable()
