"""Shortages of the service, for seconds at a time: of threads, descriptors, watches.

All of them have limits of the kernel's. Those of threads and watches are a user's; so that nobody
else goes short the service runs as a user of its own, if we are root, but with the rights that
its files need. Watches are taken by another process of that user, `hog`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import subprocess
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.soak.meter import Service
from tests.soak.places import INET, backend, check_refusal, listening
from trio_chardev import QmpClient, QmpError
from trio_chardev.workers import NoThreadError

LONGEST_SPELL: Final = 15.0  # seconds; a worker thread that has nothing to do ends after 10
LONGEST_PAUSE: Final = 4.0  # seconds between two
UID: Final = 10_000_000 + os.getpid()  # a user id that nobody else has
RIGHTS: Final = "+dac_override,+dac_read_search,+fowner"
AS_ANOTHER: Final = (
    *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
    *(f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"),
)
ARE_WE_ROOT: Final = os.geteuid() == 0
PREFIX: Final = AS_ANOTHER if ARE_WE_ROOT else ()
"""For threads, whose number is not limited for root."""


class Shortage:
    """A shortage of one resource; the base class."""

    prefix: Sequence[str] = ()
    """The command before the service's."""
    words = ""
    """What the service's log says about it."""

    def __init__(self, service: Service) -> None:
        self._pid = service.process.pid

    @contextlib.asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """Prepare, around all spells."""
        yield

    @abstractmethod
    async def begin(self) -> None:
        """Take the resource away."""

    @abstractmethod
    async def end(self) -> None:
        """Give it back."""


class Threads(Shortage):
    """No thread can be started: RLIMIT_NPROC, which only clone(2) checks."""

    prefix = PREFIX
    words = str(NoThreadError())

    async def begin(self) -> None:
        await self._limit(0)

    async def end(self) -> None:
        await self._limit(resource.getrlimit(resource.RLIMIT_NPROC)[0])  # it has inherited ours

    async def _limit(self, most: int) -> None:
        """Limit it as its own user: for other users' processes root needs CAP_SYS_RESOURCE."""
        command = [*self.prefix, "prlimit", f"--pid={self._pid}", f"--nproc={most}:"]
        await trio.run_process(command)


class Descriptors(Shortage):
    """No descriptor is free but what is closed meanwhile: RLIMIT_NOFILE."""

    words = os.strerror(errno.EMFILE)

    async def begin(self) -> None:
        self._before = resource.prlimit(self._pid, resource.RLIMIT_NOFILE)
        taken = set(os.listdir(f"/proc/{self._pid}/fd"))
        free = next(number for number in itertools.count() if str(number) not in taken)
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (free, self._before[1]))

    async def end(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, self._before)


class Watches(Shortage):
    """Neither epoll nor inotify has room for another watch."""

    prefix = AS_ANOTHER
    words = os.strerror(errno.ENOSPC)

    @contextlib.asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        if not ARE_WE_ROOT:
            raise SystemExit("The watches of a user of its own can be taken by root only")
        command = [*self.prefix, sys.executable, "-m", "tests.soak.hog"]
        self._hog = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield
        finally:
            self._hog.kill()
            with trio.CancelScope(shield=True):
                await self._hog.wait()

    async def begin(self) -> None:
        await self._tell(b"take\n")

    async def end(self) -> None:
        await self._tell(b"give\n")

    async def _tell(self, word: bytes) -> None:
        assert self._hog.stdin is not None
        assert self._hog.stdout is not None
        await self._hog.stdin.send_all(word)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += (piece := await self._hog.stdout.receive_some())
            if not piece:
                raise RuntimeError("the hog has ended")


SHORTAGES: Final = {cls.__name__.lower(): cls for cls in (Threads, Descriptors, Watches)}


@attrs.define(eq=False)
class Spells:
    """Causes shortages again and again, and checks that the service reports and survives them."""

    shortage: Shortage
    qmp: QmpClient
    folder: Path
    chance: random.Random
    counts: Counter[str]

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Cause shortages until *is_over*."""
        async with self.shortage.ready():
            while not is_over():
                await trio.sleep(self.chance.uniform(0.1, LONGEST_PAUSE))
                await self.shortage.begin()
                try:
                    await self._go_short()
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                        await self.shortage.end()
                self.counts["spells"] += 1
                await self._be_over_it()

    async def _go_short(self) -> None:
        """Ask for what may be refused, with one line that says why."""
        with trio.move_on_after(self.chance.uniform(0.1, LONGEST_SPELL)):
            while True:
                for added in self._wanted():
                    try:
                        await self._add_and_remove(added)
                    except QmpError as exc:
                        check_refusal(exc)
                        self.counts["chardevs refused meanwhile"] += 1
                    else:
                        self.counts["chardevs added meanwhile"] += 1
                await trio.sleep(0.1)

    async def _be_over_it(self) -> None:
        """Check that what was refused is done at once now."""
        for added in self._wanted():
            await self._add_and_remove(added)

    async def _add_and_remove(self, added: dict[str, Any]) -> None:
        with trio.CancelScope(shield=True):  # the spell ends between two commands
            await self.qmp.execute("chardev-add", id="short", backend=added)
            await self.qmp.execute("chardev-remove", id="short")

    def _wanted(self) -> list[dict[str, Any]]:
        path = self.folder / "short"
        return [
            backend("file", out=str(path), logfile=f"{path}.log", record=f"{path}.cast"),
            backend("ringbuf", size=4096, path=f"{path}.ring"),
            backend("pty", path=f"{path}.pty"),
            listening(INET),
            listening({"type": "unix", "data": {"path": f"{path}.sock"}}),
        ]
