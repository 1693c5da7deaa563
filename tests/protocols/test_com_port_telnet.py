"""Telnet with RFC 2217's option: two parties of ours, and what may come in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from trio_chardev.events import Event, LineSettings, ModemLines
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.com_port_telnet import (
    ComPortTelnet,
    com_port_client,
    com_port_server,
)
from trio_chardev.protocols.telnet import TelnetConnection
from trio_chardev.protocols.telnet_roles import (
    BREAK,
    COM_PORT,
    COM_PORT_SERVER,
    DO,
    DONT,
    IAC,
    SB,
    SE,
    WILL,
    WONT,
)

BAUD = 0x010203FF  # with an IAC
SIGNATURE = b"ours"


def pair(port: Port | None = None) -> tuple[ComPortTelnet, ComPortTelnet]:
    """A server and a client that have shaken hands."""
    server, client = com_port_server(Port(), SIGNATURE), com_port_client(port or Port())
    while True:
        to_client, to_server = server.data_to_send(), client.data_to_send()
        if not (to_client or to_server):
            return server, client
        assert not client.receive_data(to_client)
        for wish in server.receive_data(to_server):
            assert isinstance(wish, LineSettings | ModemLines)
            server.party.acknowledge(wish, wish)  # type: ignore[union-attr]


def test_both_begin_with_binary_both_ways() -> None:
    opening = com_port_client(Port()).data_to_send()
    assert bytes([IAC, WILL, 0]) in opening
    assert bytes([IAC, DO, 0]) in opening
    assert opening.endswith(bytes([IAC, WILL, COM_PORT]))
    assert com_port_server(Port(), b"").data_to_send().endswith(bytes([IAC, DO, COM_PORT]))


def test_a_client_is_ready_when_it_knows_the_line() -> None:
    client = com_port_client(Port())
    assert not client.is_established
    server, client = pair()
    assert client.is_established
    assert server.is_established
    assert client.end is None


def test_a_clients_bytes_come_as_they_are_after_what_it_has_asked() -> None:
    server, client = pair()
    client.party.ask_settings(LineSettings(BAUD))  # type: ignore[union-attr]
    data = b"a\xff\r\x00\r\nb"
    assert server.receive_data(client.encode(data)) == [LineSettings(BAUD), data]
    assert client.receive_data(server.encode(data)) == [data]


def test_of_what_was_cut_anywhere_nothing_is_lost() -> None:
    for size in (1, 2, 3, 5, 7):
        server, client = pair()
        client.party.ask_settings(LineSettings(BAUD))  # type: ignore[union-attr]
        wire = client.encode(b"x\xff\xffy")
        items = [
            item
            for start in range(0, len(wire), size)
            for item in server.receive_data(wire[start : start + size])
        ]
        assert items[0] == LineSettings(BAUD)
        assert b"".join(item for item in items if isinstance(item, bytes)) == b"x\xff\xffy"


def test_telnets_own_break_keeps_its_place() -> None:
    server, client = pair()
    wire = client.encode(b"a") + client.encode_break() + client.encode(b"b")
    assert server.receive_data(wire) == [b"a", Event.BREAK, b"b"]
    assert wire.endswith(bytes([IAC, BREAK]) + b"b")


def test_a_plain_telnet_client_refuses_the_option_and_is_served() -> None:
    server = com_port_server(Port(), b"")
    server.data_to_send()
    assert server.receive_data(bytes([IAC, WONT, COM_PORT]) + b"ls\r\0") == [b"ls\r"]
    assert server.is_established
    assert server.end is None


def test_a_server_without_the_option_is_of_no_use() -> None:
    client = com_port_client(Port())
    client.data_to_send()
    client.receive_data(bytes([IAC, DONT, COM_PORT]))
    assert client.end == "the server does not speak RFC 2217"
    assert not client.is_behind


def test_a_client_asks_nothing_before_the_server_agrees() -> None:
    client = com_port_client(Port())
    assert bytes([IAC, SB, COM_PORT]) not in client.data_to_send()
    client.receive_data(bytes([IAC, DO, COM_PORT]))
    assert bytes([IAC, SB, COM_PORT]) in client.data_to_send()


def test_what_makes_no_sense_is_skipped() -> None:
    server, _ = pair()
    wire = b"".join(
        bytes([IAC, SB, *data, IAC, SE]) for data in ((COM_PORT,), (COM_PORT, 99), (31, 0))
    )
    assert server.receive_data(b"a" + wire + b"b") == [b"a", b"b"]
    assert server.data_to_send() == b""


def test_a_flood_of_commands_is_decoded_bit_by_bit() -> None:
    server, _ = pair()
    flood = bytes([IAC, SB, COM_PORT, 0, IAC, SE]) * 1000
    server.receive_data(flood)
    assert server.is_behind
    while server.is_behind:
        server.decode_more()
    assert server.data_to_send().count(SIGNATURE) == 1000


def test_a_subnegotiation_doubles_each_iac() -> None:
    wire = TelnetConnection(COM_PORT_SERVER).encode_subnegotiation(COM_PORT, b"\x01\xff")
    assert wire == bytes([IAC, SB, COM_PORT, 1, IAC, IAC, IAC, SE])


# ---------------------------------------------------------------- whatever comes

PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [
            bytes([IAC]),
            bytes([IAC, IAC]),
            bytes([IAC, SE]),
            bytes([IAC, BREAK]),
            *(
                bytes([IAC, verb, option])
                for verb in (WILL, WONT, DO, DONT)
                for option in (0, COM_PORT)
            ),
        ]
    ),
    st.builds(
        lambda command, value: bytes([IAC, SB, COM_PORT, command]) + value + bytes([IAC, SE]),
        st.one_of(st.integers(0, 13), st.integers(100, 113)),
        st.binary(max_size=5).map(lambda value: value.replace(b"\xff", b"\xff\xff")),
    ),
)


MAKERS: list[Callable[[], ComPortTelnet]] = [
    lambda: com_port_server(Port(), b"x"),
    lambda: com_port_client(Port()),
]


@pytest.mark.parametrize("make", MAKERS, ids=["server", "client"])
@given(
    wire=st.lists(PIECES, max_size=30).map(b"".join), cuts=st.lists(st.integers(0, 200), max_size=6)
)
def test_whatever_comes_is_decoded_the_same_wherever_it_is_cut(
    make: Callable[[], ComPortTelnet], wire: bytes, cuts: list[int]
) -> None:
    whole, cut = make(), make()
    ends = sorted({*(end for end in cuts if end < len(wire)), len(wire)})
    starts = [0, *ends[:-1]]
    pieces = [wire[start:end] for start, end in zip(starts, ends, strict=True)]
    assert decoded(cut, pieces) == decoded(whole, [wire])
    assert (cut.data_to_send(), cut.end) == (whole.data_to_send(), whole.end)


def decoded(party: ComPortTelnet, pieces: list[bytes]) -> list[object]:
    """Return all that comes of *pieces*, with neighbouring bytes joined."""
    items: list[object] = []
    for piece in pieces:
        for item in party.receive_data(piece):
            if isinstance(item, bytes) and items and isinstance(items[-1], bytes):
                items[-1] += item
            else:
                items.append(item)
    return items
