"""HTTP for one page, which is only read: one request, one response, and the connection ends. By h11.

Rule: who asks for something else gets an answer that says what there is. A head has a bound, and a
request's body is not read.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import attrs
import h11

from trio_chardev.protocols.origin import is_known_host
from trio_chardev.protocols.websocket_handshake import MAX_HEAD, path_of

METHODS: Final = ("GET", "HEAD")
TEXT: Final = "text/plain; charset=utf-8"


@attrs.frozen
class Asked:
    """A request for the page."""

    accept: str
    """The formats that are wanted, as the header has them."""


@attrs.frozen
class RefusedRequestError(Exception):
    """They: the request is not for the page. `PageServer.outgoing` has the answer, if there is one."""

    status: HTTPStatus
    reason: str

    def __str__(self) -> str:
        return self.reason


class PageServer:
    """The server's side of one connection."""

    def __init__(self, path: str, *, checks_host: bool) -> None:
        """The page is at *path*. With *checks_host* it has to be asked for at a number or localhost.

        So no web page can read it by a name of its own that leads here (DNS rebinding).
        """
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._path = path
        self._checks_host = checks_host
        self._is_head = False
        self.outgoing = b""
        """Bytes to be sent, after `receive` has raised, or after `answer`."""

    def receive(self, data: bytes) -> Asked | None:
        """Take *data*, ``b""`` for the end; return what is asked for, None if that is not whole yet.

        Raises RefusedRequestError.
        """
        try:
            self._http.receive_data(data)
            request = self._http.next_event()
            if request is h11.NEED_DATA:
                return None
            if not isinstance(request, h11.Request):
                raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "there is no request")
            self._check(request)
            return Asked(", ".join(_lines(request, b"accept")))
        except h11.RemoteProtocolError as exc:
            error = RefusedRequestError(HTTPStatus(exc.error_status_hint), f"not HTTP: {exc}")
            self._refuse(error)
            raise error from exc
        except RefusedRequestError as error:
            self._refuse(error)
            raise

    def _check(self, request: h11.Request) -> None:
        """Raise RefusedRequestError if *request* is for something else."""
        self._is_head = request.method == b"HEAD"
        if self._checks_host and not all(map(is_known_host, _lines(request, b"host"))):
            status = HTTPStatus.MISDIRECTED_REQUEST
            raise RefusedRequestError(status, "ask for it by an address, or 'localhost'")
        if path_of(request) != self._path:
            raise RefusedRequestError(HTTPStatus.NOT_FOUND, f"there is only '{self._path}'")
        if request.method.decode("latin-1") not in METHODS:
            status = HTTPStatus.METHOD_NOT_ALLOWED
            raise RefusedRequestError(status, "it can only be read, by GET or HEAD")

    def answer(self, content_type: str, body: bytes) -> None:
        """Answer with the page."""
        self._send(HTTPStatus.OK, content_type, body)

    def fail(self, reason: str) -> None:
        """Answer that there is no page now."""
        self._send(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{reason}\n".encode())

    def _refuse(self, error: RefusedRequestError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(error.status, TEXT, f"{error}\n".encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(METHODS)))
        response = h11.Response(status_code=status, headers=headers, reason=status.phrase)
        events = [response, *([] if self._is_head else [h11.Data(data=body)]), h11.EndOfMessage()]
        self.outgoing += b"".join(self._http.send(event) or b"" for event in events)


def _lines(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in request.headers if found == name]
