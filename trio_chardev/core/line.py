"""The line of a backend: its settings, modem lines, break and echo.

A backend has its `Line` as `Backend.line`; a subclass overrides what that kind can do. A frontend
has one, too, for the backend in place, and a ``be_change`` handler gets one.
"""

from __future__ import annotations

from typing import ClassVar

from trio_chardev.errors import NotSupportedError
from trio_chardev.events import LineRequest, LineSettings, ModemLines, Purge, WindowSize

BREAK_DURATION = 0.25  # seconds; tcsendbreak(3) has 0.25 to 0.5

_CALLS = {
    "settings": "set",
    "modem": "set_modem",
    "break": "set_break",
    "purge": "purge",
    "window": "set_window_size",
}
"""What a line may lack, with the method that a kind overrides to have it."""


class Line:
    """What a backend lets its user do to the line: by default nothing.

    Each call raises NotSupportedError if the backend can't do it, and BackendError if it fails.
    """

    is_settable: ClassVar[bool] = False
    """Does it have settings or modem lines that a user may want to set up in a change?"""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        """The name of the backend, for errors."""

    @property
    def missing(self) -> frozenset[str]:
        """What is known to be missing: ``settings``, ``modem``, ``break``, ``purge``, ``window``.

        ``break`` is one that lasts until it is turned off. By default that is what the kind does not
        override. A kind whose devices differ adds what a driver has refused, and ``speed`` if that
        is only the rate which it was asked for. Raises BackendError if that can't be told now, as
        nobody is there to ask.
        """
        return frozenset(
            name
            for name, call in _CALLS.items()
            if getattr(type(self), call) is getattr(Line, call)
        )

    @property
    def settings(self) -> LineSettings:
        """The line settings in force."""
        raise self._lacks("line settings")

    async def set(self, settings: LineSettings) -> None:
        """Set speed, data bits, parity, stop bits and flow control."""
        raise self._lacks("line settings")

    def show(self, settings: LineSettings) -> None:
        """Show *settings* to the users of a terminal, which has no line, as its settings."""
        raise self._lacks("line settings to show")

    @property
    def polled(self) -> frozenset[str]:
        """What the other end can change without being noticed: ``settings``, ``modem``, ``window``.

        `look` finds it. Each look costs a system call, so look only for somebody who can use what it
        may find. Raises BackendError if that can't be told now.
        """
        return frozenset()

    @property
    def is_notified(self) -> bool:
        """Do its modem lines drive nothing, but tell the other end what is on elsewhere?

        Then it should know that from the beginning, and not only when something changes.
        """
        return False

    def look(self, *, anew: bool = False) -> None:
        """Report by events what of `polled` has changed since the last look.

        With *anew* also which modem lines the other end has on, if that is known, changed or not.
        """
        raise self._lacks("line to look at")

    async def get_modem(self) -> ModemLines:
        """Return the modem lines that are on."""
        raise self._lacks("modem lines")

    async def set_modem(self, lines: ModemLines) -> None:
        """Turn DTR and RTS on if they are in *lines*, else off."""
        raise self._lacks("modem lines")

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Send a break of *duration* seconds."""
        raise self._lacks("break")

    async def set_break(self, is_on: bool) -> None:
        """Turn the break on, until it is turned off, or off."""
        raise self._lacks("break")

    async def purge(self, buffers: Purge) -> None:
        """Discard what has come and was not read, or what was written and not sent, or both."""
        raise self._lacks("buffers to discard")

    async def set_window_size(self, size: WindowSize) -> None:
        """Tell the other end the *size* of the window in which its output is seen; not 0x0."""
        raise self._lacks("window size")

    def keep(self, request: LineRequest) -> None:
        """Note that *request*, which this backend can't do, is wanted of the next one that can.

        Does nothing where there is no next one.
        """

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        """Tell the other end, which has asked for *request* by an event, what is in force now.

        None says that *request* was refused, and nothing else about it is known.

        Only who has attached with ``answers_line`` calls this, when it has done what was asked, or
        could not. Does nothing where the other end can't be told, or has left.
        """

    async def set_echo(self, echo: bool) -> None:
        """Turn a terminal's echo of what is typed on or off."""
        raise self._lacks("echo")

    def _lacks(self, what: str) -> NotSupportedError:
        return NotSupportedError(f"'{self.filename}' has no {what}")
