"""Telnet's window size (RFC 1073), alone and beside the serial line of RFC 2217."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_chardev.backends.socket.codec import WindowCodec
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, WindowSize
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.com_port_telnet import com_port_client, com_port_server
from trio_chardev.protocols.telnet import Subnegotiation, TelnetConnection
from trio_chardev.protocols.telnet_roles import (
    BREAK,
    CLIENT,
    DO,
    DONT,
    IAC,
    NOP,
    SB,
    SE,
    SERVER,
    TN3270_CLIENT,
    TN3270_SERVER,
    WILL,
    WINDOW_SIZE,
    WONT,
    Role,
)

WIDE = WindowSize(132, 43)
TELLS = bytes([IAC, WILL, WINDOW_SIZE])
ASKS = bytes([IAC, DO, WINDOW_SIZE])
sizes = st.builds(WindowSize, *[st.sampled_from([0, 1, 80, 254, 255, 256, 65279, 65535])] * 2)


def told(size: WindowSize) -> bytes:
    """The subnegotiation, made by hand."""
    octets = size.cols.to_bytes(2, "big") + size.rows.to_bytes(2, "big")
    return bytes([IAC, SB, WINDOW_SIZE]) + octets.replace(b"\xff", b"\xff\xff") + bytes([IAC, SE])


def asked(role: Role = SERVER) -> TelnetConnection:
    """A party that has made its offers, and whose peer will tell its size."""
    party = TelnetConnection(role)
    party.data_to_send()
    party.receive_data(TELLS)
    return party


def agreed(size: WindowSize = UNKNOWN_SIZE) -> TelnetConnection:
    """A client that was asked for its size, and has answered."""
    client = TelnetConnection(CLIENT)
    client.set_window_size(size)
    client.receive_data(ASKS)
    client.data_to_send()
    return client


# ---------------------------------------------------------------- the server


@given(sizes)
def test_a_size_is_understood_wherever_it_is_cut(size: WindowSize) -> None:
    wire = b"a" + told(size) + b"b"
    for cut in range(len(wire) + 1):
        server = asked()
        items = server.receive_data(wire[:cut]) + server.receive_data(wire[cut:])
        assert [item for item in items if not isinstance(item, bytes)] == [size]
        assert items.index(size) == len(items) - 1 or items[-1] == b"b"
        assert b"".join(item for item in items if isinstance(item, bytes)) == b"ab"
        assert server.their_window_size == size


def test_a_size_keeps_its_place_and_each_is_reported() -> None:
    wire = b"a" + told(WIDE) + told(WIDE) + bytes([IAC, BREAK]) + b"b"
    assert asked().receive_data(wire)[:3] == [b"a", WIDE, WIDE]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 1000])
def test_what_has_not_the_length_of_a_size_is_nothing(length: int) -> None:
    server = asked()
    wire = bytes([IAC, SB, WINDOW_SIZE, *bytes(length), IAC, SE])
    assert server.receive_data(wire) == []
    assert server.their_window_size == UNKNOWN_SIZE


@pytest.mark.parametrize("before", [b"", bytes([IAC, WONT, WINDOW_SIZE])])
def test_without_an_agreement_it_is_any_subnegotiation(before: bytes) -> None:
    server = asked() if before else TelnetConnection(SERVER)
    assert server.receive_data(before + told(WIDE)) == [
        Subnegotiation(WINDOW_SIZE, b"\x00\x84\x00\x2b")
    ]


def test_the_server_asks_once() -> None:
    server = TelnetConnection(SERVER)
    assert server.data_to_send().count(ASKS) == 1
    server.receive_data(TELLS)
    assert server.data_to_send() == b""


@pytest.mark.parametrize("role", [SERVER, TN3270_SERVER, TN3270_CLIENT])
def test_only_a_client_tells(role: Role) -> None:
    party = TelnetConnection(role)
    party.data_to_send()
    party.set_window_size(WIDE)
    party.receive_data(ASKS)
    assert party.data_to_send() == bytes([IAC, WONT, WINDOW_SIZE])


@pytest.mark.parametrize("role", [TN3270_SERVER, TN3270_CLIENT])
def test_3270_has_its_own_way_and_refuses(role: Role) -> None:
    """What a terminal of its type has; and subnegotiations are the user's own affair there."""
    party = asked(role)
    assert party.data_to_send() == bytes([IAC, DONT, WINDOW_SIZE])
    assert party.receive_data(told(WIDE)) == [told(WIDE)]


# ---------------------------------------------------------------- the client


@given(sizes)
def test_a_client_tells_at_once_when_it_is_asked(size: WindowSize) -> None:
    client = TelnetConnection(CLIENT)
    client.set_window_size(size)
    offer = TELLS if size.is_known else b""
    assert client.data_to_send() == offer
    client.receive_data(ASKS)
    answer = b"" if size.is_known else TELLS
    assert client.data_to_send() == answer + (told(size) if size.is_known else b"")


def test_it_tells_what_changes_and_nothing_twice() -> None:
    client = agreed(WIDE)
    client.set_window_size(WIDE)
    assert client.data_to_send() == b""
    for cols in range(3):
        client.set_window_size(WindowSize(80 + cols, 24))
    assert client.data_to_send() == told(WindowSize(82, 24)), "the last one"
    client.set_window_size(UNKNOWN_SIZE)
    assert client.data_to_send() == b""


def test_who_is_asked_before_the_size_is_known_tells_it_then() -> None:
    client = TelnetConnection(CLIENT)
    client.set_window_size(UNKNOWN_SIZE)
    assert client.data_to_send() == b""
    client.receive_data(ASKS)
    assert client.data_to_send() == TELLS
    client.set_window_size(WIDE)
    assert client.data_to_send() == told(WIDE)


def test_a_size_that_was_unknown_at_first_is_offered_when_it_is_known() -> None:
    client = TelnetConnection(CLIENT)
    client.set_window_size(UNKNOWN_SIZE)
    client.set_window_size(WIDE)
    assert client.data_to_send() == TELLS


def test_a_server_that_does_not_want_to_know_is_not_asked_again() -> None:
    client = TelnetConnection(CLIENT)
    client.set_window_size(WIDE)
    client.data_to_send()
    client.receive_data(bytes([IAC, DONT, WINDOW_SIZE]))
    client.set_window_size(WindowSize(80, 24))
    assert client.data_to_send() == b""


def test_a_server_that_wants_it_again_is_told_again() -> None:
    client = agreed(WIDE)
    client.receive_data(bytes([IAC, DONT, WINDOW_SIZE]))
    client.data_to_send()
    client.receive_data(ASKS)
    assert client.data_to_send() == TELLS + told(WIDE)


def test_the_size_goes_before_what_is_typed_in_the_new_window() -> None:
    client = agreed()
    client.set_window_size(WIDE)
    assert client.encode(b"a") == told(WIDE) + b"a"


# ---------------------------------------------------------------- beside the serial line


def test_both_options_work_on_one_connection() -> None:
    server, client = com_port_server(Port(), b"ours"), com_port_client(Port())
    assert isinstance(server, WindowCodec)
    assert isinstance(client, WindowCodec)
    client.set_window_size(WIDE)
    events: list[bytes | BackendEvent] = []
    for _ in range(9):
        events += server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    assert client.is_established
    assert [event for event in events if isinstance(event, WindowSize)] == [WIDE]
    assert server.their_window_size == WIDE
    client.set_window_size(WindowSize(80, 24))
    assert server.receive_data(client.encode(b"x")) == [WindowSize(80, 24), b"x"]
    assert server.receive_data(bytes([IAC, NOP])) == []
