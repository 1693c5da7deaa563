"""The options of the service's log, of the command line and of configuration files."""

from __future__ import annotations

from typing import Final, Literal, Protocol, get_args

import attrs

from trio_chardev.errors import OptionsError
from trio_chardev.service_log.areas import Levels

AnyForm = Literal["auto", "text", "json", "journal"]
FORMS: Final[tuple[str, ...]] = get_args(AnyForm)


@attrs.frozen
class LogOptions:
    """What was said about the log; None is for what was not."""

    levels: Levels | None = None
    form: AnyForm | None = None

    @classmethod
    def parse(cls, level: str | None = None, form: str | None = None) -> LogOptions:
        """Parse what ``--log-level`` and ``--log-format`` take. Raises OptionsError."""
        for known in get_args(AnyForm):
            if form in (None, known):
                levels = None if level is None else Levels.parse(level)
                return cls(levels, None if form is None else known)
        raise OptionsError(f"there is no format '{form}': there are {', '.join(FORMS)}")

    def over(self, other: LogOptions) -> LogOptions:
        """These, and of *other* what they do not say."""
        return LogOptions(self.levels or other.levels, self.form or other.form)


class HasLevels(Protocol):
    """A log whose levels can be changed while it is written."""

    levels: Levels

    def set_levels(self, levels: Levels) -> None:
        """Log from these levels on."""
