"""RFC 2217, Telnet Com Port Control Option: the messages, without I/O.

A message is the data of a subnegotiation of telnet's option 44: a command and its value. Messages
of the access server, which has the serial line, have the client's command number plus 100.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, cast

import attrs

from trio_chardev.events import LineSettings, ModemLines, Parity

COM_PORT_OPTION: Final = 44
FROM_SERVER: Final = 100  # which a server adds to a command's number
MAX_SIGNATURE: Final = 256  # bytes of a signature that are kept


class Command(enum.IntEnum):
    """What a message is about (sections 2 to 5)."""

    SIGNATURE = 0
    SET_BAUDRATE = 1
    SET_DATASIZE = 2
    SET_PARITY = 3
    SET_STOPSIZE = 4
    SET_CONTROL = 5
    NOTIFY_LINESTATE = 6
    NOTIFY_MODEMSTATE = 7
    FLOWCONTROL_SUSPEND = 8
    FLOWCONTROL_RESUME = 9
    SET_LINESTATE_MASK = 10
    SET_MODEMSTATE_MASK = 11
    PURGE_DATA = 12


class Control(enum.IntEnum):
    """The values of SET-CONTROL (section 3); those for inbound flow control end in ``_IN``."""

    ASK_FLOW = 0
    NO_FLOW = 1
    XON_XOFF = 2
    HARDWARE = 3
    ASK_BREAK = 4
    BREAK_ON = 5
    BREAK_OFF = 6
    ASK_DTR = 7
    DTR_ON = 8
    DTR_OFF = 9
    ASK_RTS = 10
    RTS_ON = 11
    RTS_OFF = 12
    ASK_FLOW_IN = 13
    NO_FLOW_IN = 14
    XON_XOFF_IN = 15
    HARDWARE_IN = 16
    DCD_FLOW = 17
    DTR_FLOW_IN = 18
    DSR_FLOW = 19


class LineState(enum.IntFlag):
    """The octet of NOTIFY-LINESTATE, and its mask (section 2)."""

    DATA_READY = 1
    OVERRUN = 2
    PARITY_ERROR = 4
    FRAMING_ERROR = 8
    BREAK = 16
    HOLDING_EMPTY = 32
    SHIFT_EMPTY = 64
    TIMEOUT = 128


class ModemState(enum.IntFlag):
    """The octet of NOTIFY-MODEMSTATE, and its mask (section 4)."""

    CTS_CHANGED = 1
    DSR_CHANGED = 2
    RI_ENDED = 4
    CD_CHANGED = 8
    CTS = 16
    DSR = 32
    RI = 64
    CD = 128


@attrs.frozen
class Message:
    """A command and its value, in octets."""

    command: Command
    value: bytes = b""

    @property
    def number(self) -> int:
        """The value as an unsigned number, in network byte order."""
        return int.from_bytes(self.value, "big")

    def encode(self, *, from_server: bool) -> bytes:
        """Make the data of the subnegotiation, in which telnet has to double each IAC."""
        return bytes([self.command + FROM_SERVER * from_server]) + self.value


def octet(command: Command, value: int) -> Message:
    """Make a message whose value is one octet."""
    return Message(command, bytes([value]))


SIZES: Final = {Command.SET_BAUDRATE: 4, Command.SIGNATURE: 0}
"""Octets of a value, if it is not one octet; a signature has any number."""

_WITHOUT_VALUE: Final = (Command.FLOWCONTROL_SUSPEND, Command.FLOWCONTROL_RESUME)
_MAY_ASK: Final = (Command.NOTIFY_LINESTATE, Command.NOTIFY_MODEMSTATE)
"""Commands that clients also send without a value, to ask for the state (pyserial does)."""


def decode(data: bytes, *, from_server: bool) -> Message | None:
    """Decode a subnegotiation's *data*; None if it is no message of the other side.

    A rate of one octet is one of Cisco's codes, from a draft of the RFC; it is kept as one octet.
    """
    if not data:
        return None
    code = data[0] - FROM_SERVER * from_server
    try:
        command = Command(code)
    except ValueError:
        return None
    value = data[1:]
    if command is Command.SIGNATURE:
        return Message(command, value[:MAX_SIGNATURE])
    if command in _WITHOUT_VALUE:
        return Message(command)
    if command in _MAY_ASK and not value:
        return Message(command)
    size = SIZES.get(command, 1)
    if len(value) == size or (command is Command.SET_BAUDRATE and len(value) == 1):
        return Message(command, value)
    return None


# ---------------------------------------------------------------- the values of settings

CISCO_RATES: Final = {
    3: 300,
    4: 600,
    5: 1200,
    6: 2400,
    7: 4800,
    8: 9600,
    10: 19200,
    12: 38400,
    13: 57600,
    14: 115200,
    15: 230400,
}
"""Cisco's codes for rates, as in gensio."""

