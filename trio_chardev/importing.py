"""Imports what is imported when it is used, before that: see `trio_chardev.options.lazy`.

An import reads files, which may be slow, and takes a descriptor. A running service does it in threads.
"""

from __future__ import annotations

import logging
import pkgutil
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from trio_chardev.errors import reason_of
from trio_chardev.workers import run_in_worker

log = logging.getLogger(__name__)

PARTS: Final = (
    *("access", "backends", "config", "core", "devices", "metrics", "options", "protocols"),
    *("qmp", "service_log"),
)
"""The packages in which there is something to be used later."""


NEEDS_AN_EXTRA: Final = "trio_chardev.metrics.rendering"
"""Is imported, in a thread, where there are metrics."""


def modules() -> Iterator[str]:
    """The names of all modules of those packages that any installation can import."""
    for part in PARTS:
        package = import_module(f"trio_chardev.{part}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != NEEDS_AN_EXTRA:
                yield module.name


def import_the_rest() -> None:
    """Import all of them. What can't be imported is told; only without resources it is tried again.

    Threads that want that at the same time wait for the first.
    """
    with _lock:
        if not _is_done:
            _import_all()


def _import_all() -> None:
    global _is_done
    try:
        for name in modules():
            try:
                import_module(name)
            except OSError:
                raise
            except Exception as exc:  # somebody is replacing the package
                log.warning("'%s' can't be imported: %s", name, exc)
    except Exception as exc:  # such as for want of descriptors
        log.warning("not all of the program can be imported yet: %s", reason_of(exc))
    else:
        _is_done = True


_is_done = False
_lock = threading.Lock()


def is_done() -> bool:
    """Are all of them imported?"""
    return _is_done


async def have_all() -> None:
    """Have a thread import all of them, unless that was done; without threads do it here."""
    if not _is_done:
        try:
            await run_in_worker(import_the_rest)
        except OSError:
            import_the_rest()
