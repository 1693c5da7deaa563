"""QMP events as lines of the service's log, whether or not there is a client to be told."""

from __future__ import annotations

import logging
from typing import Final

from trio_chardev import notices
from trio_chardev.options.members import flat_json
from trio_chardev.qmp.server.events import name_of

FIELDS: Final = {"id": "chardev", "path": "qom-path"}
"""Members of events that the log has under another name."""

_CONSOLE: Final = (
    notices.ChardevClientAttached,
    notices.ChardevClientDetached,
    notices.ChardevClientTold,
    notices.ChardevWriterChanged,
    notices.ChardevMark,
)
_console_log: Final = logging.getLogger("trio_chardev.backends.console")
_chardev_log: Final = logging.getLogger("trio_chardev.core")
_device_log: Final = logging.getLogger("trio_chardev.devices")
_service_log: Final = logging.getLogger("trio_chardev.service")


def log_event(event: object) -> None:
    """Log *event*, with its members as fields."""
    log = _log_of(event)
    if log.isEnabledFor(logging.INFO):
        name = name_of(event)
        fields = {"event": name} | {
            FIELDS.get(key, key): value
            for key, value in flat_json(event).items()
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
        # The name and the chardev make the cause, by which the log is limited.
        log.info(event, extra={"fields": fields, "cause": (name, fields.get("chardev", ""))})


def _log_of(event: object) -> logging.Logger:
    if isinstance(event, _CONSOLE):
        return _console_log
    if isinstance(event, notices.DeviceDeleted):
        return _device_log
    return _chardev_log if name_of(event).startswith("CHARDEV_") else _service_log
