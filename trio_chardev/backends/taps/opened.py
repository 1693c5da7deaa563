"""Opening a backend together with its log file and its recording."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.options.backend import BackendOptions


def with_taps(opener: Opener, options: BackendOptions) -> Opener:
    """Make the opener that also opens the log file and the recording of *options*, if it has any."""
    if options.logfile is None and options.record is None:
        return opener
    # most chardevs have neither
    from trio_chardev.backends.taps.formatted_log import FormattedLog
    from trio_chardev.backends.taps.log import open_log
    from trio_chardev.backends.taps.record import open_recording

    @asynccontextmanager
    async def open_tapped(request: OpenRequest) -> AsyncIterator[Backend]:
        async with (
            open_log(options, request) as log,
            open_recording(options, request) as recording,
            opener(request) as backend,
        ):
            if isinstance(log, FormattedLog):
                log.shows(backend)
            backend.taps += tuple(tap for tap in (log, recording) if tap is not None)
            yield backend

    return open_tapped
