"""The version that query-version and the greeting give."""

from __future__ import annotations

from typing import Any, Final

from trio_chardev.version import __version__

# Clients deduce from "qemu" what the monitor can do, so it is the version of QEMU whose QMP this
# is. "package" is for vendors.
VERSION: Final[dict[str, Any]] = {
    "qemu": {"major": 7, "minor": 2, "micro": 22},
    "package": f"trio-chardev {__version__}",
}
