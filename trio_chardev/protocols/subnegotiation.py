"""What telnet decodes and does not understand itself."""

from __future__ import annotations

import attrs


@attrs.frozen(repr=False)
class Subnegotiation:
    """A subnegotiation that the peer has sent (RFC 855)."""

    option: int
    data: bytes
