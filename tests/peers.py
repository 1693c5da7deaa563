"""The programs that tests talk to.

QEMU 7.2's monitors have a race at start: to a client that is in the queue already they may
greet twice, or drop it. So they are started with ``wait=on``.
"""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """Return the path of *program*; else skip the test, or fail where peers are required."""
    if path := shutil.which(program):
        return path
    if os.environ.get("TRIO_CHARDEV_REQUIRE_PEERS") == "1":
        pytest.fail(f"{program} is not installed, and TRIO_CHARDEV_REQUIRE_PEERS=1")
    pytest.skip(f"{program} is not installed")
