"""Calls to others that a commit collects, and its caller makes afterwards."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import ParamSpec

import attrs

log = logging.getLogger(__name__)
P = ParamSpec("P")


@attrs.define(eq=False, repr=False)
class Effects:
    """Calls to make, in order, once the state that they report is whole."""

    _calls: deque[Callable[[], None]] = attrs.Factory(deque)

    def add(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call of *call* with these arguments, after those that were added before."""
        self._calls.append(lambda: call(*args, **kwargs))

    def run(self) -> None:
        """Make the calls, and those that they add. If one raises, that is logged."""
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                log.exception("what a change has told somebody failed")
