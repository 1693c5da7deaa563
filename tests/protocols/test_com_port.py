"""The server of RFC 2217: each request is answered, in order, with what is in force."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_chardev.events import OUTPUTS, BreakState, LineRequest, LineSettings, ModemLines, Purge
from trio_chardev.protocols.com_port import (
    MAX_WAITING,
    ComPortServer,
    Port,
)
from trio_chardev.protocols.rfc2217 import (
    Command,
    Control,
    LineState,
    Message,
    ModemState,
    decode,
    setting_of,
)

LINE = LineSettings(speed=9600)


class Client:
    """Asks a server, and reads its answers."""

    def __init__(self) -> None:
        self.server = ComPortServer(Port(LINE, ModemLines(0)), signature=b"trio-chardev")

    def ask(self, command: Command, value: int | bytes = b"") -> LineRequest | None:
        if isinstance(value, int):
            value = value.to_bytes(4 if command is Command.SET_BAUDRATE else 1, "big")
        return self.server.receive(Message(command, value))

    def control(self, control: Control) -> LineRequest | None:
        return self.ask(Command.SET_CONTROL, control)

    def answers(self) -> list[tuple[Command, int]]:
        answers = []
        for data in self.server.data_to_send():
            message = decode(data, from_server=True)
            assert message is not None
            answers.append((message.command, message.number))
        return answers

    def heard(
        self, request: LineRequest, in_force: LineRequest | None = None
    ) -> LineRequest | None:
        """The line has done *request*, or else *in_force* is in force."""
        return self.server.acknowledge(request, request if in_force is None else in_force)


@pytest.fixture
def client() -> Client:
    return Client()


def test_the_signature_is_told_and_that_of_the_client_kept(client: Client) -> None:
    assert client.ask(Command.SIGNATURE) is None
    assert client.server.data_to_send() == [b"\x64trio-chardev"]
    assert client.ask(Command.SIGNATURE, b"miniterm") is None
    assert client.server.client_signature == b"miniterm"
    assert client.server.data_to_send() == []


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (Command.SET_BAUDRATE, 9600),
        (Command.SET_DATASIZE, 8),
        (Command.SET_PARITY, 1),
        (Command.SET_STOPSIZE, 1),
        (Command.SET_CONTROL, Control.NO_FLOW),
        (Command.SET_CONTROL, Control.BREAK_OFF),
        (Command.SET_CONTROL, Control.DTR_OFF),
        (Command.SET_CONTROL, Control.RTS_OFF),
    ],
)
def test_what_is_in_force_already_touches_nothing_and_is_answered_at_once(
    client: Client, command: Command, value: int
) -> None:
    for _ in range(3):
        assert client.ask(command, value) is None
        assert client.answers() == [(command, value)]


@pytest.mark.parametrize(
    ("command", "value", "answer"),
    [
        (Command.SET_BAUDRATE, 0, 9600),
        (Command.SET_DATASIZE, 0, 8),
        (Command.SET_PARITY, 0, 1),
        (Command.SET_STOPSIZE, 0, 1),
        (Command.SET_CONTROL, Control.ASK_FLOW, Control.NO_FLOW),
        (Command.SET_CONTROL, Control.ASK_FLOW_IN, Control.NO_FLOW_IN),
        (Command.SET_CONTROL, Control.ASK_BREAK, Control.BREAK_OFF),
        (Command.SET_CONTROL, Control.ASK_DTR, Control.DTR_OFF),
        (Command.SET_CONTROL, Control.ASK_RTS, Control.RTS_OFF),
        # what nobody has is answered with what is
        (Command.SET_STOPSIZE, 3, 1),
        (Command.SET_DATASIZE, 9, 8),
        (Command.SET_CONTROL, Control.DCD_FLOW, Control.NO_FLOW),
        (Command.SET_CONTROL, Control.DTR_FLOW_IN, Control.NO_FLOW_IN),
        (Command.SET_CONTROL, 77, Control.NO_FLOW),
    ],
)
def test_who_asks_is_told_what_is_in_force(
    client: Client, command: Command, value: int, answer: int
) -> None:
    assert client.ask(command, value) is None
    assert client.answers() == [(command, answer)]


def test_a_new_value_is_a_wish_and_answered_when_it_was_heard(client: Client) -> None:
    wish = client.ask(Command.SET_BAUDRATE, 115200)
    assert wish == attrs.evolve(LINE, speed=115200)
    assert client.answers() == []
    assert client.heard(wish) is None
    assert client.answers() == [(Command.SET_BAUDRATE, 115200)]


def test_what_the_line_refuses_is_answered_with_what_is_in_force(client: Client) -> None:
    wish = client.ask(Command.SET_BAUDRATE, 31)
    assert wish is not None
    assert client.heard(wish, LINE) is None
    assert client.answers() == [(Command.SET_BAUDRATE, 9600)]
    assert client.ask(Command.SET_BAUDRATE, 31) is not None  # it may try again


def test_wishes_build_on_those_before_and_are_answered_in_order(client: Client) -> None:
    assert client.ask(Command.SET_BAUDRATE, 300) == attrs.evolve(LINE, speed=300)
    assert client.ask(Command.SET_PARITY, 3) == attrs.evolve(LINE, speed=300, parity="E")
    assert client.ask(Command.SET_DATASIZE, 8) is None  # so it is; its answer waits for its turn
    assert client.control(Control.DTR_ON) == ModemLines.DTR
    assert client.control(Control.RTS_ON) == OUTPUTS
    assert client.answers() == []
    client.heard(attrs.evolve(LINE, speed=300))
    assert client.answers() == [(Command.SET_BAUDRATE, 300)]
    client.heard(attrs.evolve(LINE, speed=300, parity="E"))
    assert client.answers() == [(Command.SET_PARITY, 3), (Command.SET_DATASIZE, 8)]
    client.heard(ModemLines.DTR)
    client.heard(OUTPUTS)
    assert client.answers() == [
        (Command.SET_CONTROL, Control.DTR_ON),
        (Command.SET_CONTROL, Control.RTS_ON),
    ]


def test_what_is_refused_takes_nothing_with_it_that_is_not(client: Client) -> None:
    seven = attrs.evolve(LINE, data_bits=7)
    assert client.ask(Command.SET_DATASIZE, 7) == seven
    even = attrs.evolve(seven, parity="E")
    assert client.ask(Command.SET_PARITY, 3) == even
    assert client.heard(seven, LINE) is None
    assert client.answers() == [(Command.SET_DATASIZE, 8)]
    assert client.heard(even, LINE) == attrs.evolve(LINE, parity="E")
    assert client.answers() == []
    assert client.heard(attrs.evolve(LINE, parity="E")) is None
    assert client.answers() == [(Command.SET_PARITY, 3)]


def test_what_is_refused_again_is_answered(client: Client) -> None:
    wish = client.ask(Command.SET_DATASIZE, 7)
    other = client.ask(Command.SET_PARITY, 3)
    assert wish is not None
    assert other is not None
    client.heard(wish, LINE)
    again = client.heard(other, LINE)
    assert again is not None
    assert client.heard(again, LINE) is None
    assert client.answers() == [(Command.SET_DATASIZE, 8), (Command.SET_PARITY, 1)]


def test_an_answer_to_a_later_request_is_one_to_those_before(client: Client) -> None:
    """A bridge that is asked without end forgets some."""
    client.ask(Command.SET_BAUDRATE, 300)
    client.control(Control.DTR_ON)
    latest = client.ask(Command.SET_BAUDRATE, 1200)
    assert latest is not None
    client.heard(latest)
    assert client.answers() == [
        (Command.SET_BAUDRATE, 1200),
        (Command.SET_CONTROL, Control.DTR_OFF),
        (Command.SET_BAUDRATE, 1200),
    ]


@pytest.mark.parametrize("is_on", [False, True])
def test_the_state_of_a_break_is_kept_here(is_on: bool) -> None:
    """The kernel has no way to ask."""
    client = Client()
    client.server.port.is_break = not is_on
    wanted = Control.BREAK_ON if is_on else Control.BREAK_OFF
    assert client.control(wanted) == BreakState(is_on)
    client.heard(BreakState(is_on))
    assert client.control(Control.ASK_BREAK) is None
    assert client.control(wanted) is None
    assert client.answers() == [(Command.SET_CONTROL, wanted)] * 3


def test_after_a_change_of_the_backend_its_values_are_told(client: Client) -> None:
    client.server.port.note(LineSettings(speed=50, parity="O"))
    client.server.port.note(OUTPUTS | ModemLines.CTS)
    client.ask(Command.SET_BAUDRATE, 0)
    client.ask(Command.SET_PARITY, 0)
    client.control(Control.ASK_RTS)
    assert client.answers() == [
        (Command.SET_BAUDRATE, 50),
        (Command.SET_PARITY, 2),
        (Command.SET_CONTROL, Control.RTS_ON),
    ]


def test_who_asks_by_ciscos_codes_is_answered_by_them(client: Client) -> None:
    assert client.ask(Command.SET_BAUDRATE, b"\x08") is None
    assert client.server.data_to_send() == [b"\x65\x08"]
    assert client.ask(Command.SET_BAUDRATE, b"\x00") is None
    assert client.server.data_to_send() == [b"\x65\x08"]


@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_buffer_is_emptied_on_demand_alone_and_answered_when_it_is(
    client: Client, value: int
) -> None:
    """An earlier answer would let the client send what is then discarded."""
    assert client.ask(Command.PURGE_DATA, value) == Purge(value)
    assert client.answers() == []
    client.heard(Purge(value))
    assert client.answers() == [(Command.PURGE_DATA, value)]


def test_a_buffer_that_does_not_exist_is_answered_at_once(client: Client) -> None:
    assert client.ask(Command.PURGE_DATA, 9) is None
    assert client.answers() == [(Command.PURGE_DATA, 9)]


@pytest.mark.parametrize("is_suspended", [True, False])
def test_a_client_that_wants_silence_says_so_without_an_answer(
    client: Client, is_suspended: bool
) -> None:
    client.server.is_suspended = not is_suspended
    command = Command.FLOWCONTROL_SUSPEND if is_suspended else Command.FLOWCONTROL_RESUME
    assert client.ask(command) is None
    assert client.server.is_suspended is is_suspended
    assert client.answers() == []


# ---------------------------------------------------------------- notifications


def test_nothing_is_notified_unasked(client: Client) -> None:
    client.server.modem_changed(ModemLines.CTS | ModemLines.CAR)
    client.server.break_came()
    assert client.answers() == []
    assert client.ask(Command.NOTIFY_MODEMSTATE) is None  # as pyserial asks
    assert client.answers() == [(Command.NOTIFY_MODEMSTATE, ModemState.CTS | ModemState.CD)]


def test_with_a_mask_what_is_in_it_is_notified(client: Client) -> None:
    assert client.ask(Command.SET_MODEMSTATE_MASK, ModemState.CTS) is None
    assert client.ask(Command.SET_LINESTATE_MASK, LineState.BREAK) is None
    assert client.answers() == [
        (Command.SET_MODEMSTATE_MASK, ModemState.CTS),
        (Command.NOTIFY_MODEMSTATE, 0),
        (Command.SET_LINESTATE_MASK, LineState.BREAK),
    ]
    client.server.modem_changed(ModemLines.CAR)
    assert client.answers() == []
    client.server.modem_changed(ModemLines.CAR | ModemLines.CTS)
    client.server.modem_changed(ModemLines.CAR | ModemLines.CTS)
    client.server.break_came()
    assert client.answers() == [
        (Command.NOTIFY_MODEMSTATE, ModemState.CD | ModemState.CTS | ModemState.CTS_CHANGED),
        (Command.NOTIFY_LINESTATE, LineState.BREAK),
    ]


# ---------------------------------------------------------------- all together

REQUESTS = st.one_of(
    st.builds(
        Message,
        st.just(Command.SET_BAUDRATE),
        st.sampled_from([0, 300, 9600, 115200]).map(lambda n: n.to_bytes(4, "big")),
    ),
    st.builds(
        Message,
        st.sampled_from([Command.SET_DATASIZE, Command.SET_PARITY, Command.SET_STOPSIZE]),
        st.integers(0, 9).map(lambda n: bytes([n])),
    ),
    st.builds(Message, st.just(Command.SET_CONTROL), st.integers(0, 20).map(lambda n: bytes([n]))),
)


@given(st.lists(st.one_of(REQUESTS, st.booleans()), max_size=40))
def test_each_request_has_one_answer_in_order_and_in_the_end_all_is_as_was_wished(
    steps: list[Message | bool],
) -> None:
    """A bool: the line hears the oldest wish, or refuses it."""
    server = ComPortServer(Port(LINE, ModemLines(0)), signature=b"x")
    wishes: list[LineRequest] = []
    asked: list[Command] = []
    answered: list[Command] = []
    in_force = Port(LINE, ModemLines(0))

    def hear(obeys: bool) -> None:
        if wishes:
            wish = wishes.pop(0)
            if obeys:
                in_force.note(wish)
                again = server.acknowledge(wish, wish)
            else:
                again = server.acknowledge(wish, in_force_of(wish))
            if again is not None:
                wishes.append(again)
        for data in server.data_to_send():
            message = decode(data, from_server=True)
            assert message is not None
            answered.append(message.command)

    def in_force_of(wish: LineRequest) -> LineRequest:
        match wish:
            case LineSettings():
                return in_force.line
            case ModemLines():
                return in_force.outputs
        return BreakState(in_force.is_break)

    for step in steps:
        if isinstance(step, bool):
            hear(step)
        else:
            asked.append(step.command)
            if (wish := server.receive(step)) is not None:
                wishes.append(wish)
    while wishes:
        hear(True)
    hear(True)
    assert answered == asked
    assert server.port == in_force


def test_of_a_client_that_asks_without_end_so_much_waits(client: Client) -> None:
    wishes = [client.ask(Command.SET_BAUDRATE, 300 + n) for n in range(3 * MAX_WAITING)]
    assert sum(wish is not None for wish in wishes) == MAX_WAITING
    assert client.answers() == [(Command.SET_BAUDRATE, 9600)] * (2 * MAX_WAITING)
    assert setting_of(Command.SET_BAUDRATE, client.server.port.line).number == 9600
