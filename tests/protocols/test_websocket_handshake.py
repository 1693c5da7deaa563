"""WebSocket's handshake: what is agreed to, what is refused and how."""

from __future__ import annotations

import h11
import pytest

from tests.protocols.websocket_wire import BINARY, KEY, frame, request
from trio_chardev.protocols.websocket import WebSocketConnection
from trio_chardev.protocols.websocket_handshake import (
    MAX_HEAD,
    ClientHandshake,
    HandshakeError,
    ServerHandshake,
)

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of `KEY`, RFC 6455, 1.3


def answer_to(data: bytes) -> tuple[h11.Response, WebSocketConnection]:
    """What a server answers to something that it refuses, read by an HTTP client."""
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(data) == []
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


def test_a_server_agrees_as_the_rfc_says() -> None:
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(request()) == []
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
    party = WebSocketConnection(ServerHandshake(names={"me.example"}))
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
        pieces = party.receive_data(wire[:split]) + party.receive_data(wire[split:])
        assert b"".join(pieces) == b"hello"


@pytest.mark.parametrize(
    ("data", "status"),
    [
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
    assert party.receive_data(request()) == []
    assert party.data_to_send() == b""


@pytest.mark.parametrize(
    "target",
    [b"/", b"/websockify", b"/a/proxy/s/prefix?token=1", b"http://h/websockify", b"/%20", b"*"],
)
def test_a_client_may_ask_for_any_path(target: bytes) -> None:
    """noVNC's is /websockify, and a proxy may put anything before it."""
    party = WebSocketConnection(ServerHandshake())
    party.receive_data(request(b"GET %b HTTP/1.1" % target))
    assert party.is_established


@pytest.mark.parametrize(
    ("path", "target", "is_right"),
    [
        ("/websockify", b"/websockify", True),
        ("/websockify", b"/websockify?token=a?b", True),
        ("/websockify", b"http://me.example:80/websockify?x", True),
        ("/", b"/", True),
        ("/", b"/?", True),
        ("/", b"http://me.example", True),
        ("/", b"/websockify", False),
        ("/websockify", b"/", False),
        ("/websockify", b"/websockify/", False),
        ("/websockify", b"/Websockify", False),
        ("/websockify", b"/x/websockify", False),
        ("/websockify", b"/x?/websockify", False),
        ("/websockify", b"/http://x/websockify", False),
        ("/websockify", b"//websockify", False),
    ],
)
def test_a_server_with_a_path_takes_no_other(path: str, target: bytes, is_right: bool) -> None:
    party = WebSocketConnection(ServerHandshake(path=path))
    party.receive_data(request(b"GET %b HTTP/1.1" % target))
    assert party.is_established is is_right
    status = b"101" if is_right else b"404"
    assert party.data_to_send().startswith(b"HTTP/1.1 %b " % status)


def test_a_client_asks_for_its_path() -> None:
    party = WebSocketConnection(ClientHandshake("x", "/websockify?token=1"))
    assert party.data_to_send().startswith(b"GET /websockify?token=1 HTTP/1.1\r\n")
    server = WebSocketConnection(ServerHandshake(path="/websockify"))
    server.receive_data(WebSocketConnection(ClientHandshake("x", "/websockify?a")).data_to_send())
    assert server.is_established


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
    monkeypatch.setattr("trio_chardev.protocols.websocket_handshake.generate_nonce", lambda: KEY)
    return WebSocketConnection(ClientHandshake("localhost"))


@pytest.mark.parametrize("more", [b"", b"Sec-WebSocket-Protocol: binary\r\n"])
def test_a_client_takes_consent(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + ANSWER % (ACCEPT, more)
    wire = answer + frame(BINARY, b"hello", mask=b"")
    for split in range(1, len(wire)):
        party = client_with_key(monkeypatch)
        pieces = party.receive_data(wire[:split]) + party.receive_data(wire[split:])
        assert b"".join(pieces) == b"hello"


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
    assert party.receive_data(answer) == []
    assert not party.is_established
    assert party.end is not None
    assert party.end.startswith(reason)
    assert party.data_to_send() == b""


def test_an_end_before_the_handshake_changes_nothing() -> None:
    party = WebSocketConnection(ServerHandshake())
    assert party.receive_data(b"") == []
    party.close()
    assert (party.end, party.data_to_send()) == (None, b"")


def test_a_handshake_error_reads_as_its_reason() -> None:
    assert str(HandshakeError("why")) == "why"
