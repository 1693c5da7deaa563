"""What every kind of backend takes."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import attrs

from trio_chardev.options.documented import Documented
from trio_chardev.options.values import path_text_or_none


@attrs.frozen(kw_only=True)
class BackendOptions(Documented):
    """The options that every kind of backend has (QAPI's ChardevCommon)."""

    logfile: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File to which the traffic is copied; log says in which direction."""

    log: Literal["out", "in", "both"] = "out"
    """What the log file gets: out is what is written to the backend, so where a bridge joins a
    board to its users it is, at the board's chardev, what they type; in is what comes from the
    backend, which is what a board there says."""

    logappend: bool = False
    """Append to the log file instead of beginning a new one."""

    logtimestamp: bool = False
    """Begin each line of the log file with the time, see log-time; as log-format=timestamp."""

    log_format: Literal["raw", "timestamp", "json", "hexdump"] | None = None
    """Format of the log file: the bytes, lines that begin with the time, a JSON object for each
    line, or rows of a hex dump with the time. The default is raw."""

    log_time: Literal["utc", "local"] = "utc"
    """The times in the log file: in UTC, or local with the offset."""

    log_events: bool = False
    """Note in the log file, as ``[trio-chardev: OPENED]``, who comes and goes, breaks, changes."""

    log_strip: bool = False
    """Leave control sequences out of the log file."""

    record: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File in which all traffic is recorded with its times, for asciinema."""

    record_format: Literal["asciicast-v2", "asciicast-v3"] | None = None
    """Format of the recording; v3 is for asciinema 3 only. The default is asciicast-v2."""

    log_mode: str | None = None
    """Permissions of a new log file, in octal, less the umask; the default is 0600."""

    log_max: int | None = None
    """Largest size of the log file in bytes; what would exceed it is left out, and counted."""

    log_rotate: int | None = None
    """Size in bytes at which the log file becomes FILE.1, and a new one begins."""

    log_rotate_age: int | None = None
    """Seconds after which the log file becomes FILE.1, when something more is to be written."""

    log_keep: int | None = None
    """How many old log files to keep, FILE.1 to FILE.N; the default is 1, with rotation 5. What
    would truncate the log file makes it FILE.1 instead; with 0 it is truncated."""

    record_mode: str | None = None
    """Permissions of a new recording, in octal, less the umask; the default is 0600."""

    record_max: int | None = None
    """Largest size of the recording in bytes; what would exceed it is left out, and counted."""

    rr: Literal["record", "play"] | None = None
    """Deterministic: it records, or replays, so it can be neither changed nor removed."""

    plays: ClassVar[bool] = False
    """Does this kind play a recording as its input?"""

    @property
    def meant(self) -> BackendOptions:
        """Those that were asked for: itself, unless it stands in for what can't open yet."""
        return self

    def check(self) -> None:
        """Raise OptionsError for values that make no sense, whatever they would open."""

    def at_start(self) -> Self:
        """What a service that starts opens for these options of its command line.

        Where an option's default depends on that, a kind overrides this.
        """
        return self

    def when_restored(self) -> Self:
        """What a service that starts opens for these options of its state file.

        Nobody waits for the answer, so it must not wait for a peer, as that holds up the rest.
        """
        return self.at_start()

    @property
    def stands_on(self) -> tuple[str, ...]:
        """The ids of the chardevs that it uses, as a mux does."""
        return ()

    @property
    def again(self) -> Self | None:
        """With which options to open the same again at once; None if that can't be.

        What is in its files by then must stay.
        """
        return attrs.evolve(self, logappend=True) if self.logfile is not None else self

    @property
    def open_timeout(self) -> float:
        """Seconds that opening may take, if the caller does not say."""
        return 30.0
