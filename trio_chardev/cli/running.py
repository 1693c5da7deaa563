"""Running commands that are not services: until they are done, or a signal ends them."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import trio

from trio_chardev.cli.errors import STATUS_OF_INTERRUPT
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import OptionsError, strerror
from trio_chardev.garbage import collect_again
from trio_chardev.readiness import NO_ROOM

T = TypeVar("T")


def run(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run as trio.run; raise OptionsError if Trio lacks descriptors, or room in epoll, to start."""
    has_begun = False

    async def main() -> T:
        nonlocal has_begun
        has_begun = True
        collect_again()
        return await function(*arguments)

    try:
        return trio.run(main)
    except OSError as exc:
        if has_begun:
            raise
        raise OptionsError(f"Could not begin: {strerror(exc)}") from exc
    except trio.TrioInternalError as exc:  # raised by its first wait, when *function* begins
        error = _os_error_in(exc)
        if error is None or error.errno not in NO_ROOM:
            raise
        raise OptionsError(f"Could not begin: {strerror(error)}") from exc


def _os_error_in(error: BaseException | None) -> OSError | None:
    """Find the OSError that caused *error*."""
    if isinstance(error, OSError) or error is None:
        return error
    inner = [error.__cause__, *getattr(error, "exceptions", ())]
    return next(filter(None, map(_os_error_in, inner)), None)


def run_until_signal(
    function: Callable[[], Awaitable[T]], status_of_interrupt: int = STATUS_OF_INTERRUPT
) -> T:
    """Run *function* and return its result; raises what it raises.

    Ctrl-C and SIGTERM cancel it and end the program with *status_of_interrupt*.
    """
    results: list[T] = run(_run, function)
    if not results:
        sys.exit(status_of_interrupt)
    return results[0]


async def _run(function: Callable[[], Awaitable[T]]) -> list[T]:
    """Return a list with the result of *function*; it is empty after a signal."""
    results = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_background_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(_cancel_at_signal, signals, scope)
            with scope:
                results.append(await function())
    return results


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
