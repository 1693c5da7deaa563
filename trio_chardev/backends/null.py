"""null: discards all output, gives no input, and never counts as open (as in QEMU)."""

from __future__ import annotations

import math
from functools import partial

import attrs

from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.options.backend import BackendOptions


@attrs.frozen(kw_only=True)
class NullOptions(BackendOptions):
    """Discards output and gives no input."""

    open_timeout = math.inf  # it does not wait


class NullBackend(Backend):
    """Accepts everything at once."""

    is_silent = True

    @property
    def filename(self) -> str:
        return "null"

    def send_nowait(self, data: memoryview) -> int:
        return len(data)


def open_null(options: NullOptions, request: OpenRequest) -> AtOnce[NullBackend]:
    """Give what opens a backend that can't fail."""
    return AtOnce(partial(NullBackend, request))


NULL = Kind(NullOptions, open_null)
