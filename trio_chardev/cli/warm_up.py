"""Imports what a service has not used yet, once it has run for a moment.

So nobody who uses a kind or a command first waits for its import, which takes up to 20 ms, and a
service that runs on while the package is replaced by another version has all of its own. A thread
imports, which lets the event loop go on every 5 ms (sys.getswitchinterval).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Final

import trio

from trio_chardev.workers import run_in_worker

log = logging.getLogger(__name__)

DELAY = 5.0  # seconds; a service that ends before, as in a test, does without

PARTS: Final = (
    *("access", "backends", "config", "core", "devices", "metrics", "options", "protocols"),
    *("qmp", "service_log"),
)
"""The packages in which there is something to be used later."""


def modules() -> Iterator[str]:
    """The names of all modules of those packages."""
    for part in PARTS:
        package = import_module(f"trio_chardev.{part}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield module.name


def import_the_rest() -> None:
    """Import all of them, up to one that can't be imported, which is told."""
    for name in modules():
        try:
            import_module(name)
        except Exception as exc:  # somebody is replacing the package
            log.warning("'%s' can't be imported: %s", name, exc)
            return


async def warm_up() -> None:
    """Have a thread import all that is left, after `DELAY`."""
    await trio.sleep(DELAY)
    with contextlib.suppress(OSError):  # there is no thread to be had
        await run_in_worker(import_the_rest)
    gc.freeze()  # as at the start: what is imported stays
