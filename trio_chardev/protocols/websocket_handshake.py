"""WebSocket's opening handshake (RFC 6455, 4): one HTTP request and one response, by h11."""

from __future__ import annotations

import abc
import base64
import binascii
import re
from collections.abc import Collection, Sequence
from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11
from wsproto.connection import CLIENT, SERVER, ConnectionType
from wsproto.utilities import generate_accept_token, generate_nonce

from trio_chardev.protocols.origin import may_connect

_ABSOLUTE = re.compile(r"https?://[^/]*", re.IGNORECASE)
MAX_HEAD = 8192
"""How many bytes the head of a request or a response may have."""

SUBPROTOCOL = "binary"  # the name that QEMU, noVNC and websockify use for a stream of bytes

Headers = list[tuple[str, str]]


@attrs.frozen
class HandshakeError(Exception):
    """They: the handshake has failed."""

    reason: str
    status: HTTPStatus = HTTPStatus.BAD_REQUEST
    """What a server answers with."""
    headers: Headers = attrs.field(factory=list)

    def __str__(self) -> str:
        return self.reason


class Handshake(abc.ABC):
    """One side of the handshake."""

    side: ConnectionType

    def __init__(self, http: h11.Connection) -> None:
        self._http = http
        self._room = MAX_HEAD
        self.outgoing = b""
        """Bytes to be sent; the caller clears it after sending."""

    def receive(self, data: bytes) -> bytes | None:
        """Take *data*, not empty; return what follows the head, or None while that is incomplete.

        Raises HandshakeError; `outgoing` then has the response, if the peer gets one.
        """
        head, beyond = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._http.receive_data(head)
        try:
            if not self._take_head():
                if not self._room:
                    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                    raise HandshakeError("the head is too long", status)
                return None
        except h11.RemoteProtocolError as exc:
            error = HandshakeError(f"not HTTP: {exc}", HTTPStatus(exc.error_status_hint))
            self._refuse(error)
            raise error from exc
        except HandshakeError as error:
            self._refuse(error)
            raise
        return self._http.trailing_data[0] + beyond

    @abc.abstractmethod
    def _take_head(self) -> bool:
        """Is the head complete? Raises HandshakeError if it is refused."""

    def _refuse(self, error: HandshakeError) -> None:  # noqa: B027 - only a server answers
        """Tell the peer."""

    def _send(self, event: h11.Event) -> None:
        self.outgoing += self._http.send(event) or b""


class ServerHandshake(Handshake):
    """Accepts a GET of one path, or of any; other HTTP requests get an HTTP error."""

    side = SERVER

    def __init__(
        self,
        origins: Sequence[str] = (),
        path: str | None = None,
        *,
        names: Collection[str] = (),
    ) -> None:
        """*origins* are those of the web pages that may connect, *names* this machine's names.

        See `may_connect`. Clients must ask for *path*, with any query; None allows any path.
        """
        super().__init__(h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD))
        self._origins = origins
        self._names = names
        self._path = path
        self._host = ""  # what the client calls this host
        self._pages: list[str] = []  # the request's Origin headers

    def _take_head(self) -> bool:
        request = self._http.next_event()
        if not isinstance(request, h11.Request):
            return False
        if self._path is not None and path_of(request) != self._path:
            raise HandshakeError(f"there is only '{self._path}'", HTTPStatus.NOT_FOUND)
        key, subprotocols = _check_request(request)
        self._host, *_ = _lines(request, b"host")  # h11 requires one
        self._pages = _lines(request, b"origin")
        if (reason := self.refusal_by(self._origins)) is not None:
            raise HandshakeError(reason, HTTPStatus.FORBIDDEN)
        if not isinstance(self._http.next_event(), h11.EndOfMessage):
            raise HandshakeError("the request has a body")
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(key).decode()),
        ]
        if subprotocols:
            headers.append(("Sec-WebSocket-Protocol", SUBPROTOCOL))
        status = HTTPStatus.SWITCHING_PROTOCOLS
        self._send(
            h11.InformationalResponse(status_code=status, headers=headers, reason=status.phrase)
        )
        return True

    def refusal_by(self, allowed: Sequence[str]) -> str | None:
        """Why the web page that asks is refused if *allowed* are the origins; None if it is not."""
        for origin in self._pages:
            if not may_connect(origin, self._host, allowed, self._names):
                return f"a page of '{origin}' may not connect (see the option 'origins')"
        return None

    def _refuse(self, error: HandshakeError) -> None:
        connection = "close"
        if error.status is HTTPStatus.UPGRADE_REQUIRED:
            connection = "Upgrade, close"  # RFC 9110, 7.8: Connection must list Upgrade
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Connection", connection),
            ("Content-Length", "0"),
            *error.headers,
        ]
        self._send(
            h11.Response(status_code=error.status, headers=headers, reason=error.status.phrase)
        )
        self._send(h11.EndOfMessage())


