"""The folders that systemd makes for a service."""

from __future__ import annotations

import os
from pathlib import Path


def made_by_systemd(what: str) -> Path | None:
    """The folder that systemd has made for this service, or None.

    *what* is RUNTIME, STATE, CONFIGURATION or CREDENTIALS, see systemd.exec(5). Of several it is the first.
    """
    folder = os.environ.get(f"{what}_DIRECTORY", "").partition(":")[0]
    return Path(folder) if os.path.isabs(folder) else None
