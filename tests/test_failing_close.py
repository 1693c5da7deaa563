"""Errors of close(2), for a descriptor that only locks, or holds a folder, bother nobody."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trio_chardev.place import FOLDER, Place
from trio_chardev.qmp.server.state import open_state_file


def test_a_close_that_fails_ends_no_state_file_and_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        with open_state_file(str(tmp_path / "state")):
            pass
        for name in ("a", "b"):
            Place(os.open(tmp_path, FOLDER), str(tmp_path / name)).close()
