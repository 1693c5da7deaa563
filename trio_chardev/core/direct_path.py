"""How a user passes on bytes that bypass this process."""

from __future__ import annotations

import socket
from typing import Any

import attrs

from trio_chardev.core.counts import Counts
from trio_chardev.core.direct import Direct
from trio_chardev.core.inbox import Inbox, OnPiped
from trio_chardev.core.outbox import Outbox
from trio_chardev.core.splicing import SplicePipe


@attrs.define(eq=False, repr=False)
class DirectPath:
    """How bytes bypass this process, to and from one frontend; valid until the next checkpoint.

    `Frontend.direct` gives it.
    """

    _direct: Direct
    _inbox: Inbox[Any]
    _outbox: Outbox

    @property
    def receive_socket(self) -> socket.socket | None:
        """The peer's socket, if what it sends may be read directly; else None.

        It may while nothing that came earlier is waiting, but for what is in the pipe.
        """
        return self._direct.plain_socket if self._inbox.is_clear else None

    @property
    def send_socket(self) -> socket.socket | None:
        """The same socket, if it may be sent to directly: no other task sends or changes it."""
        return self._direct.plain_socket if self._outbox.is_idle else None

    @property
    def counts(self) -> Counts:
        """The chardev's, for who receives or sends by these sockets."""
        return self._outbox.counts

    @property
    def pipe(self) -> SplicePipe | None:
        """The pipe that bytes come into; those in it are the next. None if there is no pipe."""
        return self._inbox.queue.pipe

    def open_pipe(self, on_piped: OnPiped) -> None:
        """Let bytes come into a pipe while the backend can do that, and call *on_piped* for them.

        They still are the first in the queue. Whatever looks at them, takes them or changes the
        backend ends it, and then they take the plain path. Raises OSError.
        """
        self._inbox.open_pipe(on_piped)

    def close_pipe(self) -> None:
        """Let bytes come to on_receive again; those in the pipe stay the first."""
        self._inbox.close_pipe()

    def send_from(self, pipe: SplicePipe) -> int:
        """Do as `Frontend.try_send` with what is in *pipe*.

        Raises CannotSplice as well, if bytes must be looked at.
        """
        return self._outbox.splice_nowait(pipe)
