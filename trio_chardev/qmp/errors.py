"""The exceptions of QMP, for servers and clients."""

from __future__ import annotations

from trio_chardev.plain_errors import ChardevError


class QmpError(ChardevError):
    """They: a command's error reply, with a QMP error class."""

    def __init__(self, desc: str, error_class: str = "GenericError") -> None:
        super().__init__(desc)
        self.error_class = error_class

    @property
    def is_unknown_command(self) -> bool:
        """Does the server have no such command?"""
        return self.error_class == "CommandNotFound"


class QmpConnectionError(ChardevError):
    """They: the server can't be reached, speaks no QMP, or has gone. You: the client is closed."""


class QmpTimeoutError(QmpConnectionError):
    """They: the server did not answer in time. Clients without an event loop have deadlines."""