class ClientHandshake(Handshake):
    """Requests a path."""

    side = CLIENT

    def __init__(self, host: str, path: str | None = None) -> None:
        """*host* goes into the Host header; *path* may have a query, and None is ``/``."""
        super().__init__(h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD))
        self._key = generate_nonce()
        headers = [
            ("Host", host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", self._key.decode()),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
        ]
        self._send(h11.Request(method="GET", target=path or "/", headers=headers))
        self._send(h11.EndOfMessage())

    def _take_head(self) -> bool:
        while True:
            answer = self._http.next_event()
            if not isinstance(answer, h11.Response | h11.InformationalResponse):
                return False
            if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                _check_answer(answer, self._key)
                return True
            if isinstance(answer, h11.Response):
                reason = bytes(answer.reason).decode("latin-1")
                raise HandshakeError(f"the server answers {answer.status_code} {reason}".rstrip())


def path_of(request: h11.Request) -> str:
    """The path of *request*, without its query."""
    target = request.target.decode("latin-1").partition("?")[0]
    absolute = _ABSOLUTE.match(target)  # the form that proxies get (RFC 9112, 3.2.2)
    return target if absolute is None else target[absolute.end() :] or "/"


def _check_request(request: h11.Request) -> tuple[bytes, list[bytes]]:
    """Return the key and the sub-protocols of a request. Raises HandshakeError."""
    if request.method != b"GET":
        status = HTTPStatus.METHOD_NOT_ALLOWED
        raise HandshakeError("the method is not GET", status, [("Allow", "GET")])
    if request.http_version != b"1.1" or not _upgrades(request):
        raise _upgrade_required("the request is for no WebSocket")
    if _values(request, b"sec-websocket-version") != [b"13"]:
        raise _upgrade_required("the version of WebSocket is not 13")
    keys = _values(request, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeError("Sec-WebSocket-Key is not 16 bytes in base64")
    subprotocols = _values(request, b"sec-websocket-protocol")
    if subprotocols and SUBPROTOCOL.encode() not in subprotocols:
        raise HandshakeError(f"the sub-protocols do not contain '{SUBPROTOCOL}'")
    return keys[0], subprotocols


def _check_answer(answer: h11.Response | h11.InformationalResponse, key: bytes) -> None:
    """Raise HandshakeError if the response does not accept the handshake (RFC 6455, 4.1)."""
    if not _upgrades(answer):
        raise HandshakeError("the server switches to something else")
    if _values(answer, b"sec-websocket-accept") != [generate_accept_token(key)]:
        raise HandshakeError("the server's Sec-WebSocket-Accept is wrong")
    if _values(answer, b"sec-websocket-extensions"):
        raise HandshakeError("the server uses an extension that it was not offered")
    if _values(answer, b"sec-websocket-protocol") not in ([], [SUBPROTOCOL.encode()]):
        raise HandshakeError("the server uses a sub-protocol that it was not offered")


def _upgrade_required(reason: str) -> HandshakeError:
    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    return HandshakeError(reason, HTTPStatus.UPGRADE_REQUIRED, headers)


def _upgrades(head: h11.Request | h11.Response | h11.InformationalResponse) -> bool:
    upgrade, connection = (
        [value.lower() for value in _values(head, name)] for name in (b"upgrade", b"connection")
    )
    return b"websocket" in upgrade and b"upgrade" in connection


def _values(
    head: h11.Request | h11.Response | h11.InformationalResponse, name: bytes
) -> list[bytes]:
    """The elements of a header that is a list, in one line or several."""
    lines = [value for found, value in head.headers if found == name]
    members = [member.strip() for line in lines for member in line.split(b",")]
    return [member for member in members if member]


def _lines(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in request.headers if found == name]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
