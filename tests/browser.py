"""A browser that shows one page: headless Chromium, with its own profile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.peers import need

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--no-proxy-server"),
)
PATIENCE = 40.0  # seconds, as it is large, and the machine may be busy


@asynccontextmanager
async def showing(page: str, folder: Path) -> AsyncIterator[None]:
    """Show *page*, an HTML document whose scripts run, during the block."""
    path = folder / "page.html"
    path.write_text(page)
    argv = [need("chromium"), *FLAGS, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    process = await trio.lowlevel.open_process(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        with trio.fail_after(PATIENCE):  # noqa: ASYNC100 - the block waits
            yield
    finally:
        process.terminate()  # it ends its helpers, which SIGKILL would leave behind
        with trio.fail_after(10, shield=True):
            await process.wait()
