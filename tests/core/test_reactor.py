"""Descriptors whose input is read by a function, while its task goes on waiting."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.services import until
from trio_chardev.core.reactor import AT_ONCE, notify_closing, wait_and_look
from trio_chardev.testing import CancelAtStep

ENOUGH = b"."
"""What ends a wait, in these tests."""


@attrs.define(eq=False)
class Line:
    """One of a pair of sockets, and what was read of it by its look."""

    sock: socket.socket
    peer: socket.socket
    read: bytes = b""
    is_over: bool = False
    result: bool | None = None
    error: Exception | None = None
    on_look: Callable[[], None] = lambda: None

    @property
    def fd(self) -> int:
        return self.sock.fileno()

    def look(self) -> bool:
        self.read += (data := self.sock.recv(100))
        self.on_look()
        return not data.endswith(ENOUGH)

    async def wait(self) -> None:
        try:
            self.result = await wait_and_look(self.fd, self.look)
        except OSError as exc:
            self.error = exc
        finally:
            self.is_over = True

    def close(self) -> None:
        """Close it as an owner does."""
        notify_closing(self.fd)
        self.sock.close()


@pytest.fixture
def make_line() -> Iterator[Callable[[], Line]]:
    with ExitStack() as stack:

        def make() -> Line:
            sock, peer = socket.socketpair()
            line = Line(stack.enter_context(sock), stack.enter_context(peer))
            line.sock.setblocking(False)
            return line

        yield make


@pytest.fixture
def lines(make_line: Callable[[], Line]) -> list[Line]:
    return [make_line() for _ in range(3)]


class Steps(trio.abc.Instrument):
    """Counts the steps of each task."""

    def __init__(self) -> None:
        self.tasks: list[trio.lowlevel.Task] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task)

    def others(self) -> list[trio.lowlevel.Task]:
        return [task for task in self.tasks if task is not trio.lowlevel.current_task()]


async def settle() -> None:
    with trio.fail_after(5):
        await wait_all_tasks_blocked()


async def test_all_that_comes_is_read_in_one_task_and_nobody_is_woken(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    for line in lines:
        nursery.start_soon(line.wait)
    await settle()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for line in lines:
        line.peer.send(b"a")
    await settle()
    assert len(steps.others()) == 1
    lines[0].peer.send(b"b")
    await settle()
    assert len(steps.others()) == 2
    assert len(set(steps.others())) == 1
    trio.lowlevel.remove_instrument(steps)
    assert [line.read for line in lines] == [b"ab", b"a", b"a"]
    assert not any(line.is_over for line in lines)
    nursery.cancel_scope.cancel()


async def test_the_wait_is_over_when_the_look_says_so(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    line = lines[0]
    nursery.start_soon(line.wait)
    await settle()
    line.peer.send(ENOUGH)
    await settle()
    assert (line.is_over, line.result) == (True, True)
    line.peer.send(b"more")
    await settle()
    assert line.read == ENOUGH
    nursery.start_soon(line.wait)  # what is there already is read
    await settle()
    assert line.read == ENOUGH + b"more"
    nursery.cancel_scope.cancel()


async def test_what_a_look_raises_is_raised_in_its_task_and_concerns_no_other(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "bad")

    lines[0].on_look = fail
    for line in lines:
        nursery.start_soon(line.wait)
    await settle()
    for line in lines:
        line.peer.send(b"a")
    await settle()
    assert str(lines[0].error) == "[Errno 5] bad"
    assert [line.is_over for line in lines] == [True, False, False]
    assert lines[1].read == lines[2].read == b"a"
    nursery.cancel_scope.cancel()


async def test_what_a_look_raises_that_has_cancelled_its_task_is_not_lost(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    line = lines[0]
    scope = trio.CancelScope()

    def fail() -> None:
        scope.cancel()
        raise OSError(errno.EIO, "bad")

    line.on_look = fail

    async def wait() -> None:
        with scope:
            await line.wait()

    nursery.start_soon(wait)
    await settle()
    line.peer.send(b"a")
    await settle()
    assert str(line.error) == "[Errno 5] bad"


async def test_who_is_closed_by_the_look_of_another_is_not_looked_at(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    lines[0].on_look = lines[1].close
    lines[1].on_look = lines[0].close
    for line in lines[:2]:
        nursery.start_soon(line.wait)
    await settle()
    for line in lines[:2]:
        line.peer.send(b"a")
    await settle()
    assert sorted(line.read for line in lines[:2]) == [b"", b"a"]
    assert [line.result for line in lines[:2] if not line.read] == [True]
    nursery.cancel_scope.cancel()


async def test_who_closes_itself_in_its_look_waits_no_more(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    line = lines[0]
    line.on_look = line.close
    nursery.start_soon(line.wait)
    await settle()
    line.peer.send(b"a")
    await settle()
    assert line.result is True


async def test_after_a_wait_nothing_is_left_for_who_has_the_number_next(
    nursery: trio.Nursery, lines: list[Line]
) -> None:
    """Even if somebody else has the description open, for which epoll goes on reporting."""
    first, second, _ = lines
    nursery.start_soon(first.wait)
    await settle()
    number, other = first.fd, os.dup(first.fd)
    first.close()
    os.dup2(second.fd, number)
    with socket.socket(fileno=number) as sock:
        heir = Line(sock, second.peer)
        nursery.start_soon(heir.wait)
        await settle()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        first.peer.send(b"for nobody")
        await settle()
        assert not steps.others()
        second.peer.send(b"a")
        await settle()
        assert heir.read == b"a"
        nursery.cancel_scope.cancel()
        await settle()
    trio.lowlevel.remove_instrument(steps)
    os.close(other)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whoever_cancels_whenever_each_byte_was_read_or_is_still_there(
    when: str, make_line: Callable[[], Line]
) -> None:
    k, is_cut = 0, True
    while is_cut:
        k += 1
        line = make_line()
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            cut = CancelAtStep(k, when, scope, armed=True)
            trio.lowlevel.add_instrument(cut)
            nursery.start_soon(line.wait)
            with trio.CancelScope(shield=True):
                for data in b"a", b"b", b"c" + ENOUGH:
                    await trio.lowlevel.checkpoint()
                    line.peer.send(data)
                while not line.is_over:
                    await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(cut)
            is_cut = cut.fired and scope.cancel_called and not line.result
        left = b"" if line.read.endswith(ENOUGH) else line.sock.recv(100)
        assert line.read + left == b"abc" + ENOUGH
    assert k > 3


async def test_others_run_between_looks_at_many(
    nursery: trio.Nursery, make_line: Callable[[], Line]
) -> None:
    count = 4 * AT_ONCE
    order: list[str] = []
    many = [make_line() for _ in range(count)]
    for line in many:
        line.on_look = lambda: order.append("look")
        nursery.start_soon(line.wait)
    await settle()

    async def other() -> None:
        while order.count("look") < count:
            order.append("other")
            await trio.lowlevel.checkpoint()

    for line in many:
        line.peer.send(b"a")
    nursery.start_soon(other)
    await settle()
    looks = "".join("l" if one == "look" else " " for one in order).split()
    assert max(map(len, looks)) <= 2 * AT_ONCE  # who is first in a pass changes
    assert order.count("other") >= 3
    nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- where it can't be done


async def test_what_epoll_rejects_or_has_no_room_for_waits_elsewhere(lines: list[Line]) -> None:
    with open("/dev/null") as null:  # noqa: ASYNC230 - it does not block
        assert not await wait_and_look(null.fileno(), lambda: True)
    assert not await wait_and_look(-1, lambda: True)


async def test_without_a_descriptor_to_spare_everybody_waits_elsewhere(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, lines: list[Line]
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", fail)
        assert not await wait_and_look(lines[0].fd, lines[0].look)
    nursery.start_soon(lines[0].wait)
    await settle()
    assert not lines[0].is_over
    nursery.cancel_scope.cancel()


async def test_if_it_fails_all_who_wait_are_woken_and_wait_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nursery: trio.Nursery,
    lines: list[Line],
) -> None:
    async def fail(_: Any) -> None:
        await settle()
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(trio.lowlevel, "wait_readable", fail)
    for line in lines[:2]:
        nursery.start_soon(line.wait)
    await until(lambda: all(line.is_over for line in lines[:2]))
    assert "by each task on its own from now on" in caplog.text
    assert not await wait_and_look(lines[2].fd, lines[2].look)
