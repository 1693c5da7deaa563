"""WebSocket's frames: what is passed on, what ends the connection and how, whole streams."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.protocols.websocket_wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    frame,
    request,
)
from trio_chardev.protocols.websocket import MAX_FRAME, WebSocketConnection
from trio_chardev.protocols.websocket_handshake import ClientHandshake, ServerHandshake


def server(*, binary_only: bool = False) -> WebSocketConnection:
    """One that frames can be sent to."""
    party = WebSocketConnection(ServerHandshake(), binary_only=binary_only)
    assert party.receive_data(request()) == []
    assert party.is_established
    assert party.data_to_send().startswith(b"HTTP/1.1 101 ")
    return party


def pair() -> tuple[WebSocketConnection, WebSocketConnection]:
    there = WebSocketConnection(ClientHandshake("localhost"))
    here = WebSocketConnection(ServerHandshake())
    assert here.receive_data(there.data_to_send()) == []
    assert there.receive_data(here.data_to_send()) == []
    assert here.is_established
    assert there.is_established
    return here, there


def test_bytes_of_fragments_are_passed_on_as_they_come() -> None:
    """Also while their frame is not complete, and with control frames in between."""
    party = server()
    whole = frame(BINARY, b"hello", fin=0)
    assert party.receive_data(whole[:8]) == [b"he"]
    assert party.receive_data(whole[8:]) == [b"llo"]
    assert party.receive_data(frame(PING, b"?") + frame(CONTINUATION, b" world", fin=0)) == [
        b" world"
    ]
    assert party.receive_data(frame(CONTINUATION) + frame(BINARY, b"!")) == [b"!"]
    assert party.data_to_send() == frame(PONG, b"?", mask=b"")


def test_text_is_input_as_utf8() -> None:
    party = server()
    text = "ä€😀".encode()
    assert party.receive_data(frame(TEXT, text[:3], fin=0)) == [text[:2]], "a character in pieces"
    assert party.receive_data(frame(CONTINUATION, text[3:])) == [text[2:]]


def test_text_that_is_no_utf8_is_refused() -> None:
    party = server()
    assert party.receive_data(frame(BINARY, b"a") + frame(TEXT, b"\xff") + frame(BINARY)) == [b"a"]
    assert close_code(party.data_to_send()) == 1007
    assert party.end


def close_code(wire: bytes) -> int:
    """Of a server's Close, which is all of *wire*."""
    assert wire[0] == FIN | CLOSE
    assert wire[1] == len(wire) - 2
    return int.from_bytes(wire[2:4], "big")


def test_binary_only_refuses_text() -> None:
    party = server(binary_only=True)
    assert party.receive_data(frame(BINARY, b"a") + frame(TEXT, b"b") + frame(BINARY, b"c")) == [
        b"a"
    ]
    assert close_code(party.data_to_send()) == 1003
    assert party.end == "only binary messages are taken"


@pytest.mark.parametrize(
    "wire",
    [
        frame(BINARY, b"hello", mask=b""),
        frame(CONTINUATION, b"hello"),
        frame(3, b"hello"),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=0),
        frame(BINARY, b"a", fin=0) + frame(BINARY, b"b"),
        bytes([0xC2]) + frame(BINARY, b"rsv")[1:],
        frame(CLOSE, b"x"),
        frame(CLOSE, (1006).to_bytes(2, "big")),
    ],
)
def test_who_breaks_the_rules_is_told_1002(wire: bytes) -> None:
    party = server()
    party.receive_data(wire)
    assert close_code(party.data_to_send()) == 1002
    assert party.end
    assert not party.is_open
    assert party.receive_data(frame(BINARY, b"more")) == []


def test_only_the_last_ping_is_answered() -> None:
    party = server()
    for number in range(1000):
        party.receive_data(frame(PING, b"%d" % number))
    assert party.data_to_send() == frame(PONG, b"999", mask=b"")
    party.receive_data(frame(PONG, b"what for"))
    assert party.data_to_send() == b""


def test_each_send_is_one_binary_frame_behind_what_is_due() -> None:
    party = server()
    party.receive_data(frame(PING, b"p"))
    assert party.encode(b"hello") == frame(PONG, b"p", mask=b"") + frame(BINARY, b"hello", mask=b"")
    assert party.encode(bytes(MAX_FRAME)) == frame(BINARY, bytes(MAX_FRAME), mask=b"")


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(
    "payload", [b"", (1000).to_bytes(2, "big"), (1001).to_bytes(2, "big") + b"bye", b"\x0f\xa0x"]
)
def test_a_close_is_answered_in_its_words(payload: bytes) -> None:
    party = server()
    assert party.receive_data(frame(BINARY, b"last") + frame(CLOSE, payload)) == [b"last"]
    assert party.end == ""
    assert party.data_to_send() == frame(CLOSE, payload, mask=b"")
    party.close()
    assert party.data_to_send() == b""


def test_after_a_close_of_ours_the_peer_may_finish() -> None:
    here, there = pair()
    here.receive_data(frame(PING, b"?"))
    here.close()
    here.close()
    wire = there.encode(b"on its way")
    closing = here.data_to_send()
    assert close_code(closing[3:]) == 1001, "behind the answer that was due"
    assert there.receive_data(closing) == []
    assert there.end == ""
    assert here.receive_data(frame(PING, b"?") + wire) == [b"on its way"]
    assert here.data_to_send() == b"", "nothing follows a Close"
    assert here.end is None
    assert here.receive_data(there.data_to_send()) == []
    assert here.end == ""


@given(
    st.lists(st.binary(min_size=1, max_size=70), max_size=5), st.integers(min_value=1, max_value=9)
)
def test_streams_survive_both_ways(chunks: list[bytes], step: int) -> None:
    here, there = pair()
    for sender, receiver in [(here, there), (there, here)]:
        wire = b"".join(sender.encode(chunk) for chunk in chunks)
        got = b"".join(
            piece
            for start in range(0, len(wire), step)
            for piece in receiver.receive_data(wire[start : start + step])
        )
        assert got == b"".join(chunks)


@given(st.binary(max_size=60))
def test_nothing_that_comes_makes_it_raise(wire: bytes) -> None:
    for party in (server(), WebSocketConnection(ServerHandshake()), pair()[1]):
        for start in range(len(wire)):
            party.receive_data(wire[start : start + 1])
        party.data_to_send()
        party.close()
        party.data_to_send()
