"""Which options about the recording contradict each other."""

from __future__ import annotations

from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions


def check_recording(options: BackendOptions) -> None:
    """Raise OptionsError if the options about recording contradict each other."""
    if options.rr == "record" and options.record is None:
        raise OptionsError("rr=record needs record=FILE")
    if options.record_format is not None and options.record is None:
        raise OptionsError("record-format needs record=FILE")
    if options.rr == "play" and not options.plays:
        raise OptionsError("rr=play needs a chardev of kind replay")
    if options.record is not None and options.record == options.logfile:
        raise OptionsError("record and logfile cannot be the same file")
