"""Where to listen, in one word: a port, a host with a port, a path or an inherited socket."""

from __future__ import annotations

import re
from typing import Final

LOOPBACK: Final = "127.0.0.1"
ALL: Final = "*"

HOW_TO_LISTEN: Final = (
    "PORT listens at 127.0.0.1, *:PORT at all addresses, /PATH at a UNIX socket, fd:NAME at an "
    "inherited one"
)

_HOST_PORT: Final = re.compile(r"(?:(?P<host>[^:/\[\]]+|\[[^\]/]+\]):)?(?P<port>[A-Za-z0-9-]+)")


def read_where(text: str) -> dict[str, str]:
    """Return the options that *text* stands for, such as `host` and `port`; none if it is no place."""
    for kind in ("fd", "vsock"):
        if text.startswith(f"{kind}:"):
            return {kind: text.removeprefix(f"{kind}:")}
    if "/" in text:
        return {"path": text.removeprefix("unix:")}
    if (found := _HOST_PORT.fullmatch(text)) is None:
        return {}
    host = LOOPBACK if found["host"] is None else found["host"].strip("[]")
    return {"host": "" if host == ALL else host, "port": found["port"]}
