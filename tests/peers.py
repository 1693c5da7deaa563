"""The programs that tests talk to.

QEMU 7.2's monitors have a race at start: to a client that is in the queue already they may
greet twice, or drop it. So they are started with ``wait=on``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

LOOPBACK = "127.0.0.1"


def need(program: str) -> str:
    """Return the path of *program*; else skip the test, or fail where peers are required."""
    if path := shutil.which(program):
        return path
    if os.environ.get("TRIO_CHARDEV_REQUIRE_PEERS") == "1":
        pytest.fail(f"{program} is not installed, and TRIO_CHARDEV_REQUIRE_PEERS=1")
    pytest.skip(f"{program} is not installed")


def free_port() -> str:
    """Return a TCP port of this host that nobody uses now."""
    with socket.create_server((LOOPBACK, 0)) as sock:
        return str(sock.getsockname()[1])


@asynccontextmanager
async def program(*argv: str) -> AsyncIterator[None]:
    """Run a program as long as the block."""
    process = await trio.lowlevel.open_process(argv, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()


def ser2net_argv(config: str, folder: Path) -> list[str]:
    """Write *config* into *folder*; return the command that runs ser2net with it."""
    path = folder / "ser2net.yaml"
    path.write_text(config)
    return [need("ser2net"), "-d", "-u", "-c", str(path), "-P", str(folder / "pid")]


@asynccontextmanager
async def ser2net(accepter: str, connector: str, folder: Path) -> AsyncIterator[None]:
    """Let ser2net join the two, for one client at a time."""
    config = f"connection: &c\n  accepter: {accepter}\n  connector: {connector}\n"
    async with program(*ser2net_argv(config, folder)):
        with trio.fail_after(30):  # noqa: ASYNC100 - the block waits
            yield
