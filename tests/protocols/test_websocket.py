"""WebSocket: what is agreed to, what is refused and how, and streams that survive."""

from __future__ import annotations

import struct

import h11
import pytest
from hypothesis import given, strategies as st

from trio_chardev.protocols.websocket import (
    MAX_FRAME,
    MAX_HEAD,
    ClientHandshake,
    HandshakeError,
    ServerHandshake,
    WebSocketConnection,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIN, CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0, 1, 2, 8, 9, 10


def request(line: bytes = b"GET / HTTP/1.1", more: bytes = b"", **changes: bytes | None) -> bytes:
    """A request of which *changes* are made; a header that is None is left out."""
    headers: dict[str, bytes | None] = {
        "host": b"localhost",
        "upgrade": b"websocket",
        "connection": b"Upgrade",
        "sec_websocket_version": b"13",
        "sec_websocket_key": KEY,
        **changes,
    }
    lines = [
        name.replace("_", "-").encode() + b": " + value
        for name, value in headers.items()
        if value is not None
    ]
    return b"\r\n".join([line, *lines, more])[: None if more else -2] + b"\r\n\r\n"


def frame(opcode: int, payload: bytes = b"", *, fin: int = FIN, mask: bytes = b"mask") -> bytes:
    """A frame of a client; with an empty *mask* of a server."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", fin | opcode, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", fin | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", fin | opcode, bit | 127, size)
    if mask:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + mask + payload


def server(*, binary_only: bool = False) -> WebSocketConnection:
    """One that frames can be sent to."""
    party = WebSocketConnection(ServerHandshake(), binary_only=binary_only)
    assert party.receive_data(request()) == b""
    assert party.is_established
    assert party.data_to_send().startswith(b"HTTP/1.1 101 ")
    return party


def pair() -> tuple[WebSocketConnection, WebSocketConnection]:
    there = WebSocketConnection(ClientHandshake("localhost"))
    here = WebSocketConnection(ServerHandshake())
    assert here.receive_data(there.data_to_send()) == b""
    assert there.receive_data(here.data_to_send()) == b""
    assert here.is_established
    assert there.is_established
    return here, there


def answer_to(data: bytes) -> tuple[h11.Response, WebSocketConnection]:
    """What a server answers to something that it refuses, read by an HTTP client."""
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(data) == b""
    assert not party.is_established
    assert party.end
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(party.data_to_send())
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    assert client.their_state is h11.MUST_CLOSE
    return response, party


# ---------------------------------------------------------------- handshake


def test_a_server_agrees_as_the_rfc_says() -> None:
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(request()) == b""
    answer = party.data_to_send()
    assert b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in answer
    assert b"Sec-WebSocket-Protocol" not in answer
    assert answer.endswith(b"\r\n\r\n")
    assert party.data_to_send() == b""


@pytest.mark.parametrize("offer", [b"binary", b"chat, binary", b"binary,base64"])
def test_the_answer_names_the_sub_protocol(offer: bytes) -> None:
    party = WebSocketConnection(ServerHandshake())
    party.receive_data(request(sec_websocket_protocol=offer))
    assert b"\r\nSec-WebSocket-Protocol: binary\r\n" in party.data_to_send()


def test_a_web_page_of_the_same_host_may_connect_and_others_that_are_listed() -> None:
    party = WebSocketConnection(ServerHandshake())
    party.receive_data(request(host=b"me.example:1", more=b"Origin: http://me.example"))
    assert party.is_established
    party = WebSocketConnection(ServerHandshake(["https://you.example"]))
    party.receive_data(request(host=b"me.example", more=b"Origin: https://you.example"))
    assert party.is_established
    party = WebSocketConnection(ServerHandshake(["https://you.example"]))
    party.receive_data(request(host=b"me.example", more=b"Origin: https://me.example"))
    assert party.end == "a page of 'https://me.example' may not connect (see the option 'origins')"


def test_names_and_words_may_be_in_any_case_and_among_others() -> None:
    party = WebSocketConnection(ServerHandshake())
    party.receive_data(request(upgrade=b"WebSocket", connection=b"keep-alive, uPGRADE"))
    assert party.is_established


def test_frames_may_follow_the_request_at_once_at_any_split() -> None:
    wire = request() + frame(BINARY, b"hello")
    for split in range(1, len(wire)):
        party = WebSocketConnection(ServerHandshake())
        assert party.receive_data(wire[:split]) + party.receive_data(wire[split:]) == b"hello"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(b"GET /index.html HTTP/1.1"), 404),
        (request(b"GET /? HTTP/1.1"), 404),
        (request(b"POST / HTTP/1.1"), 405),
        (request(b"HEAD / HTTP/1.1"), 405),
        (request(b"GET / HTTP/1.0"), 426),
        (request(upgrade=None), 426),
        (request(upgrade=b"h2c"), 426),
        (request(connection=None), 426),
        (request(connection=b"keep-alive"), 426),
        (request(sec_websocket_version=None), 426),
        (request(sec_websocket_version=b"8"), 426),
        (request(sec_websocket_key=None), 400),
        (request(sec_websocket_key=b"c2hvcnQ="), 400),
        (request(sec_websocket_key=b"!" * 24), 400),
        (request(more=b"Sec-WebSocket-Key: " + KEY), 400),
        (request(sec_websocket_protocol=b"chat"), 400),
        (request(sec_websocket_protocol=b"Binary"), 400),
        (request(host=None), 400),
        (request(host=b"me.example", more=b"Origin: http://evil.example"), 403),
        (request(host=b"localhost", more=b"Origin: null"), 403),
        (request(content_length=b"5") + b"hello", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"root\r\n\r\n", 400),
        (request(more=b"X: " + b"x" * MAX_HEAD), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431),
    ],
)
def test_what_is_no_proper_request_is_answered_as_http(data: bytes, status: int) -> None:
    response, party = answer_to(data)
    assert response.status_code == status
    headers = dict(response.headers)
    assert headers[b"date"].endswith(b" GMT")
    assert (headers.get(b"upgrade") == b"websocket") == (status == 426)
    assert (headers.get(b"sec-websocket-version") == b"13") == (status == 426)
    assert party.receive_data(request()) == b""
    assert party.data_to_send() == b""


def test_a_head_that_is_too_long_is_so_at_any_split() -> None:
    """And one that just fits is agreed to."""
    padding = MAX_HEAD - len(request(more=b"X: "))
    for extra, is_agreed in [(0, True), (1, False)]:
        head = request(more=b"X: " + b"x" * (padding + extra))
        for size in (len(head), 1000, 1):
            party = WebSocketConnection(ServerHandshake())
            for start in range(0, len(head), size):
                party.receive_data(head[start : start + size])
            assert party.is_established is is_agreed
            assert party.data_to_send().startswith(
                b"HTTP/1.1 101" if is_agreed else b"HTTP/1.1 431"
            )


def test_a_client_asks_as_the_rfc_says() -> None:
    party = WebSocketConnection(ClientHandshake("example.org:5900"))
    asked = h11.Connection(h11.SERVER)
    asked.receive_data(party.data_to_send())
    event = asked.next_event()
    assert isinstance(event, h11.Request)
    headers = dict(event.headers)
    assert (event.method, event.target) == (b"GET", b"/")
    assert headers[b"host"] == b"example.org:5900"
    assert headers[b"sec-websocket-protocol"] == b"binary"
    assert len(headers[b"sec-websocket-key"]) == 24


ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n%s\r\n"
)


def client_with_key(monkeypatch: pytest.MonkeyPatch) -> WebSocketConnection:
    monkeypatch.setattr("trio_chardev.protocols.websocket.generate_nonce", lambda: KEY)
    return WebSocketConnection(ClientHandshake("localhost"))


@pytest.mark.parametrize("more", [b"", b"Sec-WebSocket-Protocol: binary\r\n"])
def test_a_client_takes_consent(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + ANSWER % (ACCEPT, more)
    wire = answer + frame(BINARY, b"hello", mask=b"")
    for split in range(1, len(wire)):
        party = client_with_key(monkeypatch)
        assert party.receive_data(wire[:split]) + party.receive_data(wire[split:]) == b"hello"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "the server answers 404 Not Found",
        ),
        (ANSWER % (KEY, b""), "the server's Sec-WebSocket-Accept is wrong"),
        (
            ANSWER % (ACCEPT, b"Sec-WebSocket-Protocol: chat\r\n"),
            "the server uses a sub-protocol that it was not offered",
        ),
        (
            ANSWER % (ACCEPT, b"Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            "the server uses an extension that it was not offered",
        ),
        (
            (ANSWER % (ACCEPT, b"")).replace(b"websocket", b"h2c"),
            "the server switches to something else",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "not HTTP: illegal status line"),
        (b"HTTP/1.1 101 " + b"x" * MAX_HEAD, "the head is too long"),
    ],
)
def test_a_client_takes_nothing_else(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    party = client_with_key(monkeypatch)
    party.data_to_send()
    assert party.receive_data(answer) == b""
    assert not party.is_established
    assert party.end is not None
    assert party.end.startswith(reason)
    assert party.data_to_send() == b""


def test_an_end_before_the_handshake_changes_nothing() -> None:
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(b"") == b""
    party.close()
    assert (party.end, party.data_to_send()) == (None, b"")


def test_a_handshake_error_reads_as_its_reason() -> None:
    assert str(HandshakeError("why")) == "why"


# ---------------------------------------------------------------- frames


def test_bytes_of_fragments_are_passed_on_as_they_come() -> None:
    """Also while their frame is not complete, and with control frames in between."""
    party = server()
    whole = frame(BINARY, b"hello", fin=0)
    assert party.receive_data(whole[:8]) == b"he"
    assert party.receive_data(whole[8:]) == b"llo"
    assert (
        party.receive_data(frame(PING, b"?") + frame(CONTINUATION, b" world", fin=0)) == b" world"
    )
    assert party.receive_data(frame(CONTINUATION) + frame(BINARY, b"!")) == b"!"
    assert party.data_to_send() == frame(PONG, b"?", mask=b"")


def test_text_is_input_as_utf8() -> None:
    party = server()
    text = "ä€😀".encode()
    assert party.receive_data(frame(TEXT, text[:3], fin=0)) == text[:2], "a character in pieces"
    assert party.receive_data(frame(CONTINUATION, text[3:])) == text[2:]


def test_text_that_is_no_utf8_is_refused() -> None:
    party = server()
    assert party.receive_data(frame(BINARY, b"a") + frame(TEXT, b"\xff") + frame(BINARY)) == b"a"
    assert close_code(party.data_to_send()) == 1007
    assert party.end


def close_code(wire: bytes) -> int:
    """Of a server's Close, which is all of *wire*."""
    assert wire[0] == FIN | CLOSE
    assert wire[1] == len(wire) - 2
    return int.from_bytes(wire[2:4], "big")


def test_binary_only_refuses_text() -> None:
    party = server(binary_only=True)
    assert party.receive_data(frame(BINARY, b"a") + frame(TEXT, b"b") + frame(BINARY, b"c")) == b"a"
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
    assert party.receive_data(frame(BINARY, b"more")) == b""


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
    assert party.receive_data(frame(BINARY, b"last") + frame(CLOSE, payload)) == b"last"
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
    assert there.receive_data(closing) == b""
    assert there.end == ""
    assert here.receive_data(frame(PING, b"?") + wire) == b"on its way"
    assert here.data_to_send() == b"", "nothing follows a Close"
    assert here.end is None
    assert here.receive_data(there.data_to_send()) == b""
    assert here.end == ""


@given(
    st.lists(st.binary(min_size=1, max_size=70), max_size=5), st.integers(min_value=1, max_value=9)
)
def test_streams_survive_both_ways(chunks: list[bytes], step: int) -> None:
    here, there = pair()
    for sender, receiver in [(here, there), (there, here)]:
        wire = b"".join(sender.encode(chunk) for chunk in chunks)
        got = b"".join(
            receiver.receive_data(wire[start : start + step]) for start in range(0, len(wire), step)
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
