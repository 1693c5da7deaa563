"""A pipe between two descriptors."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

import attrs
import pytest

from trio_chardev.core import look_again, splicing
from trio_chardev.core.splicing import CannotSplice, SplicePipe

DATA = random.Random(1).randbytes(100_000)


@attrs.frozen
class Line:
    """What *near* sends comes to *source*; what goes to *sink* can be read at *far*."""

    near: socket.socket
    source: socket.socket
    sink: socket.socket
    far: socket.socket
    changes: list[int] = attrs.Factory(list)

    def pipe(self) -> SplicePipe:
        return SplicePipe(self.changes.append)

    def read(self) -> bytes:
        """All that has come to the far end."""
        data = b""
        while True:
            try:
                data += self.far.recv(1 << 20)
            except BlockingIOError:
                return data


@pytest.fixture
def line() -> Iterator[Line]:
    near, source = socket.socketpair()
    sink, far = socket.socketpair()
    for sock in (near, source, sink, far):
        sock.setblocking(False)
    with near, source, sink, far:
        yield Line(near, source, sink, far)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes a twentieth of what ends a burst, however busy the machine is."""
    ticks = itertools.count(0, look_again.IDLE / 20)
    monkeypatch.setattr(look_again, "perf_counter", ticks.__next__)


def test_what_was_put_in_comes_out_and_each_change_is_told(line: Line) -> None:
    pipe = line.pipe()
    line.near.send(DATA)
    assert pipe.fill(line.source.fileno(), 70_000) == len(pipe) == 70_000
    assert pipe.empty_into(line.sink.fileno(), 50_000) == 50_000
    assert line.read() == DATA[:50_000]
    assert b"".join(pipe.read_all()) == DATA[50_000:70_000]
    assert line.changes == [70_000, -50_000]


def test_nothing_has_come_and_the_end_are_told_apart(line: Line) -> None:
    pipe = line.pipe()
    assert pipe.fill(line.source.fileno(), 100) == 0
    line.near.close()
    with pytest.raises(CannotSplice):
        pipe.fill(line.source.fileno(), 100)


def test_it_is_full_of_small_pieces_long_before_it_holds_its_capacity(line: Line) -> None:
    pipe = line.pipe()
    assert not pipe.is_full
    count = 0
    while True:
        line.near.send(b"x")
        if not pipe.fill(line.source.fileno(), 1):
            break
        count += 1
        assert not pipe.is_full or count == len(pipe)
    assert pipe.is_full
    assert len(pipe) == count < 10_000


def test_what_comes_goes_on_until_a_burst_is_in_vain(line: Line) -> None:
    pipe = line.pipe()
    line.near.send(DATA)
    assert pipe.stream(line.source.fileno(), line.sink.fileno()) == (len(DATA), True)
    assert line.read() == DATA
    assert not pipe
    assert sum(line.changes) == 0


def test_what_is_in_it_goes_first(line: Line) -> None:
    pipe = line.pipe()
    line.near.send(DATA)
    pipe.fill(line.source.fileno(), 1000)
    pipe.stream(line.source.fileno(), line.sink.fileno())
    assert line.read() == DATA


def test_what_a_full_sink_does_not_take_stays_in_it(line: Line) -> None:
    pipe = line.pipe()
    while True:
        try:
            line.sink.send(b"-" * 1000)
        except BlockingIOError:
            break
    line.near.send(DATA)
    passed, in_vain = pipe.stream(line.source.fileno(), line.sink.fileno())
    assert in_vain
    assert line.read().strip(b"-") == DATA[:passed]
    assert b"".join(pipe.read_all()) == DATA[passed:]


@pytest.mark.parametrize(("looks", "passed"), [(1, 100), (2, 100), (3, 200)])
def test_it_ends_in_time_though_more_comes(
    line: Line, looks: int, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.count()
    monkeypatch.setattr(look_again, "perf_counter", lambda: next(times))
    monkeypatch.setattr(look_again, "BURST", looks + 0.5)
    monkeypatch.setattr(look_again, "IDLE", 10)
    monkeypatch.setattr(look_again, "LATE", 10)
    monkeypatch.setattr(splicing, "SPLICE_CAPACITY", 100)
    line.near.send(DATA)
    assert line.pipe().stream(line.source.fileno(), line.sink.fileno()) == (passed, False)


def test_at_the_end_and_when_nobody_takes_it_what_has_gone_is_counted(line: Line) -> None:
    pipe = line.pipe()
    line.near.send(DATA)
    line.near.close()
    assert pipe.stream(line.source.fileno(), line.sink.fileno()) == (len(DATA), False)


def test_what_is_in_it_stays_when_the_sink_has_left(line: Line) -> None:
    pipe = line.pipe()
    line.near.send(DATA)
    line.far.close()
    assert pipe.stream(line.source.fileno(), line.sink.fileno()) == (0, False)
    assert b"".join(pipe.read_all()) == DATA
