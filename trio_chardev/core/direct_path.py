"""How a user passes on bytes that nobody in this process looks at."""

from __future__ import annotations

import socket
from typing import Any

import attrs

from trio_chardev.core.direct import Direct
from trio_chardev.core.inbox import Inbox, OnPiped
from trio_chardev.core.outbox import Outbox
from trio_chardev.core.splicing import SplicePipe


@attrs.define(eq=False)
class DirectPath:
    """The ways around this process to and from one frontend, until the next checkpoint.

    `Frontend.direct` gives it.
    """

    _direct: Direct
    _inbox: Inbox[Any]
    _outbox: Outbox

    @property
    def receive_socket(self) -> socket.socket | None:
        """The peer's socket, if what it sends may be read from it directly.

        That is so while nothing has come before that but what is in the pipe.
        """
        return self._direct.plain_socket if self._inbox.is_clear else None

    @property
    def send_socket(self) -> socket.socket | None:
        """The same, if it may be sent to directly: no other task does, and there is no change."""
        return self._direct.plain_socket if self._outbox.is_idle else None

    @property
    def pipe(self) -> SplicePipe | None:
        """What bytes come into; those in it are the next. None if they don't come into a pipe."""
        return self._inbox.queue.pipe

    def open_pipe(self, on_piped: OnPiped) -> None:
        """Have bytes come into a pipe, as long as the backend can, and tell *on_piped* of them.

        They are the first in the queue still: all that looks at them, takes them or changes the
        backend ends it, and then they come the plain way. Raises OSError.
        """
        self._inbox.open_pipe(on_piped)

    def close_pipe(self) -> None:
        """Have bytes come to on_receive again; those in the pipe stay the first."""
        self._inbox.close_pipe()

    def send_from(self, pipe: SplicePipe) -> int:
        """Do as `Frontend.try_send` with what is in *pipe*.

        Raises also CannotSplice, if bytes must be looked at.
        """
        return self._outbox.splice_nowait(pipe)
