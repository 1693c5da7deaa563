"""What all tests share."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

# The same examples each time, however long one takes; a test may ask for others.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

FEWEST, MOST = 2, 4
"""Processes that run the tests. On one processor two are quicker, too: much of it is waiting."""


def pytest_collection_finish() -> None:
    """What the tests are made of stays: a full collection need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Have several processes run the tests, if pytest-xdist is there and nothing else is asked for.

    Not the tests of a few files: to start the processes takes longer. ``-n 0`` is one process.
    """
    is_worker = hasattr(config, "workerinput")
    if is_worker or getattr(config.option, "numprocesses", 0) is not None or config.option.usepdb:
        return
    if all(name.partition("::")[0].endswith(".py") for name in config.args):
        return
    config.option.numprocesses = max(FEWEST, min(MOST, len(os.sched_getaffinity(0))))
    if config.option.dist == "no":
        config.option.dist = "worksteal"
