"""Telnet for streams of characters: RFC 854 and 855, negotiation by the Q method of RFC 1143.

A party makes its offers at once, in `data_to_send`, and never withdraws one. So the Q method, which
prevents loops of answers, needs only three states here.

A peer can make us keep at most MAX_SUBNEGOTIATION bytes, and one copy of each answer.

An option takes effect in the stream right after its WILL: a peer that agrees to "WILL BINARY" reads
binary from there on, so binary is sent after it, until it is refused.
"""

from __future__ import annotations

import enum

from trio_chardev.events import UNKNOWN_SIZE, Event, WindowSize
from trio_chardev.protocols.naws import WindowTeller, decode_size, encode_size
from trio_chardev.protocols.subnegotiation import Subnegotiation as Subnegotiation
from trio_chardev.protocols.telnet_roles import (
    AYT,
    BINARY,
    BREAK,
    CLIENT,
    DO,
    DONT,
    IAC,
    SB,
    SE,
    SERVER,
    TN3270_CLIENT,
    TN3270_SERVER,
    WILL,
    WINDOW_SIZE,
    WONT,
    Role,
)

MAX_SUBNEGOTIATION = 1024
"""How many bytes of a subnegotiation are kept; the rest is dropped."""

MAX_COMMANDS = 512
"""How many commands one call decodes; each takes a microsecond or two."""

MAX_AGREEMENTS = 16
"""How often an option may be agreed to. Two peers whose states do not match, which the Q method
does not foresee, would otherwise negotiate for ever."""

_ESCAPED_IAC = bytes([IAC, IAC])
_HERE_I_AM = b"\r\n[Yes]\r\n"  # telnetd's answer to "are you there"


Decoded = bytes | Event | WindowSize | Subnegotiation
"""What the peer has sent: characters, a break, the size of its window, or something else."""


class _State(enum.Enum):
    """The state of an option on one side. RFC 1143 has two more, for withdrawing a request."""

    NO = enum.auto()
    WANTED = enum.auto()
    YES = enum.auto()


class _Side:
    """The options of one side, negotiated by the Q method."""

    def __init__(self, allowed: frozenset[int], agree: int, refuse: int) -> None:
        self._states = dict.fromkeys(allowed, _State.NO)
        self._patience = dict.fromkeys(allowed, MAX_AGREEMENTS)
        self._agree = agree
        self._refuse = refuse

    def offer(self, option: int) -> None:
        self._states[option] = _State.WANTED

    def state(self, option: int) -> _State:
        return self._states.get(option, _State.NO)

    def on_yes(self, option: int) -> int | None:
        """The peer requests or accepts *option*; return the verb of the answer, if one is due."""
        if option not in self._states:
            return self._refuse
        before, self._states[option] = self._states[option], _State.YES
        if before is not _State.NO:
            return None
        self._patience[option] -= 1
        if self._patience[option] < 0:
            del self._states[option]
            return self._refuse
        return self._agree

    def on_no(self, option: int) -> int | None:
        """The peer refuses or ends *option*; return the verb of the answer, if one is due."""
        before = self.state(option)
        if before is not _State.NO:
            self._states[option] = _State.NO
        return self._refuse if before is _State.YES else None


class _Parsing(enum.Enum):
    """What the next byte belongs to."""

    DATA = enum.auto()
    COMMAND = enum.auto()
    OPTION = enum.auto()
    SUBNEGOTIATION = enum.auto()
    COMMAND_IN_SUBNEGOTIATION = enum.auto()


