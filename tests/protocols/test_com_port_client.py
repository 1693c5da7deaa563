"""The client of RFC 2217: it asks for what changes, and knows what the server has said."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_chardev.events import OUTPUTS, BackendEvent, Event, LineSettings, ModemLines, Purge
from trio_chardev.protocols.com_port import ComPortServer, Port
from trio_chardev.protocols.com_port_client import SETTINGS, ComPortClient
from trio_chardev.protocols.rfc2217 import Command, Control, LineState, Message, ModemState, decode

LINE = LineSettings(speed=9600)


def asked(client: ComPortClient) -> list[tuple[Command, int]]:
    """Take what *client* has asked, but not how it begins."""
    messages = [decode(data, from_server=False) for data in client.data_to_send()]
    begins = (Command.SET_LINESTATE_MASK, Command.SET_MODEMSTATE_MASK)
    return [(m.command, m.number) for m in messages if m is not None and m.command not in begins]


def answer(client: ComPortClient, command: Command, value: int) -> BackendEvent | None:
    size = 4 if command is Command.SET_BAUDRATE else 1
    return client.receive(Message(command, value.to_bytes(size, "big")))


def settled(port: Port | None = None) -> ComPortClient:
    """Return a client whose first questions are answered with what it supposes."""
    port = port or Port(LINE)
    client = ComPortClient(port)
    server = ComPortServer(Port(port.line, port.outputs), signature=b"x")
    talk(client, server)
    assert client.is_answered
    return client


def talk(client: ComPortClient, server: ComPortServer) -> None:
    """Pass on what each has to say, and grant what the client asks for."""
    while requests := client.data_to_send():
        for data in requests:
            request = decode(data, from_server=False)
            assert request is not None
            if (wish := server.receive(request)) is not None:
                server.acknowledge(wish, wish)
        for data in server.data_to_send():
            message = decode(data, from_server=True)
            assert message is not None
            client.receive(message)


def test_it_begins_with_questions_and_learns_what_there_is() -> None:
    port = Port(LINE)
    client = ComPortClient(port)
    assert not client.knows_settings
    far = Port(LineSettings(300, 7, "E", 2, xonxoff=True), ModemLines.RTS)
    far.inputs = ModemLines.CAR
    talk(client, ComPortServer(far, signature=b"far"))
    assert client.knows_settings
    assert client.is_answered
    assert (port.line, port.outputs, port.inputs) == (far.line, far.outputs, far.inputs)


def test_it_begins_with_what_is_wanted() -> None:
    port = Port(LineSettings(300, 7, "E", 2, rtscts=True), ModemLines.RTS, is_break=True)
    port.is_wanted = True
    far = Port(LINE)
    talk(ComPortClient(port), ComPortServer(far, signature=b""))
    assert (far.line, far.outputs, far.is_break) == (port.line, port.outputs, True)


def test_it_never_asks_for_the_signature() -> None:
    """Gensiot 2.6.2 ends by SIGSEGV when it is asked."""
    client = ComPortClient(Port(LINE))
    assert not any(data[0] == Command.SIGNATURE for data in client.data_to_send())


def test_only_what_changes_is_asked_for() -> None:
    client = settled()
    client.begin()
    client.ask_settings(attrs.evolve(LINE, parity="E", xonxoff=True))
    client.ask_outputs(ModemLines.DTR)
    client.ask_break(is_on=False)
    assert asked(client) == [
        (Command.SET_PARITY, 3),
        (Command.SET_CONTROL, Control.XON_XOFF),
        (Command.SET_CONTROL, Control.RTS_OFF),
    ]
    assert not client.is_answered
    answer(client, Command.SET_PARITY, 3)
    answer(client, Command.SET_CONTROL, Control.XON_XOFF)
    assert not client.is_answered
    answer(client, Command.SET_CONTROL, Control.RTS_OFF)
    assert client.is_answered
    assert client.port.outputs == ModemLines.DTR


def test_an_answer_says_what_is_in_force() -> None:
    client = settled()
    client.ask_settings(attrs.evolve(LINE, data_bits=7))
    answer(client, Command.SET_DATASIZE, 8)
    assert client.is_answered
    assert client.port.line == LINE


def test_nothing_is_asked_for_that_is_in_force() -> None:
    client = settled()
    client.ask_settings(LINE)
    client.ask_outputs(OUTPUTS)
    assert client.data_to_send() == []


def test_a_break_is_turned_on_and_off() -> None:
    client = settled()
    client.ask_break(is_on=True)
    assert asked(client) == [(Command.SET_CONTROL, Control.BREAK_ON)]
    answer(client, Command.SET_CONTROL, Control.BREAK_ON)
    assert client.port.is_break
    client.ask_break(is_on=False)
    answer(client, Command.SET_CONTROL, Control.BREAK_OFF)
    assert not client.port.is_break


def test_a_purge_is_waited_for() -> None:
    client = settled()
    client.ask_purge(Purge.RECEIVE | Purge.TRANSMIT)
    assert asked(client) == [(Command.PURGE_DATA, 3)]
    assert not client.is_answered
    answer(client, Command.PURGE_DATA, 3)
    assert client.is_answered


def test_the_inputs_are_reported_when_they_change() -> None:
    client = settled()
    both = ModemState.CTS | ModemState.CD
    assert answer(client, Command.NOTIFY_MODEMSTATE, both) == ModemLines.CTS | ModemLines.CAR
    assert answer(client, Command.NOTIFY_MODEMSTATE, both) is None
    assert client.port.inputs == ModemLines.CTS | ModemLines.CAR


def test_a_break_on_the_line_is_reported() -> None:
    client = settled()
    assert answer(client, Command.NOTIFY_LINESTATE, LineState.BREAK) is Event.BREAK
    assert answer(client, Command.NOTIFY_LINESTATE, LineState.DATA_READY) is None


def test_a_server_that_wants_silence_gets_it() -> None:
    client = settled()
    client.receive(Message(Command.FLOWCONTROL_SUSPEND))
    assert client.is_suspended
    client.receive(Message(Command.FLOWCONTROL_RESUME))
    assert not client.is_suspended


def test_a_server_without_answers_about_modem_lines_is_not_asked_for_them_again() -> None:
    """ser2net gives none for a PTY. What was set is taken as set."""
    client = settled()
    client.begin()
    client.ask_outputs(ModemLines.DTR)
    assert client.give_up()
    assert client.is_answered
    client.begin()
    client.ask_outputs(ModemLines.RTS)
    assert client.is_answered
    assert client.port.outputs == ModemLines.RTS
    client.begin()
    client.ask_break(is_on=True)
    assert not client.is_answered


def test_a_server_without_an_answer_about_the_rate_is_at_fault() -> None:
    client = settled()
    client.begin()
    client.ask_settings(attrs.evolve(LINE, speed=300))
    assert not client.give_up()
    assert client.is_answered


def test_a_late_answer_is_none_to_what_was_asked_since() -> None:
    """The first questions are answered by the first answers, in their order."""
    port = Port(LINE)
    client = ComPortClient(port)
    for command in SETTINGS[:-1]:
        answer(
            client, command, {Command.SET_BAUDRATE: 9600, Command.SET_DATASIZE: 8}.get(command, 1)
        )
    assert client.knows_settings
    client.begin()
    client.ask_outputs(ModemLines(0))
    answer(client, Command.SET_CONTROL, Control.DTR_ON)
    answer(client, Command.SET_CONTROL, Control.RTS_ON)
    assert not client.is_answered
    answer(client, Command.SET_CONTROL, Control.DTR_OFF)
    answer(client, Command.SET_CONTROL, Control.RTS_OFF)
    assert client.is_answered
    assert port.outputs == ModemLines(0)


@pytest.mark.parametrize("command", [Command.SET_BAUDRATE, Command.SET_CONTROL])
def test_an_answer_to_nothing_is_noted(command: Command) -> None:
    client = settled()
    answer(client, command, 300 if command is Command.SET_BAUDRATE else Control.DTR_OFF)
    assert client.is_answered
    assert (client.port.line.speed == 300) is (command is Command.SET_BAUDRATE)


LINES = st.builds(
    LineSettings,
    st.sampled_from([300, 9600, 115200, 1_000_000]),
    st.sampled_from([5, 6, 7, 8]),
    st.sampled_from(["N", "E", "O", "M", "S"]),
    st.sampled_from([1, 2]),
    st.booleans(),
)


@given(st.lists(st.one_of(LINES, st.integers(0, 3), st.booleans()), max_size=20))
def test_with_a_server_that_grants_all_both_agree_after_each_request(
    requests: list[LineSettings | int | bool],
) -> None:
    client = settled()
    far = Port(LINE)
    server = ComPortServer(far, signature=b"")
    for request in requests:
        client.begin()
        if isinstance(request, bool):
            client.ask_break(is_on=request)
        elif isinstance(request, int):
            client.ask_outputs(ModemLines(request * 2))
        else:
            client.ask_settings(request)
        talk(client, server)
        assert client.is_answered
        assert (client.port.line, client.port.outputs, client.port.is_break) == (
            *(far.line, far.outputs, far.is_break),
        )
