"""What is below calls what is above it, and does not keep it.

So a chardev that is removed is freed at once, with a ring of a GiB perhaps, and not when the garbage
collector comes, which is rare in a service.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


def weakly(function: Callable[..., None], *objects: Any) -> Callable[..., None]:
    """Make *function* one of fewer arguments: *objects*, which it does not keep, are the first.

    When one of them is gone it does nothing.
    """
    references = [weakref.ref(one) for one in objects]

    def call(*arguments: Any) -> None:
        first = [reference() for reference in references]
        if not any(one is None for one in first):
            function(*first, *arguments)

    return call
