"""Opening the log file that every kind can have."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from trio_chardev.backends.taps.formatted_log import FormattedLog, format_of
from trio_chardev.backends.taps.log_file import LogFile
from trio_chardev.backends.taps.log_output import open_log_output
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.options.backend import BackendOptions

_no_log = contextlib.nullcontext(None)


def open_log(
    options: BackendOptions, request: OpenRequest
) -> AbstractAsyncContextManager[LogFile | None]:
    """Open the log file of *options*, a tap for the backend that *request* asks for.

    At the end of the block it is flushed, for FLUSH_TIMEOUT at most. Raises BackendError, ``Could
    not create 'PATH': strerror``.
    """
    return _no_log if options.logfile is None else _open_log(options.logfile, options, request)


@asynccontextmanager
async def _open_log(
    path: str, options: BackendOptions, request: OpenRequest
) -> AsyncIterator[LogFile]:
    before = _log_of(request.replaces, path)
    output = await open_log_output(path, options, request)
    if (form := format_of(options, request.id)) is None:
        file = LogFile(path, output, options, before)
        async with file.background.running():
            yield file
        return
    log = FormattedLog(path, output, options, before, form)
    beside = [log.give_up_lines] if form.holds_back else []
    async with log.background.running(*beside):
        try:
            yield log
        finally:
            log.finish()


def _log_of(backend: Backend | None, path: str) -> LogFile | None:
    for tap in backend.taps if backend is not None else ():
        if isinstance(tap, LogFile) and tap.path == path:
            return tap
    return None
