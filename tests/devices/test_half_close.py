"""``printf ... | nc -N``, and other peers that half-close, through bridges, muxes and hubs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.peers import need
from tests.services import until
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.core.handlers import stateless
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.bridge import BridgeInfo
from trio_chardev.devices.echo import EchoOptions
from trio_chardev.testing import CancelAtStep

LOOPBACK = InetAddress("127.0.0.1", "0")
LONG = 60_000


def at(address: SocketAddress, linger_ms: int = LONG) -> tc.SocketOptions:
    return tc.SocketOptions(addr=address, linger_ms=linger_ms)


def address_of(registry: tc.Registry, id: str) -> SocketAddress:
    address: SocketAddress = registry[id].backend.address  # type: ignore[attr-defined]
    return address


async def come(registry: tc.Registry, id: str) -> trio.SocketStream:
    address = address_of(registry, id)
    if isinstance(address, InetAddress):
        return await trio.open_tcp_stream("127.0.0.1", int(address.port))
    assert isinstance(address, UnixAddress)
    return await trio.open_unix_socket(address.path)


async def exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await stream.receive_some(size - len(got))
        assert data
        got += data
    return bytes(got)


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)


async def answer(stream: trio.SocketStream) -> None:
    """Answer each question, as a board does that knows nothing of ends."""
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data.upper())


async def wait_open(registry: tc.Registry, *ids: str) -> None:
    await until(lambda: all(registry[id].is_open for id in ids))


@asynccontextmanager
async def a_board_and_a_user(
    folder: Path, device: DeviceOptions, *, linger_ms: int = LONG, board_answers: bool = True
) -> AsyncIterator[tuple[tc.Registry, trio.SocketStream]]:
    """Chardevs ``board``, with a peer that answers, and ``user``, by TCP; *device* joins them."""
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("board", at(UnixAddress(str(folder / "board"))))
            await registry.add("user", at(LOOPBACK, linger_ms))
            async with await come(registry, "board") as board, trio.open_nursery() as nursery:
                await wait_open(registry, "board")
                if board_answers:
                    nursery.start_soon(answer, board)
                registry.devices.add(device)
                yield registry, board
                nursery.cancel_scope.cancel()


def dropped(registry: tc.Registry) -> int:
    """Bytes that the bridge has dropped on their way to the user."""
    info = registry.devices["b0"].info
    assert isinstance(info, BridgeInfo)
    return info.to_peer.dropped


def bridge(**options: object) -> tc.BridgeOptions:
    return tc.BridgeOptions(id="b0", chardev="board", peer="user", **options)  # type: ignore[arg-type]


async def asked(registry: tc.Registry, *command: str) -> bytes:
    """What *command* prints, with the user's port at its end, when its input was one line."""
    address = address_of(registry, "user")
    assert isinstance(address, InetAddress)
    line = [*command[:-1], command[-1].format(port=address.port)]
    result = await trio.run_process(
        [need(line[0]), *line[1:]], stdin=b"question\n", capture_stdout=True
    )
    return result.stdout


