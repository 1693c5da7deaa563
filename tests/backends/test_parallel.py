"""parallel: a port of the host, claimed while it is open. The kernel's side is faked."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio

from tests.links import until
from trio_chardev.backends.parallel import PPCLAIM, ParallelOptions, open_parallel
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.environment import Files
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.registry import open_registry


def request(events: list[BackendEvent] | None = None) -> OpenRequest:
    return OpenRequest(id="x", on_event=(events if events is not None else []).append)


@pytest.fixture
def port(tmp_path: Path) -> Path:
    path = tmp_path / "parport0"
    path.touch()
    return path


@pytest.fixture
def ioctls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ioctls that were asked for; each goes well."""
    asked: list[int] = []

    def ioctl(fd: int, number: int) -> int:
        os.fstat(fd)  # it is open
        asked.append(number)
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    return asked


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_what_is_no_parallel_port_is_refused_and_closed(port: Path) -> None:
    for path in ("/dev/null", str(port)):
        before = fds()
        text = r"^not a parallel port: Inappropriate ioctl for device$"
        with pytest.raises(BackendError, match=text):
            async with open_parallel(ParallelOptions(device=path), request()):
                pass
        assert fds() == before


async def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nosuch"
    text = rf"^Could not open '{path}': No such file or directory$"
    with pytest.raises(BackendError, match=text):
        async with open_parallel(ParallelOptions(device=str(path)), request()):
            pass


async def test_the_port_is_claimed_written_to_and_closed(port: Path, ioctls: list[int]) -> None:
    """Closing releases it; PPRELEASE would wait for whoever waits in PPCLAIM for that."""
    events: list[BackendEvent] = []
    before = fds()
    async with open_parallel(ParallelOptions(device=str(port)), request(events)) as backend:
        assert backend.filename == "parallel"
        assert events == [Event.OPENED]
        assert await backend.send_some(memoryview(b"print this")) == 10
        assert backend.receive_nowait(1) == b""
        assert ioctls == [PPCLAIM]
    assert ioctls == [PPCLAIM]
    assert await trio.Path(port).read_bytes() == b"print this"
    assert fds() == before


async def test_a_port_that_another_has_claimed_holds_up_nobody_else(
    port: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPCLAIM waits, in the kernel, until the other lets go."""
    let_go, is_over = threading.Event(), threading.Event()
    has_begun, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wait_for_it(fd: int, number: int) -> int:
        token.run_sync_soon(has_begun.set)
        let_go.wait(60)
        os.fstat(fd)  # nobody has closed it meanwhile, or used its number
        is_over.set()
        return 0

    monkeypatch.setattr("fcntl.ioctl", wait_for_it)
    before = fds()

    async def open_it() -> None:
        async with open_parallel(ParallelOptions(device=str(port)), request()):
            raise AssertionError("it has not been claimed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        await has_begun.wait()
        nursery.cancel_scope.cancel()
    let_go.set()
    assert await trio.to_thread.run_sync(is_over.wait, 60)
    await until(lambda: fds() <= before)


async def test_a_change_to_its_own_port_shares_the_claim(
    port: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else gets the port in between: the claim is the open file description's."""
    claims: list[tuple[int, int]] = []

    def ioctl(fd: int, number: int) -> int:
        assert not claims, "it would wait for itself"
        claims.append((fd, number))
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    options = ParallelOptions(device=str(port))
    before = fds()
    async with open_registry() as registry:
        with trio.fail_after(5):
            await registry.add("p", options)
            frontend = registry["p"].attach(be_change=stateless)
            await frontend.send_all(b"one ")
            await registry.change("p", options)
            await frontend.send_all(b"two")
    assert len(claims) == 1
    assert await trio.Path(port).read_bytes() == b"one two"
    assert fds() == before


async def test_a_change_to_another_port_claims_that(port: Path, ioctls: list[int]) -> None:
    other = port.with_name("parport1")
    other.touch()
    async with open_registry() as registry:
        await registry.add("p", ParallelOptions(device=str(port)))
        await registry.change("p", ParallelOptions(device=str(other)))
    assert ioctls == [PPCLAIM, PPCLAIM]


async def test_a_printer_that_is_busy_is_asked_again(
    ioctls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """poll(2) never says of a port that it is writable, and busy it takes 0 bytes."""
    never_writable = os.eventfd(0)
    os.eventfd_write(never_writable, (1 << 64) - 2)  # the most that it counts to
    write, answers = os.write, [0, 0, 3]
    async with open_parallel(
        ParallelOptions(device="/dev/parport0"),
        OpenRequest(
            id="x",
            on_event=lambda event: None,
            files=Files(open_path=lambda *_, mode=0: never_writable),
        ),
    ) as backend:
        monkeypatch.setattr(
            os,
            "write",
            lambda fd, data: answers.pop(0) if fd == never_writable else write(fd, data),
        )
        with trio.fail_after(5):
            assert await backend.send_some(memoryview(b"page")) == 3
    assert answers == []
