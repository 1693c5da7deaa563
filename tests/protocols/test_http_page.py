"""One page by HTTP: what is asked for, what is refused, and in which words."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest

from trio_chardev.protocols.http_page import Asked, PageServer, RefusedRequestError
from trio_chardev.protocols.websocket_handshake import MAX_HEAD

HEAD = b"Host: localhost:9101\r\n"
GET = b"GET /metrics HTTP/1.1\r\n" + HEAD + b"Accept: text/plain\r\n\r\n"


def server() -> PageServer:
    return PageServer("/metrics", checks_host=True)


def answer_of(http: PageServer, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """What a client reads: status, headers, body."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(http.outgoing)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return response.status_code, headers, body


@pytest.mark.parametrize("size", [1, 2, 7, len(GET)])
def test_a_request_may_come_in_any_pieces(size: int) -> None:
    http = server()
    *before, last = (http.receive(GET[at : at + size]) for at in range(0, len(GET), size))
    assert set(before) <= {None}
    assert last == Asked("text/plain")


def test_the_page_is_the_answer_and_the_last() -> None:
    http = server()
    http.receive(GET)
    http.answer("text/x", b"page\n")
    status, headers, body = answer_of(http)
    assert (status, body) == (200, b"page\n")
    assert headers["content-type"] == "text/x"
    assert headers["content-length"] == "5"
    assert headers["connection"] == "close"


def test_a_head_is_the_same_without_the_page() -> None:
    http = server()
    assert http.receive(b"HEAD /metrics?x=1 HTTP/1.1\r\n" + HEAD + b"\r\n") == Asked("")
    http.answer("text/x", b"page\n")
    status, headers, body = answer_of(http, "HEAD")
    assert (status, headers["content-length"], body) == (200, "5", b"")


REFUSED = [
    (b"GET / HTTP/1.1\r\n" + HEAD, 404, "there is only '/metrics'"),
    (b"GET /metrics/ HTTP/1.1\r\n" + HEAD, 404, "there is only '/metrics'"),
    (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n" + HEAD, 405, "it can only be read, by GET or HEAD"),
    (b"OPTIONS /metrics HTTP/1.1\r\n" + HEAD, 405, "it can only be read, by GET or HEAD"),
    (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n", 421, "ask for it by an address, or 'localhost'"),
    (b"GET /metrics HTTP/1.1\r\n", 400, "not HTTP: Missing mandatory Host: header"),
    (b"GET /metrics HTTP/1.1\r\nX: " + b"-" * MAX_HEAD, 431, "not HTTP: Receive buffer too long"),
    (b"\x16\x03\x01\x00", 400, "not HTTP: illegal request line"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_all_else_is_refused_with_a_reason(request_: bytes, status: int, reason: str) -> None:
    http = server()
    with pytest.raises(RefusedRequestError) as caught:
        http.receive(request_ + b"\r\n")
    assert (caught.value.status, str(caught.value)) == (HTTPStatus(status), reason)
    found, headers, body = answer_of(http)
    assert (found, body.decode()) == (status, f"{reason}\n")
    assert ("allow" in headers) == (status == 405)


def test_a_refused_head_has_no_body() -> None:
    http = server()
    with pytest.raises(RefusedRequestError):
        http.receive(b"HEAD / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer_of(http, "HEAD")[::2] == (404, b"")


@pytest.mark.parametrize("host", ["127.0.0.1:9101", "[::1]:9101", "localhost", "10.0.0.7"])
def test_an_address_and_localhost_are_no_names_that_others_can_point_here(host: str) -> None:
    assert server().receive(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def test_where_hosts_do_not_matter_any_will_do() -> None:
    http = PageServer("/metrics", checks_host=False)
    assert http.receive(b"GET /metrics HTTP/1.1\r\nHost: board.example\r\n\r\n")


def test_who_says_nothing_gets_nothing_that_counts_as_the_page() -> None:
    http = server()
    with pytest.raises(RefusedRequestError, match="there is no request"):
        http.receive(b"")


def test_where_there_is_no_page_now_the_answer_says_so() -> None:
    http = server()
    http.receive(GET)
    http.fail("not now")
    assert answer_of(http)[::2] == (503, b"not now\n")
