"""Noticing that a line hangs up while what it has said is not read."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator

import pytest
import trio

from tests.users import PATIENCE
from trio_chardev.backends.serial.peer import HangUp


@pytest.fixture
def ptys() -> Iterator[list[tuple[int, int]]]:
    made = [os.openpty() for _ in range(2)]
    yield made
    for _, slave in made:
        os.close(slave)


async def comes(hang_up: HangUp, fd: int) -> bool:
    with trio.move_on_after(0.02):
        await hang_up.wait(fd)
    return hang_up.has_come


async def test_what_is_unread_is_no_hang_up_and_each_line_has_its_own(
    ptys: list[tuple[int, int]],
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    hang_up = HangUp()
    for master, slave in ptys:
        os.write(master, b"unread\n")
        assert not await comes(hang_up, slave)
        os.close(master)
        with trio.fail_after(PATIENCE):
            await hang_up.wait(slave)
        assert hang_up.has_come
        hang_up.reset()
        assert not hang_up.has_come
    assert len(os.listdir("/proc/self/fd")) == before - 2, "the masters"


async def test_without_a_descriptor_for_that_it_goes_on_waiting(
    ptys: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading notices it, when there is room again."""

    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    for master, _ in ptys:
        os.close(master)
    hang_up = HangUp()
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", refuse)
        assert not await comes(hang_up, ptys[0][1])
    hang_up.reset()
    assert await comes(hang_up, ptys[0][1])
    hang_up.reset()
