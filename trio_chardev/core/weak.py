"""Lets a lower layer call a higher one without keeping it alive.

So a chardev that is removed is freed at once, perhaps with a ring of a GiB, and not when the
garbage collector runs, which is rarely in a service.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


def weakly(function: Callable[..., None], *objects: Any) -> Callable[..., None]:
    """Bind *objects* as the first arguments of *function*, without keeping them alive.

    When one of them is gone, the result does nothing.
    """
    references = [weakref.ref(one) for one in objects]

    def call(*arguments: Any) -> None:
        first = [reference() for reference in references]
        if not any(one is None for one in first):
            function(*first, *arguments)

    return call
