"""What query-version and the greeting say."""

from __future__ import annotations

from typing import Any, Final

from trio_chardev.version import __version__

# Clients look at "qemu" to know what the monitor can do, so it names the QEMU whose QMP this
# is; "package" is where vendors put their own.
VERSION: Final[dict[str, Any]] = {
    "qemu": {"major": 7, "minor": 2, "micro": 22},
    "package": f"trio-chardev {__version__}",
}
