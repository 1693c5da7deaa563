"""The client's side of RFC 2217, without I/O: the side that uses the serial line of a server.

A client asks for what is to change, and for nothing else; each answer says what is in force. From
the first message on it asks for what it wants, or else what there is, and to be notified of the
line's inputs and of breaks. It does not ask for the signature, which ends gensiot 2.6.2 by SIGSEGV.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines, Purge
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.rfc2217 import (
    Command,
    Control,
    LineState,
    Message,
    ModemState,
    inputs_of,
    octet,
    setting_of,
    with_setting,
)

SETTINGS: Final = (
    *(Command.SET_BAUDRATE, Command.SET_DATASIZE, Command.SET_PARITY, Command.SET_STOPSIZE),
    Command.SET_CONTROL,
)
"""The commands that set what is in `LineSettings`; the last one sets the flow control."""

_MODEM_MASK: Final = ModemState(0xFF)

Topic = Command | Control
"""What a request and its answer are about: a command, or of SET-CONTROL what it asks for."""

_TOPICS: Final[dict[int, Control]] = {
    **dict.fromkeys((Control.BREAK_ON, Control.BREAK_OFF), Control.ASK_BREAK),
    **dict.fromkeys((Control.DTR_ON, Control.DTR_OFF), Control.ASK_DTR),
    **dict.fromkeys((Control.RTS_ON, Control.RTS_OFF), Control.ASK_RTS),
    **{control: control for control in (Control.ASK_BREAK, Control.ASK_DTR, Control.ASK_RTS)},
}


OUTPUT_TOPICS: Final[frozenset[Topic]] = frozenset({Control.ASK_DTR, Control.ASK_RTS})


def _topic_of(message: Message) -> Topic:
    if message.command is Command.SET_CONTROL:
        return _TOPICS.get(message.number, Control.ASK_FLOW)
    return message.command


class ComPortClient:
    """The client's side, on one connection."""

    def __init__(self, port: Port) -> None:
        """Make *port* the state of the server's line, if it is wanted; else learn that."""
        self.port = port
        self.is_suspended = False
        """Does the server want to be sent no bytes for now?"""
        self.on_answer: Callable[[], object] = lambda: None
        """Called with each answer."""
        self._mute: set[Topic] = set()  # for which the server has no answers
        self._awaited: set[Topic] = set()
        self._unanswered: dict[Topic, int] = {}
        self._to_send: list[bytes] = []
        self._ask(octet(Command.SET_MODEMSTATE_MASK, _MODEM_MASK), is_answered=False)
        self._ask(octet(Command.SET_LINESTATE_MASK, LineState.BREAK), is_answered=False)
        if port.is_wanted:
            self.ask_settings(port.line, only_changes=False)
            self.ask_outputs(port.outputs, only_changes=False)
            self.ask_break(is_on=port.is_break, only_changes=False)
        else:
            for command in SETTINGS:
                self._ask(_question(command))
            for control in (Control.ASK_DTR, Control.ASK_RTS):
                self._ask(octet(Command.SET_CONTROL, control))

    def data_to_send(self) -> list[bytes]:
        """Take the data of the subnegotiations that are due."""
        due, self._to_send = self._to_send, []
        return due

    @property
    def is_answered(self) -> bool:
        """Was all answered that was asked since `begin`?"""
        return not any(topic in self._unanswered for topic in self._awaited)

    @property
    def knows_settings(self) -> bool:
        """Has the server said what it has, for all but SET-CONTROL?

        Several servers do not answer that for a line that has no modem lines.
        """
        return not any(isinstance(topic, Command) for topic in self._unanswered)

    # ------------------------------------------------------------ requests

    def begin(self) -> None:
        """Begin a group of requests, for whose answers `is_answered` waits."""
        self._awaited.clear()

    def ask_settings(self, line: LineSettings, *, only_changes: bool = True) -> None:
        """Ask for *line*."""
        for command in SETTINGS:
            message = setting_of(command, line)
            if not only_changes or message != setting_of(command, self.port.line):
                self._ask(message)

    def ask_outputs(self, outputs: ModemLines, *, only_changes: bool = True) -> None:
        """Turn DTR and RTS on if they are in *outputs*, else off."""
        for line, on in ((ModemLines.DTR, Control.DTR_ON), (ModemLines.RTS, Control.RTS_ON)):
            if not only_changes or (outputs ^ self.port.outputs) & line:
                self._ask(octet(Command.SET_CONTROL, on if line in outputs else Control(on + 1)))

    def ask_break(self, *, is_on: bool, only_changes: bool = True) -> None:
        """Turn the break on or off."""
        if not only_changes or is_on is not self.port.is_break:
            control = Control.BREAK_ON if is_on else Control.BREAK_OFF
            self._ask(octet(Command.SET_CONTROL, control))

    def ask_purge(self, buffers: Purge) -> None:
        """Have buffers of the server discarded."""
        self._ask(octet(Command.PURGE_DATA, buffers.value))

    @property
    def missing(self) -> frozenset[str]:
        """What the server does not answer about, by the names of `Line.missing`."""
        names: dict[Topic, str] = {Control.ASK_DTR: "modem", Control.ASK_BREAK: "break"}
        return frozenset(names[topic] for topic in self._mute if topic in names)

    def give_up(self) -> bool:
        """Wait no longer for answers, as none has come in time.

        Those to what SET-CONTROL has asked are never waited for again. Returns whether only such
        were missing.
        """
        missing = self._awaited & set(self._unanswered)
        if OUTPUT_TOPICS & missing:  # it has no modem lines, and neither is answered
            missing |= OUTPUT_TOPICS
        self._mute |= {topic for topic in missing if isinstance(topic, Control)}
        for topic in missing:
            self._unanswered.pop(topic, None)
        return missing <= self._mute

    def _ask(self, message: Message, *, is_answered: bool = True) -> None:
        topic = _topic_of(message)
        if topic in self._mute:
            self._note(message)
        elif is_answered:
            self._awaited.add(topic)
            self._unanswered[topic] = self._unanswered.get(topic, 0) + 1
        self._to_send.append(message.encode(from_server=False))

    # ------------------------------------------------------------ what the server sends

    def receive(self, message: Message) -> BackendEvent | None:
        """Take a message of the server; return what it reports of the line."""
        match message.command:
            case Command.FLOWCONTROL_SUSPEND | Command.FLOWCONTROL_RESUME:
                self.is_suspended = message.command is Command.FLOWCONTROL_SUSPEND
            case Command.NOTIFY_MODEMSTATE:
                return self._note_inputs(inputs_of(message.number))
            case Command.NOTIFY_LINESTATE:
                return Event.BREAK if message.number & LineState.BREAK else None
            case Command.SIGNATURE | Command.SET_LINESTATE_MASK | Command.SET_MODEMSTATE_MASK:
                pass
            case _:
                self._take_answer(message)
        return None

    def _note_inputs(self, inputs: ModemLines) -> ModemLines | None:
        before, self.port.inputs = self.port.inputs, inputs
        return inputs if inputs != before else None

    def _take_answer(self, message: Message) -> None:
        self._note(message)
        topic = _topic_of(message)
        left = self._unanswered.get(topic, 0) - 1
        if left > 0:
            self._unanswered[topic] = left
        else:
            self._unanswered.pop(topic, None)
        self.on_answer()

    def _note(self, message: Message) -> None:
        """Note what is in force, as the server says."""
        port, number = self.port, message.number
        if message.command is Command.SET_CONTROL:
            match number:
                case Control.BREAK_ON | Control.BREAK_OFF:
                    port.is_break = number == Control.BREAK_ON
                    return
                case Control.DTR_ON | Control.RTS_ON:
                    port.outputs |= _line_of(number)
                    return
                case Control.DTR_OFF | Control.RTS_OFF:
                    port.outputs &= ~_line_of(number)
                    return
        port.line = with_setting(message, port.line) or port.line


def _line_of(control: int) -> ModemLines:
    return ModemLines.DTR if control in (Control.DTR_ON, Control.DTR_OFF) else ModemLines.RTS


def _question(command: Command) -> Message:
    """Ask what is in force: 0 asks in each of them."""
    return Message(command, bytes(4 if command is Command.SET_BAUDRATE else 1))
