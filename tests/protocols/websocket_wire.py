"""Hand-made bytes of a WebSocket's wire."""

from __future__ import annotations

import struct

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
FIN, CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0, 1, 2, 8, 9, 10


def request(line: bytes = b"GET / HTTP/1.1", more: bytes = b"", **changes: bytes | None) -> bytes:
    """Make a request with *changes*; a header that is None is left out."""
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
    """Make a frame of a client, or with an empty *mask* of a server."""
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
