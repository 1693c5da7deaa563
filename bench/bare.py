"""``python -m bench.bare PORT=TERMINAL ...``: a relay of Trio's low-level calls and nothing else.

It shows what Trio costs: no queue, no change, no history, no limit, and no error is handled.
"""

from __future__ import annotations

import os
import socket
import sys

import trio
from trio.lowlevel import wait_readable

READ_SIZE = 1 << 16  # bytes
HOST = "127.0.0.1"


async def join(terminal: int, listener: socket.socket) -> None:
    """Relay between *terminal* and the first client that comes."""
    await wait_readable(listener)
    client = listener.accept()[0]
    client.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(type_keys, client, terminal)
        while True:
            await wait_readable(terminal)
            client.send(os.read(terminal, READ_SIZE))


async def type_keys(client: socket.socket, terminal: int) -> None:
    """Pass on what the client sends, until he leaves."""
    while True:
        await wait_readable(client)
        if not (data := client.recv(READ_SIZE)):
            break
        os.write(terminal, data)


async def main(pairs: list[str]) -> None:
    """Join each pair of a port and a terminal."""
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            port, _, path = pair.partition("=")
            terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            listener = socket.create_server((HOST, int(port)))
            listener.setblocking(False)
            nursery.start_soon(join, terminal, listener)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
