"""Bytes that a relay loses, repeats or moves are found; how relays are started."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.contenders import OURS, SER2NET, SOCAT, SOCAT_LARGE
from bench.model import BenchmarkError
from bench.relay import CHUNK, PARTS, PATTERN, PERIOD, pump, read_pattern
from bench.relays import Ends, Link, command_of, settle

SIZE = 3 * CHUNK + 5


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_pump_gives_a_rate_for_every_part(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        end.setblocking(False)
    rates = pump(pair[0].fileno(), pair[1].fileno(), SIZE)
    assert 1 <= len(rates) <= PARTS + 1
    assert min(rates) > 0


@pytest.mark.parametrize("at", [0, 1, PERIOD - 1, PERIOD, 3 * PERIOD + 7])
def test_the_pattern_goes_on_where_it_was(
    pair: tuple[socket.socket, socket.socket], at: int
) -> None:
    begin = at % PERIOD
    pair[0].sendall(PATTERN[begin : begin + 100])
    assert read_pattern(pair[1].fileno(), at) == 100


@pytest.mark.parametrize(
    "wrong",
    [PATTERN[1:101], PATTERN[:50] + PATTERN[51:101], PATTERN[:50] + PATTERN[:50]],
    ids=["late", "a byte lost", "repeated"],
)
def test_what_is_not_next_in_the_pattern_is_refused(
    pair: tuple[socket.socket, socket.socket], wrong: bytes
) -> None:
    pair[0].sendall(wrong)
    with pytest.raises(BenchmarkError, match="wrong bytes came after the first 0"):
        read_pattern(pair[1].fileno(), 0)


def test_a_relay_that_leaves_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    with pytest.raises(EOFError, match="left after 7 bytes"):
        read_pattern(pair[1].fileno(), 7)


def test_a_relay_is_ready_when_a_knock_is_heard_on_both_sides(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """This one takes the first two knocks and forgets them, as one that flushes does."""
    near, near_inner = socket.socketpair()
    far_inner, far = pair

    def relay() -> None:
        for inner, other in ((far_inner, near_inner), (near_inner, far_inner)):
            assert inner.recv(1) == inner.recv(1) == b"?"
            other.sendall(inner.recv(1))

    with near, near_inner:
        thread = threading.Thread(target=relay)
        thread.start()
        settle(Ends(near.fileno(), far.fileno()))
        thread.join(10)
        assert not thread.is_alive()


def link(folder: Path) -> Link:
    return Link("tcp", "serial", ("127.0.0.1", 4001), "/dev/pts/7", str(folder))


def test_our_bridge_is_started_as_a_user_would(tmp_path: Path) -> None:
    command = " ".join(command_of(OURS, link(tmp_path)))
    assert "--chardev serial,id=far,path=/dev/pts/7" in command
    assert "--chardev socket,id=near,host=127.0.0.1,port=4001,server=on,wait=off" in command
    assert "--device bridge,id=relay,chardev=far,peer=near" in command


def test_socat_is_started_with_its_buffer_or_without(tmp_path: Path) -> None:
    near, far = "TCP-LISTEN:4001,bind=127.0.0.1,reuseaddr", "OPEN:/dev/pts/7,raw,echo=0"
    assert command_of(SOCAT, link(tmp_path)) == ["socat", near, far]
    assert command_of(SOCAT_LARGE, link(tmp_path)) == ["socat", "-b262144", near, far]


def test_ser2net_is_started_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ser2net.yaml"
    assert command_of(SER2NET, link(tmp_path)) == ["ser2net", "-n", "-u", "-c", str(path)]
    text = path.read_text()
    assert "accepter: tcp,127.0.0.1,4001\n" in text
    assert "connector: serialdev(nouucplock=true),/dev/pts/7,115200n81,local,nobreak\n" in text
