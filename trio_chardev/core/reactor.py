"""One epoll for all descriptors whose input is read by a function: no task is woken for a line.

To wake a task costs as much as to pass a line on: Trio has the descriptor armed anew each time,
epoll_ctl(2), and the wake-up passes through all coroutines that the task is in. So a task that waits
here leaves a `Look`, which is called whenever something has come, until it has work for the task.

The epoll is level-triggered, so nothing has to be armed anew. Edges would save the kernel another
look, but a read may leave something though it gave little: a terminal in canonical mode gives one
line, and a UNIX socket what came with one descriptor.

Trio waits for the epoll as for any descriptor, in one task for all. A descriptor is in it just as
long as its task waits here: whoever closes it calls `notify_closing` first, as for Trio.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio
from trio.lowlevel import Abort, RaiseCancelT, RunVar, Task, enable_ki_protection

from trio_chardev.readiness import wait_readable

log = logging.getLogger(__name__)

Look = Callable[[], bool]
"""Reads what has come. Is all that is left to do to wait for more? It must not wait."""

AT_ONCE = 16  # looks, of 25 to 50 us each; then other tasks run


@attrs.define(eq=False)
class _Waiting:
    """A task that waits."""

    task: Task
    look: Look
    error: BaseException | None = None
    """What the look has raised."""


class Reactor:
    """Calls the looks of the tasks that wait; one for each run of Trio."""

    def __init__(self) -> None:
        """Begin. Raises OSError if there is no descriptor to spare."""
        self._epoll = select.epoll()
        self._waiting: dict[int, _Waiting] = {}
        self._is_over = False
        trio.lowlevel.spawn_system_task(self._run)

    @enable_ki_protection
    async def wait(self, fd: int, look: Look) -> bool:
        """Wait as `wait_and_look`."""
        if self._is_over:
            return False
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except (OSError, ValueError):  # no room, a file of a kind that can't be waited for, closed
            return False
        waiting = self._waiting[fd] = _Waiting(trio.lowlevel.current_task(), look)

        def leave(_: RaiseCancelT) -> Abort:
            self._remove(fd)
            return Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(leave)
        finally:
            if waiting.error is not None:  # which may have come with a cancellation
                raise waiting.error
        return True

    def wake(self, fd: int) -> None:
        """Wake the task that waits for *fd*, if there is one."""
        if fd in self._waiting:
            trio.lowlevel.reschedule(self._remove(fd).task)

    def _remove(self, fd: int) -> _Waiting:
        with suppress(OSError, ValueError):  # it was closed without a word, or the run is over
            self._epoll.unregister(fd)
        return self._waiting.pop(fd)

    async def _run(self) -> None:
        """Call the looks. A descriptor that one of them closes is not looked at any more."""
        poll, all_waiting, own_fd = self._epoll.poll, self._waiting, self._epoll.fileno()
        try:
            while True:
                try:
                    await trio.lowlevel.wait_readable(own_fd)
                except OSError:
                    await wait_readable(self._epoll)  # now and then, if there is no room
                for fd, _ in poll(0, AT_ONCE):
                    if (waiting := all_waiting.get(fd)) is not None:
                        try:
                            if waiting.look():
                                continue
                        except BaseException as exc:  # noqa: ASYNC103 - the task that waits raises it
                            waiting.error = exc
                        if all_waiting.get(fd) is waiting:
                            self.wake(fd)
        except Exception:
            log.exception("input is waited for by each task on its own from now on")
        finally:
            self._is_over = True
            for fd in list(all_waiting):
                self.wake(fd)
            self._epoll.close()


_reactor_of_run: RunVar[Reactor | None] = RunVar("reactor")


def get_reactor() -> Reactor | None:
    """Return that of this run of Trio, which stays to its end; None without a descriptor to spare."""
    reactor = _reactor_of_run.get(None)
    if reactor is None:
        with suppress(OSError):
            reactor = Reactor()
            _reactor_of_run.set(reactor)
    return reactor


async def wait_and_look(fd: int, look: Look) -> bool:
    """Wait until *look* returns False; it is called whenever *fd* is readable. Raises what it raises.

    Also returns when `notify_closing` says that *fd* is about to be closed. Returns False, at once, if
    nobody can wait here for *fd*. When Cancelled, it is not called any more.
    """
    reactor = get_reactor()
    return reactor is not None and await reactor.wait(fd, look)


def notify_closing(fd: int) -> None:
    """Wake the tasks that wait for *fd*, which is about to be closed, here or in Trio."""
    trio.lowlevel.notify_closing(fd)
    if (reactor := _reactor_of_run.get(None)) is not None:
        reactor.wake(fd)
