"""A system that starts no threads, or whose threads die as they begin."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import Any

import pytest

from trio_chardev import workers


class Threads:
    """Stands between the workers and the system. At first it starts threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        """What an attempt to start one raises."""
        self.are_dying = False
        """They begin, and end at once."""
        self.asked = 0
        self._pool = workers.Pool(self._start)
        monkeypatch.setattr(workers, "POOL", self._pool)

    def run_out(self) -> None:
        """Have none from now on, nor an idle one."""
        self._pool._idle.clear()
        self.error = RuntimeError("can't start new thread")

    def begin_again(self) -> None:
        """Have the one that died at last begin, as if it had only been late."""
        _thread.start_new_thread(*self._last)

    def _start(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self._last = function, arguments
        if not self.are_dying:
            _thread.start_new_thread(function, arguments)
