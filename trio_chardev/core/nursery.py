"""A nursery for background tasks of a block of code, which end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_chardev.errors import ChardevClosedError


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that is cancelled when the block ends.

    What the block raises, KeyboardInterrupt too, is raised bare, not in a group; for that the tasks
    must not raise. Raises RuntimeError outside of Trio, for example under asyncio.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError("This needs Trio: call it in a task, within trio.run()")
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except trio.Cancelled:
            raise  # for the nursery, which knows its scope
        except BaseException as exc:
            error = exc  # raised below, where the nursery does not see it
        finally:
            nursery.cancel_scope.cancel()
    if error is not None:
        raise error


def check_not_over(nursery: trio.Nursery, what: str) -> None:
    """Raise ChardevClosedError if the block in which *what* existed has ended."""
    if nursery.cancel_scope.cancel_called:
        raise ChardevClosedError(f"The {what} is closed: its 'async with' block is over")
