"""The driver's QMP client, against what a server may send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import attrs
import pytest

from bench.client import QUERY, QmpConnection, command
from bench.model import BenchmarkError

RETURN = b'{"return": {}}\r\n'
EVENT = b'{"event": "CHARDEV_ADDED", "data": {"id": "x"}}\r\n'
ERROR = b'{"error": {"class": "GenericError", "desc": "no"}}\r\n'


@attrs.frozen
class Pair:
    client: QmpConnection
    server: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Pair(QmpConnection(ours), theirs)


def test_a_command_is_a_line_of_json() -> None:
    line = command("chardev-add", id="x")
    assert line.endswith(b"\r\n")
    assert json.loads(line) == {"execute": "chardev-add", "arguments": {"id": "x"}}


def test_events_are_no_replies(pair: Pair) -> None:
    pair.server.sendall(EVENT + RETURN + RETURN)
    assert pair.client.execute(QUERY) == RETURN.strip(b"\n")
    assert pair.client.time(QUERY) > 0


def test_an_error_is_one(pair: Pair) -> None:
    pair.server.sendall(ERROR)
    with pytest.raises(BenchmarkError, match='"desc": "no"'):
        pair.client.execute(QUERY)


def test_a_server_that_leaves_is_noticed(pair: Pair) -> None:
    pair.server.sendall(RETURN[:5])
    pair.server.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        pair.client.execute(QUERY)


def test_pipelined_commands_are_counted(pair: Pair) -> None:
    pair.server.sendall(RETURN * 3)
    assert pair.client.time_all(QUERY * 3) > 0
    assert pair.server.recv(1000) == QUERY * 3


@pytest.mark.parametrize("replies", [RETURN + ERROR, RETURN + EVENT])
def test_a_pipelined_command_without_a_good_reply_is_found(pair: Pair, replies: bytes) -> None:
    pair.server.sendall(replies)
    with pytest.raises(BenchmarkError, match="not 2 good replies"):
        pair.client.time_all(QUERY * 2)
    assert pair.client.sock.getblocking()


def test_chardevs_are_added_with_backends_of_their_own(pair: Pair) -> None:
    pair.server.sendall(RETURN * 2)
    pair.client.fill(2, lambda number: {"type": "file", "data": {"out": f"/tmp/{number}"}})
    adds = [json.loads(line)["arguments"] for line in pair.server.recv(1000).splitlines()]
    assert [(each["id"], each["backend"]["data"]["out"]) for each in adds] == [
        ("c0", "/tmp/0"),
        ("c1", "/tmp/1"),
    ]


def test_to_add_none_is_nothing(pair: Pair) -> None:
    pair.client.fill(0)
    pair.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.server.recv(1)
