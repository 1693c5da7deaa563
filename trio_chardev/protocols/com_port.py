"""The server's side of RFC 2217, without I/O: the side that has the serial line.

A server answers each request about settings, outputs, break and buffers, in order, with the value
in force at that time. A request for the value in force changes nothing. Any other is passed on as
a `LineRequest`, which whatever has the line has to fulfil, and is answered when that reports what
is in force now. All other messages, such as masks, are answered at once.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

import attrs

from trio_chardev.events import OUTPUTS, BreakState, LineRequest, LineSettings, ModemLines, Purge
from trio_chardev.protocols.rfc2217 import (
    Command,
    Control,
    LineState,
    Message,
    ModemState,
    flow_of,
    modem_state,
    octet,
    setting_of,
    with_setting,
)

MAX_WAITING: Final = 64
"""Requests that may wait for an answer; more are not fulfilled, and answered accordingly."""


@attrs.define
class Port:
    """The state of a line as its clients are told it. It outlives each of them."""

    line: LineSettings = attrs.Factory(LineSettings)
    outputs: ModemLines = OUTPUTS
    """DTR and RTS, which are on as soon as a line is open."""
    inputs: ModemLines = attrs.Factory(lambda: ModemLines(0))
    is_break: bool = False
    is_wanted: bool = False
    """Has a client's user asked for this? Then the next connection to the server restores it."""

    def note(self, in_force: LineRequest) -> None:
        """Note what is in force now."""
        match in_force:
            case LineSettings():
                self.line = in_force
            case ModemLines():
                self.outputs = in_force & OUTPUTS
            case BreakState():
                self.is_break = in_force.is_on


_OUTPUT: Final = {
    Control.DTR_ON: (ModemLines.DTR, True),
    Control.DTR_OFF: (ModemLines.DTR, False),
    Control.RTS_ON: (ModemLines.RTS, True),
    Control.RTS_OFF: (ModemLines.RTS, False),
}
_ASKED: Final = {Control.ASK_DTR: ModemLines.DTR, Control.ASK_RTS: ModemLines.RTS}
_BREAK: Final = {Control.BREAK_ON: True, Control.BREAK_OFF: False}
_INBOUND: Final = {
    Control.NO_FLOW: Control.NO_FLOW_IN,
    Control.XON_XOFF: Control.XON_XOFF_IN,
    Control.HARDWARE: Control.HARDWARE_IN,
}
_IS_INBOUND: Final = (
    *(Control.ASK_FLOW_IN, Control.NO_FLOW_IN, Control.XON_XOFF_IN),
    *(Control.HARDWARE_IN, Control.DTR_FLOW_IN),
)


@attrs.define(eq=False, repr=False)
class _Request:
    """A request that was not answered yet."""

    message: Message
    wish: LineRequest | None
    """What was asked of the line; None if that need not change."""


WishT = TypeVar("WishT", LineSettings, ModemLines, BreakState)