class TelnetConnection:
    """One party of a telnet connection, from its first byte.

    A client marks the end of urgent data (RFC 854) by a DM that is TCP's urgent byte. It must stay
    in the stream (SO_OOBINLINE), or the byte after it would be taken for the DM.
    """

    is_established = True
    """Data may be sent at once, as the offers need no answer."""
    end: str | None = None
    """Always None: no byte breaks the rules or ends the connection."""
    ends_one_way = True
    is_closing = False

    def __init__(self, role: Role) -> None:
        self._role = role
        self._ours = _Side(role.ours, WILL, WONT)
        self._theirs = _Side(role.theirs, DO, DONT)
        # A dict, used as an ordered set: a peer that sends the same request over and over without
        # reading gets one answer. One that follows RFC 1143 waits for each, and misses none.
        self._outgoing: dict[bytes, None] = {}
        self._parsing = _Parsing.DATA
        self._verb = DO
        self._subnegotiation = bytearray()
        self._is_after_cr = False
        self._data = bytearray()
        self._undecoded = b""
        self._events: list[Decoded] = []
        self._window = WindowTeller(role.ours)
        self.their_window_size = UNKNOWN_SIZE
        """The size of the peer's window, as far as it has told."""
        for verb, option in role.offers:
            (self._ours if verb == WILL else self._theirs).offer(option)
            self._answer(bytes([IAC, verb, option]))
        if role.opening:
            self._answer(role.opening)

    # ------------------------------------------------------------ sending

    def data_to_send(self) -> bytes:
        """Take the offers and answers that are due; send them before anything made later."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        if (
            size := self._window.due(is_agreed=self._ours.state(WINDOW_SIZE) is _State.YES)
        ) is None:
            return data
        return data + self.encode_subnegotiation(WINDOW_SIZE, encode_size(size))

    def set_window_size(self, size: WindowSize) -> None:
        """Tell the peer the *size* of our user's window, as soon as it wants to know.

        What is due then is in `data_to_send`; 0x0 is not told.
        """
        if self._window.set(size) and self._ours.state(WINDOW_SIZE) is _State.NO:
            self._ours.offer(WINDOW_SIZE)
            self._answer(bytes([IAC, WILL, WINDOW_SIZE]))

    def encode(self, data: bytes) -> bytes:
        """Encode *data*, after the answers that are due.

        IAC is doubled. Unless BINARY is in use, a CR that is not followed by LF becomes CR NUL.
        """
        due = self.data_to_send()
        if self._role.has_records:
            return due + data
        data = data.replace(b"\xff", _ESCAPED_IAC)
        if self._ours.state(BINARY) is _State.NO and b"\r" in data:
            data = data.replace(b"\r", b"\r\0").replace(b"\r\0\n", b"\r\n")
        return due + data

    def encode_break(self) -> bytes:
        """Encode a BREAK, after the answers that are due."""
        return self.data_to_send() + bytes([IAC, BREAK])

    def encode_subnegotiation(self, option: int, data: bytes) -> bytes:
        """Encode a subnegotiation of *option*, in which IAC is doubled too (RFC 855)."""
        escaped = bytes([option, *data]).replace(b"\xff", _ESCAPED_IAC)
        return bytes([IAC, SB]) + escaped + bytes([IAC, SE])

    def may_use(self, option: int) -> bool | None:
        """Has the peer agreed that we use *option*? None while an offer was not answered."""
        state = self._ours.state(option)
        return None if state is _State.WANTED else state is _State.YES

    def close(self) -> None:
        """Do nothing: telnet ends with the connection."""

    def _answer(self, data: bytes) -> None:
        self._outgoing.pop(data, None)
        self._outgoing[data] = None

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes) -> list[Decoded]:
        """Decode *data* into characters, Event.BREAK, window sizes and other subnegotiations, in order.

        CR NUL becomes CR, unless the peer uses BINARY. CR LF is kept, as it is not known here which
        of the two the user wants. Other commands of RFC 854 are skipped, as they edit a line or
        abort output, of which nothing is known here. ``b""``, the end, means nothing to telnet.
        """
        self._undecoded = data
        return self.decode_more()

    @property
    def is_behind(self) -> bool:
        """Is some of the data not decoded yet, because it had too many commands?"""
        return bool(self._undecoded)

    def decode_more(self) -> list[Decoded]:
        """Go on where `receive_data` stopped, after `MAX_COMMANDS` commands."""
        size = len(self._undecoded)
        while self._undecoded.count(IAC, 0, size) > MAX_COMMANDS:
            size //= 2
        data, self._undecoded = self._undecoded[:size], self._undecoded[size:]
        self._decode(data)
        events, self._events = self._events, []
        return events

    def _decode(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            if self._parsing not in (_Parsing.DATA, _Parsing.SUBNEGOTIATION):
                self._take_byte(data[start])
                start += 1
                continue
            end = data.find(IAC, start)
            piece = data[start:] if end < 0 else data[start:end]
            if self._parsing is _Parsing.DATA:
                self._take_characters(piece)
                following = _Parsing.COMMAND
            else:
                self._keep(piece)
                following = _Parsing.COMMAND_IN_SUBNEGOTIATION
            if end < 0:
                break
            self._parsing = following
            start = end + 1
        self._end_data()

    def _take_characters(self, data: bytes) -> None:
        if not data:
            return
        if self._role.has_records or self._theirs.state(BINARY) is _State.YES:
            self._is_after_cr = False
        else:
            if self._is_after_cr and data[0] == 0:
                data = data[1:]
                self._is_after_cr = False
                if not data:
                    return
            self._is_after_cr = data[-1:] == b"\r"
            data = data.replace(b"\r\0", b"\r")
        self._data += data

    def _take_byte(self, byte: int) -> None:
        match self._parsing:
            case _Parsing.COMMAND:
                self._parsing = _Parsing.DATA
                self._take_command(byte)
            case _Parsing.OPTION:
                self._parsing = _Parsing.DATA
                self._negotiate(byte)
            case _:
                self._take_command_in_subnegotiation(byte)

    def _take_command(self, command: int) -> None:
        if command == IAC:
            self._take_characters(b"\xff")
        elif command in self._role.passes:
            self._data += bytes([IAC, command])
        elif command in (WILL, WONT, DO, DONT):
            self._verb = command
            self._parsing = _Parsing.OPTION
        elif command == SB:
            self._parsing = _Parsing.SUBNEGOTIATION
        elif command == BREAK:
            self._end_data()
            self._events.append(Event.BREAK)
        elif command == AYT and not self._role.has_records:
            self._answer(_HERE_I_AM)

    def _negotiate(self, option: int) -> None:
        side = self._theirs if self._verb in (WILL, WONT) else self._ours
        verb = side.on_yes(option) if self._verb in (WILL, DO) else side.on_no(option)
        if verb is not None:
            self._answer(bytes([IAC, verb, option]))

    def _take_command_in_subnegotiation(self, command: int) -> None:
        if command == IAC:
            self._keep(b"\xff")
            self._parsing = _Parsing.SUBNEGOTIATION
            return
        self._end_data()
        if self._subnegotiation:
            self._take_subnegotiation(self._subnegotiation[0], bytes(self._subnegotiation[1:]))
            self._subnegotiation.clear()
        self._parsing = _Parsing.DATA
        if command != SE:  # SE is missing; like telnetd, take the command as such
            self._take_command(command)

    def _take_subnegotiation(self, option: int, data: bytes) -> None:
        if option != WINDOW_SIZE or self._theirs.state(WINDOW_SIZE) is not _State.YES:
            self._events.append(Subnegotiation(option, data))
        elif (size := decode_size(data)) is not None:
            self.their_window_size = size
            self._events.append(size)

    def _keep(self, data: bytes) -> None:
        self._subnegotiation += data[: MAX_SUBNEGOTIATION - len(self._subnegotiation)]

    def _end_data(self) -> None:
        if self._data:
            self._events.append(bytes(self._data))
            self._data.clear()


def telnet_connection(*, is_server: bool, tn3270: bool) -> TelnetConnection:
    """Make the party for a socket with the options ``server``, and ``telnet`` or *tn3270*."""
    if tn3270:
        return TelnetConnection(TN3270_SERVER if is_server else TN3270_CLIENT)
    return TelnetConnection(SERVER if is_server else CLIENT)