COMMANDS = [
    ["nc", "-N", "127.0.0.1", "{port}"],
    ["socat", "-t", "5", "-", "TCP:127.0.0.1:{port}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=["nc", "socat"])
async def test_it_gets_the_answer_again_and_again(tmp_path: Path, command: list[str]) -> None:
    """The board stays connected: the end of one user is not that of the board."""
    async with a_board_and_a_user(tmp_path, bridge(), linger_ms=300) as (registry, _):
        for _ in range(3):
            assert await asked(registry, *command) == b"QUESTION\n"
        assert registry["board"].is_open
        assert dropped(registry) == 0


async def test_what_is_held_is_not_lost_to_one_who_may_have_left(tmp_path: Path) -> None:
    """With TCP nobody knows before the first byte, and that would be lost."""
    async with a_board_and_a_user(
        tmp_path, bridge(when_closed="hold"), linger_ms=1000, board_answers=False
    ) as (registry, board):
        async with await come(registry, "user") as user:
            await wait_open(registry, "user")
        await until(lambda: registry["user"].backend.peer.may_have_left)
        await board.send_all(b"kept")
        async with await come(registry, "user") as user:
            assert await exactly(user, 4) == b"kept"


async def test_a_long_answer_comes_whole(tmp_path: Path) -> None:
    size = 8 << 20
    async with (
        a_board_and_a_user(tmp_path, bridge(), linger_ms=1000, board_answers=False) as (
            registry,
            board,
        ),
        trio.open_nursery() as nursery,
    ):

        async def answer_at_length() -> None:
            await exactly(board, 9)
            await board.send_all(bytes(size))

        nursery.start_soon(answer_at_length)
        got = await asked(registry, "nc", "-N", "127.0.0.1", "{port}")
        assert len(got) == size


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
async def test_what_comes_when_it_was_let_go_is_dropped_or_held(
    tmp_path: Path, when_closed: str
) -> None:
    async with a_board_and_a_user(
        tmp_path, bridge(when_closed=when_closed), linger_ms=50, board_answers=False
    ) as (registry, board):
        async with await come(registry, "user") as user:
            await user.send_all(b"x")
            await user.send_eof()
            assert await exactly(board, 1) == b"x"
            assert await all_of(user) == b""
        await board.send_all(b"later")
        if when_closed == "drop":
            await until(lambda: dropped(registry) == 5)
        async with await come(registry, "user") as user:
            await wait_open(registry, "user")
            await board.send_all(b"!")
            expected = b"!" if when_closed == "drop" else b"later!"
            assert await exactly(user, len(expected)) == expected


async def test_the_end_is_passed_on_where_that_is_wanted(tmp_path: Path) -> None:
    """Behind all that came before it; and then both connections are over."""
    size = 1 << 20
    async with a_board_and_a_user(tmp_path, bridge(eof="pass"), board_answers=False) as (
        registry,
        board,
    ):
        async with await come(registry, "user") as user, trio.open_nursery() as nursery:

            async def ask() -> None:
                await user.send_all(bytes(size))
                await user.send_eof()

            nursery.start_soon(ask)
            assert len(await all_of(board)) == size
            await board.send_all(b"%d bytes" % size)
            await board.send_eof()
            assert await all_of(user) == b"%d bytes" % size
        await until(lambda: not registry["board"].is_open)


async def test_an_end_is_not_passed_to_what_is_no_socket(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("board", tc.PtyOptions())
            await registry.add("user", at(LOOPBACK, 100))
            registry.devices.add(bridge(eof="pass"))
            async with await come(registry, "user") as user:
                await user.send_eof()
                assert await all_of(user) == b""
            assert registry.devices["b0"] is not None


@pytest.mark.parametrize("fails", [False, True])
async def test_a_change_is_no_end(tmp_path: Path, fails: bool) -> None:
    """Though its user is told CLOSED where the new backend has no peer yet."""
    async with (
        a_board_and_a_user(tmp_path, bridge(eof="pass"), board_answers=False) as (
            registry,
            board,
        ),
        await come(registry, "user") as user,
    ):
        await user.send_all(b"1")
        assert await exactly(board, 1) == b"1"
        if fails:
            with pytest.raises(tc.ChardevError):
                await registry.change("user", tc.FileOptions(out="/nonexistent/file"))
            await user.send_all(b"2")
        else:
            await registry.change("user", at(LOOPBACK))
            await user.aclose()
            user = await come(registry, "user")
            await user.send_all(b"2")
        assert await exactly(board, 1) == b"2"
        await user.aclose()


async def test_an_echo_ends_when_its_client_does() -> None:
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("user", at(LOOPBACK))
            registry.devices.add(EchoOptions(id="e0", chardev="user"))
            for _ in range(3):
                assert await asked(registry, "nc", "-N", "127.0.0.1", "{port}") == b"question\n"


@pytest.mark.parametrize("address", [LOOPBACK, None], ids=["tcp", "unix"])
async def test_the_end_of_an_echos_client_is_not_the_next_ones(
    tmp_path: Path, address: SocketAddress | None
) -> None:
    """Who was waiting, and is served in the moment in which the last leaves."""
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("user", at(address or UnixAddress(str(tmp_path / "s"))))
            registry.devices.add(EchoOptions(id="e0", chardev="user"))
            client = await come(registry, "user")
            for number in range(30):
                waiting = await come(registry, "user")
                await client.send_all(b"%2d" % number)
                assert await exactly(client, 2) == b"%2d" % number
                await client.aclose()
                client = waiting
            await client.aclose()


@pytest.mark.parametrize("kind", ["mux", "hub"])
async def test_it_gets_the_answer_of_who_is_above_a_mux_or_hub(kind: str) -> None:
    options = tc.MuxOptions(chardev="user") if kind == "mux" else tc.HubOptions(chardevs=("user",))
    with trio.fail_after(20):
        async with tc.open_registry() as registry, trio.open_nursery() as nursery:
            await registry.add("user", at(LOOPBACK, 300))
            await registry.add("above", options)
            user = registry["above"].attach(be_change=stateless)

            async def answer_it() -> None:
                got = b""
                while b"\n" not in got:
                    got += await user.receive_some()
                await until(lambda: not registry["user"].is_open)
                assert registry["above"].backend.peer.is_lingering
                await user.send_all(got.upper())

            nursery.start_soon(answer_it)
            assert await asked(registry, "nc", "-N", "127.0.0.1", "{port}") == b"QUESTION\n"


async def test_a_user_in_python_may_answer_after_closed() -> None:
    with trio.fail_after(20):
        async with tc.open_registry() as registry, trio.open_nursery() as nursery:
            await registry.add("user", at(LOOPBACK))
            user = registry["user"].attach(be_change=stateless)

            async def answer_it() -> None:
                assert await user.receive_some() == b"question\n"
                await until(lambda: not user.is_open)
                await user.send_all(b"answer")
                await user.send_eof()

            nursery.start_soon(answer_it)
            assert await asked(registry, "nc", "-N", "127.0.0.1", "{port}") == b"answer"
            with pytest.raises(tc.BackendDisconnectedError):
                await user.send_all(b"more")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_change_that_is_cancelled_at_every_step_keeps_who_waits_for_an_answer(
    tmp_path: Path, when: str
) -> None:
    for k in range(1, 100):
        (folder := tmp_path / str(k)).mkdir()
        async with a_board_and_a_user(folder, bridge()) as (registry, _):  # noqa: SIM117
            async with await come(registry, "user") as user:
                await wait_open(registry, "user")
                await user.send_eof()
                await until(lambda: registry["user"].backend.peer.is_lingering)
                with trio.CancelScope() as scope:
                    injector = CancelAtStep(k, when, scope)
                    trio.lowlevel.add_instrument(injector)
                    injector.armed = True
                    try:
                        await registry.change("user", tc.NullOptions(), drain_timeout=0)
                    finally:
                        trio.lowlevel.remove_instrument(injector)
                if scope.cancelled_caught:
                    board = registry["board"].backend
                    assert board.is_open
                    registry["user"].backend.send_nowait(memoryview(b"a"))
                    assert await exactly(user, 1) == b"a"
                else:
                    assert await all_of(user) == b""
        if not injector.fired:
            return
    raise AssertionError("it has too many steps")