class ComPortServer:
    """The server's side, for one client."""

    def __init__(self, port: Port, *, signature: bytes) -> None:
        self.port = port
        self.client_signature = b""
        self.is_suspended = False
        """Does the client want to be sent no bytes for now?"""
        self._signature = signature
        self._line_mask = LineState(0)
        self._modem_mask = ModemState(0)
        self._waiting: deque[_Request] = deque()  # the first waits for the line
        self._to_send: list[bytes] = []

    def data_to_send(self) -> list[bytes]:
        """Take the data of the subnegotiations that are due."""
        due, self._to_send = self._to_send, []
        return due

    # ------------------------------------------------------------ what the client sends

    def receive(self, message: Message) -> LineRequest | None:
        """Take a message of the client; return what it asks of the line, if that has to change."""
        match message.command:
            case Command.SIGNATURE:
                self._take_signature(message)
            case Command.FLOWCONTROL_SUSPEND | Command.FLOWCONTROL_RESUME:
                self.is_suspended = message.command is Command.FLOWCONTROL_SUSPEND
            case Command.SET_LINESTATE_MASK:
                self._line_mask = LineState(message.number)
                self._say(message)
            case Command.SET_MODEMSTATE_MASK:
                self._modem_mask = ModemState(message.number)
                self._say(message)
                if self._modem_mask:  # it has to begin with something
                    self._notify_modem(modem_state(self.port.inputs))
            case Command.NOTIFY_LINESTATE:
                self._say(Message(Command.NOTIFY_LINESTATE, bytes(1)))
            case Command.NOTIFY_MODEMSTATE:
                self._notify_modem(modem_state(self.port.inputs))
            case _:
                return self._take_request(message)
        return None

    def _take_signature(self, message: Message) -> None:
        """Answer an empty signature with ours; any other is the client's own."""
        if message.value:
            self.client_signature = message.value
        else:
            self._say(Message(Command.SIGNATURE, self._signature))

    def _take_request(self, message: Message) -> LineRequest | None:
        if len(self._waiting) >= MAX_WAITING:
            self._answer(message)
            return None
        wish = self._wish_of(message)
        if wish is None and not self._waiting:
            self._answer(message)
        else:
            self._waiting.append(_Request(message, wish))
        return wish

    def _wish_of(self, message: Message) -> LineRequest | None:
        """Return what *message* would change after what waits, or None."""
        number = message.number
        before: LineRequest
        wish: LineRequest | None
        if message.command is Command.PURGE_DATA:
            return Purge(number) if 1 <= number <= 3 else None
        is_control = message.command is Command.SET_CONTROL
        if is_control and number in _OUTPUT:
            output, is_on = _OUTPUT[Control(number)]
            before = self._wanted(self.port.outputs)
            wish = before | output if is_on else before & ~output
        elif is_control and number in _BREAK:
            before = self._wanted(BreakState(self.port.is_break))
            wish = BreakState(_BREAK[Control(number)])
        else:
            before = self._wanted(self.port.line)
            wish = with_setting(message, before)
        return None if wish == before else wish

    def _wanted(self, in_force: WishT) -> WishT:
        """Return what will be in force once everything was done that waits."""
        for request in reversed(self._waiting):
            if isinstance(request.wish, type(in_force)):
                return request.wish
        return in_force

    # ------------------------------------------------------------ the state of the line

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> LineRequest | None:
        """Note that *request* was handled, and what is in force now; answer what waited for that.

        Without *in_force* that is what was before. Earlier requests that still wait are answered,
        too. Returns what remains of a request of which a part had been refused before: it is to be
        asked for again.
        """
        if in_force is not None:
            self.port.note(in_force)
        if all(waiting.wish != request for waiting in self._waiting):
            return None
        while self._waiting[0].wish != request:
            self._answer(self._waiting.popleft().message)
        first = self._waiting[0]
        again = None if request == in_force else with_setting(first.message, self.port.line)
        if again not in (None, request, self.port.line):
            first.wish = again
            return again
        self._answer(self._waiting.popleft().message)
        while self._waiting and self._waiting[0].wish is None:
            self._answer(self._waiting.popleft().message)
        return None

    def modem_changed(self, inputs: ModemLines) -> None:
        """Note the line's inputs, and notify a client that has asked for it."""
        before, self.port.inputs = self.port.inputs, inputs & ~OUTPUTS
        state = modem_state(self.port.inputs, before)
        changed = modem_state(self.port.inputs) ^ modem_state(before)
        if changed & self._modem_mask or state & self._modem_mask & _CHANGES:
            self._notify_modem(state)

    def _notify_modem(self, state: ModemState) -> None:
        self._say(octet(Command.NOTIFY_MODEMSTATE, state))

    def break_came(self) -> None:
        """Notify a client that has asked for it of a break on the line."""
        if self._line_mask & LineState.BREAK:
            self._say(octet(Command.NOTIFY_LINESTATE, LineState.BREAK))

    def _answer(self, message: Message) -> None:
        """Answer with what is in force of what *message* is about."""
        if message.command is Command.PURGE_DATA:
            self._say(message)
            return
        if message.command is not Command.SET_CONTROL:
            as_code = message.command is Command.SET_BAUDRATE and len(message.value) == 1
            self._say(setting_of(message.command, self.port.line, as_code=as_code))
            return
        number = message.number
        if number in _OUTPUT or number in _ASKED:
            output = _OUTPUT[Control(number)][0] if number in _OUTPUT else _ASKED[Control(number)]
            on = Control.DTR_ON if output is ModemLines.DTR else Control.RTS_ON
            value = on if output in self.port.outputs else Control(on + 1)
        elif number in _BREAK or number == Control.ASK_BREAK:
            value = Control.BREAK_ON if self.port.is_break else Control.BREAK_OFF
        else:
            value = flow_of(self.port.line)
            value = _INBOUND[value] if number in _IS_INBOUND else value
        self._say(octet(Command.SET_CONTROL, value))

    def _say(self, message: Message) -> None:
        self._to_send.append(message.encode(from_server=True))


_CHANGES: Final = (
    ModemState.CTS_CHANGED | ModemState.DSR_CHANGED | ModemState.RI_ENDED | ModemState.CD_CHANGED
)
