"""A nursery for tasks that work for a block of code and end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that is cancelled when the block ends.

    What the block raises, KeyboardInterrupt too, comes out bare, not in a group: for that the tasks
    must not raise.
    """
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except trio.Cancelled:
            raise  # the nursery's, which knows of which scope it is
        except BaseException as exc:
            error = exc  # raised below, where the nursery does not see it
        finally:
            nursery.cancel_scope.cancel()
    if error is not None:
        raise error
