"""The QMP commands about the service's log."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.server.session import QmpError
from trio_chardev.service_log.areas import AREAS, Levels, level_name
from trio_chardev.service_log.options import HasLevels


@attrs.frozen(kw_only=True)
class LogLevelArguments:
    """Arguments of log-level-set."""

    levels: str
    """As ``--log-level`` takes them; what is not named gets the default."""


@attrs.frozen(kw_only=True)
class AreaLevel:
    """From which level on one area is logged."""

    area: str
    level: str


@attrs.frozen(kw_only=True)
class LogLevel:
    """What query-log-level returns."""

    levels: str
    """As ``--log-level`` takes them."""
    areas: tuple[AreaLevel, ...]


def log_level_set(context: Context, arguments: LogLevelArguments) -> dict[str, Any]:
    """Set from which level on the areas of the service's log are logged."""
    levels = Levels.parse(arguments.levels)
    _log_of(context).set_levels(levels)
    return {}


def query_log_level(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Show from which level on the areas of the service's log are logged."""
    levels = _log_of(context).levels
    rows = [AreaLevel(area=area, level=level_name(levels.of(area))) for area in AREAS]
    result: dict[str, Any] = unstructure(LogLevel(levels=str(levels), areas=tuple(rows)))
    return result


def _log_of(context: Context) -> HasLevels:
    log = context.host.log
    if log is None:
        raise QmpError("The log is not this service's: it is the program's that runs it")
    return log


SERVICE_LOG_COMMANDS: dict[str, Command] = {
    "log-level-set": Command(LogLevelArguments, log_level_set),
    "query-log-level": Command(NoArguments, query_log_level, LogLevel),
}
