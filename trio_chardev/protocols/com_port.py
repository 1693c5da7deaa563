"""The server's side of RFC 2217, without I/O: the side that has the serial line.

A server answers each request about settings, outputs and break, in order, with the value in force at
that time. A request for the value in force changes nothing. Any other is a *wish*, which whatever has
the line has to fulfil, and is answered when that reports what is in force now. All other messages,
such as masks and PURGE-DATA, are answered at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs

from trio_chardev.events import LineSettings, ModemLines
from trio_chardev.protocols.rfc2217 import (
    Command,
    Control,
    LineState,
    Message,
    ModemState,
    Purge,
    flow_of,
    modem_state,
    setting_of,
    with_setting,
)

OUTPUTS: Final = ModemLines.DTR | ModemLines.RTS
MAX_WAITING: Final = 64
"""Requests that may wait for an answer; more are not fulfilled, and answered accordingly."""


@attrs.frozen
class BreakWish:
    """A client turns the break on or off."""

    is_on: bool


@attrs.frozen
class FlowWish:
    """A client stops what it is sent, or resumes it."""

    is_suspended: bool


Wish = LineSettings | ModemLines | BreakWish | FlowWish | Purge
"""What a client wants of the line: settings, DTR and RTS, a break, a stop, a discarded buffer."""

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


@attrs.frozen
class _Request:
    """A request that was not answered yet."""

    message: Message
    is_wish: bool


class ComPortServer:
    """The server's side, for one client."""

    def __init__(self, line: LineSettings, outputs: ModemLines, *, signature: bytes) -> None:
        """*line* and *outputs* (DTR, RTS) are in force now."""
        self.line = line
        self.outputs = outputs
        self.inputs = ModemLines(0)
        self.is_break = False
        self.client_signature = b""
        self._signature = signature
        self._line_mask = LineState(0)
        self._modem_mask = ModemState(0)
        self._waiting: deque[_Request] = deque()  # the first is a wish, not fulfilled yet
        self._to_send: list[bytes] = []

    def data_to_send(self) -> list[bytes]:
        """Take the data of the subnegotiations that are due."""
        due, self._to_send = self._to_send, []
        return due

    # ------------------------------------------------------------ what the client sends

    def receive(self, message: Message) -> Wish | None:
        """Take a message of the client; return its wish, if it would change anything."""
        match message.command:
            case Command.SIGNATURE:
                self._take_signature(message)
            case Command.FLOWCONTROL_SUSPEND | Command.FLOWCONTROL_RESUME:
                return FlowWish(message.command is Command.FLOWCONTROL_SUSPEND)
            case Command.SET_LINESTATE_MASK:
                self._line_mask = LineState(message.number)
                self._say(message)
            case Command.SET_MODEMSTATE_MASK:
                self._modem_mask = ModemState(message.number)
                self._say(message)
            case Command.NOTIFY_LINESTATE:
                self._say(Message(Command.NOTIFY_LINESTATE, bytes(1)))
            case Command.NOTIFY_MODEMSTATE:
                self._say(_octet(Command.NOTIFY_MODEMSTATE, modem_state(self.inputs)))
            case Command.PURGE_DATA:
                self._say(message)
                return Purge(message.number) if 1 <= message.number <= len(Purge) else None
            case _:
                return self._take_request(message)
        return None

    def _take_signature(self, message: Message) -> None:
        """Answer an empty signature with ours; any other is the client's own."""
        if message.value:
            self.client_signature = message.value
        else:
            self._say(Message(Command.SIGNATURE, self._signature))

    def _take_request(self, message: Message) -> Wish | None:
        if len(self._waiting) >= MAX_WAITING:
            self._answer(message)
            return None
        wish = self._wish_of(message)
        if wish is None and not self._waiting:
            self._answer(message)
        else:
            self._waiting.append(_Request(message, wish is not None))
        return wish

    def _wish_of(self, message: Message) -> Wish | None:
        """Return what *message* would change, or None."""
        line = with_setting(message, self._wanted_line)
        if line is not None:
            return None if line == self._wanted_line else line
        if message.command is not Command.SET_CONTROL:
            return None
        if message.number in _OUTPUT:
            output, is_on = _OUTPUT[Control(message.number)]
            wanted = self._wanted_outputs
            outputs = wanted | output if is_on else wanted & ~output
            return None if outputs == wanted else outputs
        if message.number in _BREAK:
            is_on = _BREAK[Control(message.number)]
            return None if is_on is self._wanted_break else BreakWish(is_on)
        return None

    @property
    def _wanted_line(self) -> LineSettings:
        """The settings after all waiting requests."""
        line = self.line
        for request in self._waiting:
            line = with_setting(request.message, line) or line
        return line

    @property
    def _wanted_outputs(self) -> ModemLines:
        outputs = self.outputs
        for number in self._waiting_controls:
            if number in _OUTPUT:
                output, is_on = _OUTPUT[number]
                outputs = outputs | output if is_on else outputs & ~output
        return outputs

    @property
    def _wanted_break(self) -> bool:
        is_on = self.is_break
        for number in self._waiting_controls:
            is_on = _BREAK.get(number, is_on)
        return is_on

    @property
    def _waiting_controls(self) -> Iterator[Control]:
        for request in self._waiting:
            if request.message.command is Command.SET_CONTROL and request.is_wish:
                yield Control(request.message.number)

    # ------------------------------------------------------------ the state of the line

    def heard(
        self,
        *,
        line: LineSettings | None = None,
        outputs: ModemLines | None = None,
        is_break: bool | None = None,
    ) -> None:
        """Note that the oldest wish was handled, and what is in force now; answer what waited.

        Only for wishes about settings, outputs or break: no answer waits for the others.
        """
        self.now(line=line, outputs=outputs, is_break=is_break)
        if self._waiting:
            self._answer(self._waiting.popleft().message)
        while self._waiting and not self._waiting[0].is_wish:
            self._answer(self._waiting.popleft().message)

    def now(
        self,
        *,
        line: LineSettings | None = None,
        outputs: ModemLines | None = None,
        is_break: bool | None = None,
    ) -> None:
        """Note what is in force now, for any other reason, such as a change of the backend."""
        self.line = self.line if line is None else line
        self.outputs = self.outputs if outputs is None else outputs & OUTPUTS
        self.is_break = self.is_break if is_break is None else is_break

    def modem_changed(self, inputs: ModemLines) -> None:
        """Note the line's inputs, and notify a client that has asked for it."""
        before, self.inputs = self.inputs, inputs & ~OUTPUTS
        state = modem_state(self.inputs, before)
        changed = modem_state(self.inputs) ^ modem_state(before)
        if changed & self._modem_mask or state & self._modem_mask & _CHANGES:
            self._say(_octet(Command.NOTIFY_MODEMSTATE, state))

    def break_came(self) -> None:
        """Notify a client that has asked for it of a break on the line."""
        if self._line_mask & LineState.BREAK:
            self._say(_octet(Command.NOTIFY_LINESTATE, LineState.BREAK))

    def _answer(self, message: Message) -> None:
        """Answer with what is in force of what *message* is about."""
        if message.command is not Command.SET_CONTROL:
            as_code = message.command is Command.SET_BAUDRATE and len(message.value) == 1
            self._say(setting_of(message.command, self.line, as_code=as_code))
            return
        number = message.number
        if number in _OUTPUT or number in _ASKED:
            output = _OUTPUT[Control(number)][0] if number in _OUTPUT else _ASKED[Control(number)]
            on = Control.DTR_ON if output is ModemLines.DTR else Control.RTS_ON
            value = on if output in self.outputs else Control(on + 1)
        elif number in _BREAK or number == Control.ASK_BREAK:
            value = Control.BREAK_ON if self.is_break else Control.BREAK_OFF
        else:
            value = flow_of(self.line)
            value = _INBOUND[value] if number in _IS_INBOUND else value
        self._say(_octet(Command.SET_CONTROL, value))

    def _say(self, message: Message) -> None:
        self._to_send.append(message.encode(from_server=True))


_CHANGES: Final = (
    ModemState.CTS_CHANGED | ModemState.DSR_CHANGED | ModemState.RI_ENDED | ModemState.CD_CHANGED
)


def _octet(command: Command, value: int) -> Message:
    return Message(command, bytes([value]))
