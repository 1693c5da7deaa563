"""What a row in the table of kinds is made of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import attrs

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.options.backend import BackendOptions

OptionsT = TypeVar("OptionsT", bound=BackendOptions)


@attrs.frozen(repr=False)
class Kind(Generic[OptionsT]):
    """A kind of backend: its options class, and its opener."""

    options: type[OptionsT]
    open: Callable[[OptionsT, OpenRequest], AbstractAsyncContextManager[Backend]]
    """Opens a backend from an instance of `options`."""