_CISCO_CODES: Final = {rate: code for code, rate in CISCO_RATES.items()}

PARITIES: Final[tuple[Parity, ...]] = ("N", "O", "E", "M", "S")
"""The values of SET-PARITY, from 1 on."""

_FLOWS: Final = {
    Control.NO_FLOW: (False, False),
    Control.XON_XOFF: (True, False),
    Control.HARDWARE: (False, True),
}
"""Control -> `LineSettings.xonxoff` and ``rtscts``."""

_OUTBOUND: Final = {
    Control.NO_FLOW_IN: Control.NO_FLOW,
    Control.XON_XOFF_IN: Control.XON_XOFF,
    Control.HARDWARE_IN: Control.HARDWARE,
}


def with_setting(message: Message, line: LineSettings) -> LineSettings | None:
    """Apply a client's *message* to *line*; None if it only asks, or can't be fulfilled.

    Linux has no 1.5 stop bits (3), and no flow control by DCD, DTR or DSR.
    """
    number = message.number
    match message.command:
        case Command.SET_BAUDRATE:
            speed = CISCO_RATES.get(number, 0) if len(message.value) == 1 else number
            return attrs.evolve(line, speed=speed) if speed else None
        case Command.SET_DATASIZE if 5 <= number <= 8:
            return attrs.evolve(line, data_bits=cast(Literal[5, 6, 7, 8], number))
        case Command.SET_PARITY if 1 <= number <= len(PARITIES):
            return attrs.evolve(line, parity=PARITIES[number - 1])
        case Command.SET_STOPSIZE if 1 <= number <= 2:
            return attrs.evolve(line, stop_bits=cast(Literal[1, 2], number))
        case Command.SET_CONTROL:
            control = _OUTBOUND.get(number, number)  # type: ignore[call-overload]
            if control in _FLOWS:
                xonxoff, rtscts = _FLOWS[Control(control)]
                return attrs.evolve(line, xonxoff=xonxoff, rtscts=rtscts)
    return None


def flow_of(line: LineSettings) -> Control:
    """The flow control of *line*: the hardware's, if it has both."""
    if line.rtscts:
        return Control.HARDWARE
    return Control.XON_XOFF if line.xonxoff else Control.NO_FLOW


def setting_of(command: Command, line: LineSettings, *, as_code: bool = False) -> Message:
    """Make the message with *line*'s value for a SET command; *as_code* makes it one of Cisco's.

    A rate without such a code is 0, which means unknown.
    """
    match command:
        case Command.SET_BAUDRATE if as_code:
            return Message(command, bytes([_CISCO_CODES.get(line.speed, 0)]))
        case Command.SET_BAUDRATE:
            return Message(command, line.speed.to_bytes(4, "big"))
        case Command.SET_DATASIZE:
            return Message(command, bytes([line.data_bits]))
        case Command.SET_PARITY:
            return Message(command, bytes([PARITIES.index(line.parity) + 1]))
        case Command.SET_STOPSIZE:
            return Message(command, bytes([line.stop_bits]))
        case _:
            return Message(Command.SET_CONTROL, bytes([flow_of(line)]))


_MODEM: Final = {
    ModemLines.CTS: ModemState.CTS,
    ModemLines.DSR: ModemState.DSR,
    ModemLines.RI: ModemState.RI,
    ModemLines.CAR: ModemState.CD,
}
_CHANGED: Final = {
    ModemState.CTS: ModemState.CTS_CHANGED,
    ModemState.DSR: ModemState.DSR_CHANGED,
    ModemState.CD: ModemState.CD_CHANGED,
}


def modem_state(lines: ModemLines, before: ModemLines | None = None) -> ModemState:
    """Make the octet for the inputs in *lines*, and what has changed since *before*.

    For RI only its end counts as a change, as in a UART (TERI).
    """
    state, old = _state_of(lines), _state_of(lines if before is None else before)
    for level, changed in _CHANGED.items():
        if (state ^ old) & level:
            state |= changed
    return state | ModemState.RI_ENDED if old & ~state & ModemState.RI else state


def _state_of(lines: ModemLines) -> ModemState:
    state = ModemState(0)
    for line, level in _MODEM.items():
        if line in lines:
            state |= level
    return state


def inputs_of(state: int) -> ModemLines:
    """The inputs that are on in NOTIFY-MODEMSTATE's octet."""
    lines = ModemLines(0)
    for line, level in _MODEM.items():
        if state & level:
            lines |= line
    return lines
