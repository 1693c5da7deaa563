"""What all tests share."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """What the tests are made of stays: a full collection need not walk it again and again."""
    gc.collect()
    gc.freeze()
