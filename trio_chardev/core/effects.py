"""What a commit has told to others: not by itself, but by whoever had it done, afterwards."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import ParamSpec

import attrs

log = logging.getLogger(__name__)
P = ParamSpec("P")


@attrs.define(eq=False)
class Effects:
    """Calls to be made, in order, once the state that they tell of is whole."""

    _calls: deque[Callable[[], None]] = attrs.Factory(deque)

    def add(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have *call* made with these arguments, behind those that were added before."""
        self._calls.append(lambda: call(*args, **kwargs))

    def run(self) -> None:
        """Make the calls, also those that they add. One that raises is logged."""
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                log.exception("what a change has told somebody failed")
