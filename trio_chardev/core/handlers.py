"""What a chardev calls of its user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from trio_chardev.core.controls import Controls
from trio_chardev.events import BackendEvent

BeChange = Callable[[Controls], Awaitable[None]]
"""Sets the frontend up for a backend: line settings, modem lines, echo. Raise to refuse it."""
OnEvent = Callable[[BackendEvent], None]
"""Is told OPENED, CLOSED, BREAK ..., in order with the bytes; must not block.

Also line settings and modem lines, from backends that see what the other end does to them.
"""
OnReceive = Callable[[bytes], int]
"""Takes bytes in the task that received them; returns how many. See `Frontend`."""


@attrs.frozen(kw_only=True)
class Handlers:
    """Those that `Chardev.attach` was given."""

    be_change: BeChange | None = None
    on_event: OnEvent | None = None
    on_receive: OnReceive | None = None
    on_open: Callable[[], None] = lambda: None
    """Is called at once when somebody has come, for who waits to send: *on_event* hears OPENED
    only when what had come before it was taken."""
    on_failure: Callable[[], None] = lambda: None
    """Is called when another of them has failed, and so the frontend was detached."""
    fe_open: Callable[[], bool] = lambda: True
    """Is it open in its turn? What query-chardev shows as frontend-open."""


async def stateless(backend: Controls) -> None:
    """The ``be_change`` of a frontend that needs no set-up: any backend will do."""
