"""One client of a console: a reader with a position in the history, and one who may type.

All of it is synchronous. What it is to be sent is, in this order: lines of text for it alone, what
it has missed and wanted to see (without what would make a terminal answer), and what is printed now.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import attrs
import trio

from trio_chardev.backends.console.history import History, count_whole
from trio_chardev.backends.console.options import Manner
from trio_chardev.backends.socket.link import Link
from trio_chardev.core.waiting import Waiters
from trio_chardev.core.wall_clock import since_1970
from trio_chardev.events import WindowSize
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.terminal import AnswerSplitter, QueryFilter, ends_within

PIECE = 1 << 16  # bytes of one send
PIECES = 2  # of one client in a row; then others have their turn
REPLAY_PIECE = 1 << 12  # bytes of the history that are filtered at once
LAST_LINES = 1 << 12  # bytes that one who was too slow gets of what it has missed
OVERTAKEN = -1  # the position of one who counts, and whose count is of another history
TAIL = 64  # bytes of the output in which the beginning of a control sequence is looked for
MAX_TEXT = 1 << 13  # bytes of lines for a client that does not read them


@attrs.define(eq=False, kw_only=True, repr=False)
class Newcomer:
    """Who wants to be a client."""

    link: Link
    who: str
    """The user of a UNIX socket, the address, the name in the certificate."""
    manner: Manner
    refusal_of: Callable[[Link], str | None] = lambda link: None
    """Says why it would not be let in now; see `Stack.refusal_of`."""
    port: Port | None = None
    """The state of RFC 2217, if that is spoken."""
    size: WindowSize | None = None
    listener: object = None
    """Through which it has come."""
    address: str = attrs.field(default=attrs.Factory(lambda self: self.who, takes_self=True))
    """As `who`, but never a name that TLS has proved."""


@attrs.define(eq=False, repr=False)
class Client:
    """Somebody at a console."""

    number: int
    newcomer: Newcomer
    position: int
    """The cursor of what it gets next."""
    live_from: int
    """What is before this cursor is shown again, and must not make a terminal answer."""
    begins_at: int = attrs.field(default=attrs.Factory(lambda self: self.position, takes_self=True))
    """The cursor of the first that it gets."""
    since: float = attrs.Factory(time.time)
    """When it came, in seconds since 1970."""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """In which its tasks run."""
    sent: int = 0
    """Bytes of the console's output that it was sent."""
    received: int = 0
    """Bytes that have come from it."""
    skipped: int = 0
    """Bytes that it has not got because it was too slow."""
    queued: int = 0
    """Bytes that it has typed and the console's user has not read yet."""
    typed_at: float = attrs.Factory(trio.current_time)
    """When it typed last, or came."""
    blocked_at: float | None = None
    """Since when it takes nothing, though there is something."""
    has_ended: bool = False
    """Will nothing more come from it, though it may still be sent to?"""
    is_hung_up: bool = False
    """Has it left, but for what it has sent?"""
    is_gone: bool = False
    """Is it a client no more?"""
    has_break_on: bool = False
    """Has it turned a break on, and not off?"""
    asks: bool = False
    """Has it typed in vain, so that it may want the right to write?"""
    size: WindowSize | None = None
    answers: AnswerSplitter = attrs.Factory(AnswerSplitter)
    can_write: Waiters = attrs.Factory(Waiters)
    """Where its task waits until it is blocked."""
    may_read: Waiters = attrs.Factory(Waiters)
    """Where its task waits while too much that it has typed is queued."""
    _text: bytearray = attrs.Factory(bytearray)
    """Lines that are to be sent."""
    _is_telling: bool = False
    """Were they sent in part? Then the rest comes before anything else."""
    _again: bytearray = attrs.Factory(bytearray)
    """Some of what it has missed, without queries; it comes before anything else."""
    _filter: QueryFilter | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        manner = self.manner
        is_filtered = manner.is_terminal and not manner.is_exact and self.position < self.live_from
        self._filter = QueryFilter() if is_filtered else None
        self.size = self.newcomer.size

    @property
    def link(self) -> Link:
        """The connection to it."""
        return self.newcomer.link

    @property
    def who(self) -> str:
        """See `Newcomer.who`."""
        return self.newcomer.who

    @property
    def manner(self) -> Manner:
        """How it is treated."""
        return self.newcomer.manner

    @property
    def may_ever_type(self) -> bool:
        """Is its role to write, and is it there to do so?"""
        return self.manner.role == "write" and not self.has_ended

    @property
    def blocked_since(self) -> float | None:
        """Since when it takes nothing, in seconds since 1970; None if it does."""
        return since_1970(self.blocked_at)

    @property
    def is_blocked(self) -> bool:
        """Does it take nothing now?"""
        return self.blocked_at is not None

    def behind(self, history: History) -> int:
        """How many bytes are to be sent to it."""
        return history.end - max(self.position, history.start) + len(self._text) + len(self._again)

    def is_overtaken(self, history: History) -> bool:
        """Is something gone that it should have got?"""
        return self.position < history.start

    # ------------------------------------------------------------ what it is sent

    def say(self, text: str) -> bool:
        """Tell it *text*, in a line of its own, if it is a person; is there room for that?"""
        if not self.manner.is_told:
            return False
        line = in_band(text)
        if len(self._text) + len(line) > MAX_TEXT:
            return False
        self._text += line
        return True

    def begin_at(self, cursor: int) -> None:
        """Go on with what is printed from *cursor* on."""
        self.position = self.live_from = cursor
        self._filter = None

    def skip(self, history: History) -> int:
        """Go on with the last lines, as what comes next is gone; return how much is left out."""
        cursor = history.last_lines(LAST_LINES)
        lost = cursor - self.position + self._drop_kept_back()
        self._note_lost(lost)
        self.begin_at(cursor)
        return lost

    def _drop_kept_back(self) -> int:
        """Forget the beginning of a sequence, whose end is gone; return its size."""
        return 0 if self._filter is None else len(self._filter.rest())

    def _note_lost(self, lost: int) -> None:
        self.skipped += lost
        if lost and self.manner.is_told:
            self._text += in_band(f"skipped {lost} bytes")

    def send(self, history: History) -> None:
        """Send what there is, until it is blocked, up to date, or others have their turn.

        Raises OSError if it has left.
        """
        try:
            self.link.flush()
            for _ in range(PIECES):
                if not self._send_piece(history):
                    break
        except BlockingIOError:
            self._note_blocked()
            return
        if self.link.unsent:
            self._note_blocked()
        else:
            self.blocked_at = None

    def send_rest(self, history: History) -> None:
        """Send all there is, as far as there is room. Raises OSError."""
        if not self.is_overtaken(history):
            self.link.flush()
            while self._send_piece(history):
                pass

    def leave(self, history: History, cursor: int) -> None:
        """Go on at *cursor* of another history; what it does not take of *history* now is lost."""
        with contextlib.suppress(OSError):  # who has left is noticed by who reads
            self.send_rest(history)
        self._note_lost(max(0, history.end - self.position) + self._drop_kept_back())
        self.begin_at(OVERTAKEN if self.manner.is_exact else cursor)

    def is_due(self, history: History) -> bool:
        """Is there something to send to it, that it may take?"""
        return not self.is_blocked and self.behind(history) > 0

    def _note_blocked(self) -> None:
        if self.blocked_at is None:
            self.blocked_at = trio.current_time()
        self.can_write.wake()

    def note_unsent(self) -> None:
        """Have what a protocol has to say sent, when there is room for it."""
        if self.link.unsent:
            self._note_blocked()

    def _send_piece(self, history: History) -> bool:
        """Send some; return False if it is up to date. Raises OSError."""
        if self._again:
            self._send_from(self._again)
            return True
        size = PIECE
        if self._text:
            if self._is_telling or not self._is_amid(history):
                self._send_from(self._text)
                self._is_telling = bool(self._text)
                return True
            size = TAIL  # first what ends the sequence
        if self._filter is not None:
            self._show_again(history)
            return True
        if not (data := history.copy(self.position, size)):
            return False
        sent = self.link.send(memoryview(data))
        self.position += sent
        self.sent += sent
        return self.position < history.end

    def _send_from(self, waiting: bytearray) -> None:
        del waiting[: self.link.send(memoryview(bytes(waiting[:PIECE])))]

    def _is_amid(self, history: History) -> bool:
        """Would a line come within a control sequence or character, whose rest is there?"""
        if self._filter is not None or self.position == history.end:
            return False
        begin = max(history.start, self.position - TAIL)
        tail = history.copy(begin, self.position - begin)
        return ends_within(tail) or count_whole(tail) < len(tail)

    def _show_again(self, history: History) -> None:
        """Prepare some of what was printed before it came."""
        assert self._filter is not None
        data = history.copy(self.position, min(REPLAY_PIECE, self.live_from - self.position))
        self.position += len(data)
        before = self._filter.held
        self._again += self._filter.feed(data)
        self.sent += len(data) + before - self._filter.held
        if self.position == self.live_from:
            self.sent += self._filter.held
            self._again += self._filter.rest()
            self._filter = None


def in_band(text: str) -> bytes:
    """Make the line that tells people *text*."""
    return f"\r\n[trio-chardev: {text}]\r\n".encode()
