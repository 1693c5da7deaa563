from __future__ import annotations

import errno
import mmap
import resource
from collections import deque
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from hypothesis import given, strategies as st

from trio_chardev.backends.ringbuf.ring import Ring
from trio_chardev.backends.ringbuf.ringbuf import (
    MAX_SIZE,
    MemoryOptions,
    RingbufBackend,
    RingbufOptions,
    open_ringbuf,
)
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing.pair import receive_some


def ring(size: int) -> RingbufBackend:
    return RingbufBackend(OpenRequest(id="x", on_event=lambda event: None), Ring(size), "ringbuf")


def open_it(options: RingbufOptions) -> AbstractAsyncContextManager[Backend]:
    return open_ringbuf(options, OpenRequest(id="x", on_event=lambda event: None))


def test_reading_consumes_the_oldest_bytes() -> None:
    backend = ring(8)
    backend.write(b"abcdef")
    assert backend.count == 6
    assert backend.read(2) == b"ab"
    assert backend.read(100) == b"cdef"
    assert backend.read(100) == b""
    assert backend.count == 0


def test_the_oldest_bytes_are_overwritten() -> None:
    backend = ring(8)
    backend.write(b"abcdef")
    backend.write(b"ghij")
    assert backend.read(100) == b"cdefghij"


def test_of_a_write_longer_than_the_ring_the_end_is_kept() -> None:
    backend = ring(4)
    backend.write(b"x")
    backend.write(b"0123456789")
    assert backend.read(100) == b"6789"


@given(
    st.integers(0, 4).map(lambda n: 1 << n),
    st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 20)), max_size=20),
)
def test_is_a_bounded_queue(size: int, steps: list[bytes | int]) -> None:
    """Whatever is written (bytes) and read (an amount), as deque(maxlen=) does it."""
    backend, model = ring(size), deque[int](maxlen=size)
    for step in steps:
        if isinstance(step, bytes):
            assert backend.send_nowait(memoryview(step)) == len(step)
            model.extend(step)
        else:
            taken = [model.popleft() for _ in range(min(step, len(model)))]
            assert backend.read(step) == bytes(taken)
        assert backend.count == len(model)


async def test_is_open_at_once_and_gives_no_input() -> None:
    events: list[BackendEvent] = []
    request = OpenRequest(id="x", on_event=events.append)
    async with open_ringbuf(RingbufOptions(), request) as backend:
        assert events == [Event.OPENED]
        await backend.send_some(memoryview(b"x" * 65537))
        assert isinstance(backend, RingbufBackend)
        assert backend.count == 65536
        assert backend.receive_nowait(1) == b""
        with trio.move_on_after(0) as scope:
            await receive_some(backend, 1)
        assert scope.cancelled_caught


async def test_shows_the_name_that_it_was_asked_for_by() -> None:
    async with open_it(RingbufOptions()) as backend:
        assert backend.filename == "ringbuf"
    async with open_it(MemoryOptions(size=1)) as backend:
        assert backend.filename == "memory"


@pytest.mark.parametrize("size", [0, -1, -8, 3, 65535])
async def test_size_must_be_a_power_of_two(size: int) -> None:
    with pytest.raises(OptionsError, match=r"^size of ringbuf chardev must be power of two$"):
        async with open_it(RingbufOptions(size=size)):
            pass


async def test_size_has_a_limit() -> None:
    with pytest.raises(OptionsError, match=r"must be at most 1073741824$"):
        async with open_it(RingbufOptions(size=1 << 62)):
            pass


async def test_a_large_ring_takes_memory_only_as_it_fills() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with open_it(RingbufOptions(size=MAX_SIZE)) as backend:
        assert await backend.send_some(memoryview(b"x")) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15  # KiB


async def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, size: int) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "none")

    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(BackendError, match=r"^no memory for a ring of 65536: Cannot allocate"):
        async with open_it(RingbufOptions()):
            pass
