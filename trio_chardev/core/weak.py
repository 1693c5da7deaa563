"""Lets a lower layer call a higher one without keeping it alive.

So a chardev that is removed is freed at once, perhaps with a ring of a GiB, and not when the
garbage collector runs, which is rarely in a service.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class weakly:  # noqa: N801 - used as a function is; a closure would take four times the memory
    """Binds *objects* as the first arguments of *function*, without keeping them alive.

    When one of them is gone, a call does nothing.
    """

    __slots__ = ("_function", "_references")

    def __init__(self, function: Callable[..., None], *objects: Any) -> None:
        self._function = function
        self._references = tuple(map(weakref.ref, objects))

    def __call__(self, *arguments: Any) -> None:
        first = []
        for reference in self._references:
            if (one := reference()) is None:
                return
            first.append(one)
        self._function(*first, *arguments)
