"""The programs that tests talk to."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """The path of *program*; without it the test is skipped, or fails where peers are required."""
    if path := shutil.which(program):
        return path
    if os.environ.get("TRIO_CHARDEV_REQUIRE_PEERS") == "1":
        pytest.fail(f"{program} is not installed, and TRIO_CHARDEV_REQUIRE_PEERS=1")
    pytest.skip(f"{program} is not installed")
