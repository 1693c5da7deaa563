"""Opening a backend at once: for kinds that neither wait when they open nor when they close.

A change of such a backend needs no task that opens or closes it, nor the passes of the scheduler in
which its caller waits for that task. Only what is read needs one, from the commit on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from trio_chardev.core.backend import Backend

BackendT = TypeVar("BackendT", bound=Backend)


def _need_not(backend: Backend) -> None:
    """Close a backend that has nothing to close."""


class AtOnce(AbstractAsyncContextManager[BackendT], Generic[BackendT]):
    """What an opener may return: it can be entered, or opened and closed by a call."""

    __slots__ = ("_backend", "_close", "_make")

    def __init__(
        self, make: Callable[[], BackendT], close: Callable[[BackendT], None] = _need_not
    ) -> None:
        """*make* opens; it raises OptionsError or BackendError. *close* raises nothing."""
        self._make: Callable[[], BackendT] | None = make  # until it was opened
        self._close = close
        self._backend: BackendT | None = None

    def open(self) -> BackendT:
        """Open the backend."""
        make, self._make = self._make, None
        assert make is not None, "it is opened once"
        self._backend = backend = make()
        return backend

    def close(self) -> None:
        """Close it, if it is open."""
        backend, self._backend = self._backend, None
        if backend is not None:
            self._close(backend)

    async def __aenter__(self) -> BackendT:
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        self.close()
