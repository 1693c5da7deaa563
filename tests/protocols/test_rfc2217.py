"""RFC 2217: the messages, and the values of settings."""

from __future__ import annotations

import pytest
import serial.rfc2217 as pyserial  # type: ignore[import-untyped]
from hypothesis import given, strategies as st

from trio_chardev.events import LineSettings, ModemLines, Purge
from trio_chardev.protocols.rfc2217 import (
    CISCO_RATES,
    COM_PORT_OPTION,
    FROM_SERVER,
    MAX_SIGNATURE,
    Command,
    Control,
    Message,
    ModemState,
    decode,
    inputs_of,
    modem_state,
    setting_of,
    with_setting,
)

LINES = st.builds(
    LineSettings,
    speed=st.integers(1, 4_000_000),
    data_bits=st.sampled_from([5, 6, 7, 8]),
    parity=st.sampled_from("NEOMS"),
    stop_bits=st.sampled_from([1, 2]),
    xonxoff=st.booleans(),
    rtscts=st.booleans(),
)


# ---------------------------------------------------------------- messages


@given(st.binary(max_size=8), st.booleans())
def test_any_data_is_a_message_or_none_and_a_message_is_what_it_was(
    data: bytes, from_server: bool
) -> None:
    message = decode(data, from_server=from_server)
    if message is not None:
        again = decode(message.encode(from_server=from_server), from_server=from_server)
        assert again == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00", Message(Command.SIGNATURE)),
        (b"\x00picocom", Message(Command.SIGNATURE, b"picocom")),
        (b"\x01\x00\x00\x25\x80", Message(Command.SET_BAUDRATE, b"\x00\x00\x25\x80")),
        (b"\x01\x08", Message(Command.SET_BAUDRATE, b"\x08")),
        (b"\x02\x07", Message(Command.SET_DATASIZE, b"\x07")),
        (b"\x07", Message(Command.NOTIFY_MODEMSTATE)),
        (b"\x08", Message(Command.FLOWCONTROL_SUSPEND)),
        (b"\x08\x01", Message(Command.FLOWCONTROL_SUSPEND)),
        (b"\x0c\x03", Message(Command.PURGE_DATA, b"\x03")),
    ],
)
def test_a_message_of_a_client_is_understood(data: bytes, message: Message) -> None:
    assert decode(data, from_server=False) == message


@pytest.mark.parametrize(
    "data",
    [b"", b"\x0d", b"\x65\x00\x00\x25\x80", b"\x01\x00\x25", b"\x02", b"\x02\x07\x07", b"\xff"],
)
def test_what_is_no_message_of_a_client_is_none(data: bytes) -> None:
    assert decode(data, from_server=False) is None


def test_a_server_adds_100() -> None:
    assert decode(b"\x65\x00\x00\x25\x80", from_server=True) == Message(
        Command.SET_BAUDRATE, b"\x00\x00\x25\x80"
    )
    assert decode(b"\x01\x00\x00\x25\x80", from_server=True) is None


def test_of_a_signature_so_much_is_kept() -> None:
    message = decode(b"\x00" + b"x" * 5000, from_server=False)
    assert message == Message(Command.SIGNATURE, b"x" * MAX_SIGNATURE)


def test_the_numbers_are_those_that_pyserial_has() -> None:
    assert bytes([COM_PORT_OPTION]) == pyserial.COM_PORT_OPTION
    theirs = dict(pyserial.RFC2217_ANSWER_MAP)
    mine = {
        bytes([command]): bytes([command + FROM_SERVER])
        for command in Command
        if command is not Command.SIGNATURE
    }
    assert mine == theirs
    for control in Control:
        names = [
            name
            for name, value in vars(pyserial).items()
            if name.startswith("SET_CONTROL_") and value == bytes([control])
        ]
        assert len(names) == 1
    assert bytes([(Purge.RECEIVE | Purge.TRANSMIT).value]) == pyserial.PURGE_BOTH_BUFFERS
    assert ModemState.CD == pyserial.MODEMSTATE_MASK_CD
    assert ModemState.CTS_CHANGED == pyserial.MODEMSTATE_MASK_CTS_CHANGE


# ---------------------------------------------------------------- settings


@given(LINES, LINES)
def test_all_settings_are_carried_over_one_message_each(
    line: LineSettings, to: LineSettings
) -> None:
    for command in (
        *(Command.SET_BAUDRATE, Command.SET_DATASIZE),
        *(Command.SET_PARITY, Command.SET_STOPSIZE, Command.SET_CONTROL),
    ):
        line = with_setting(setting_of(command, to), line) or line
    if to.xonxoff and to.rtscts:  # it can say one of them only
        assert (line.xonxoff, line.rtscts) == (False, True)
    else:
        assert line == to


@pytest.mark.parametrize(
    "message",
    [
        *(Message(Command.SET_BAUDRATE, bytes(4)), Message(Command.SET_BAUDRATE, b"\x00")),
        *(Message(Command.SET_BAUDRATE, b"\x09"), Message(Command.SET_DATASIZE, b"\x00")),
        *(Message(Command.SET_DATASIZE, b"\x04"), Message(Command.SET_DATASIZE, b"\x09")),
        *(Message(Command.SET_PARITY, b"\x00"), Message(Command.SET_PARITY, b"\x06")),
        *(Message(Command.SET_STOPSIZE, b"\x00"), Message(Command.SET_STOPSIZE, b"\x03")),
        *(Message(Command.SET_CONTROL, b"\x00"), Message(Command.SET_CONTROL, b"\x0d")),
        *(Message(Command.SET_CONTROL, bytes([n])) for n in (17, 18, 19, 99)),
    ],
    ids=str,
)
def test_what_only_asks_or_what_nobody_has_sets_nothing(message: Message) -> None:
    assert with_setting(message, LineSettings()) is None


@pytest.mark.parametrize(("code", "rate"), CISCO_RATES.items())
def test_a_rate_of_one_octet_is_a_code_of_ciscos(code: int, rate: int) -> None:
    line = with_setting(Message(Command.SET_BAUDRATE, bytes([code])), LineSettings())
    assert line is not None
    assert line.speed == rate
    answer = setting_of(Command.SET_BAUDRATE, line, as_code=True)
    assert answer == Message(Command.SET_BAUDRATE, bytes([code]))


def test_a_rate_that_has_no_code_is_0() -> None:
    line = LineSettings(speed=31250)
    assert setting_of(Command.SET_BAUDRATE, line, as_code=True).value == b"\x00"


@pytest.mark.parametrize("inbound", [False, True])
@pytest.mark.parametrize(
    ("control", "flow"),
    [
        (Control.NO_FLOW, (False, False)),
        (Control.XON_XOFF, (True, False)),
        (Control.HARDWARE, (False, True)),
    ],
)
def test_flow_control_is_one_for_both_directions(
    control: Control, flow: tuple[bool, bool], inbound: bool
) -> None:
    number = control + (Control.NO_FLOW_IN - Control.NO_FLOW if inbound else 0)
    before = LineSettings(xonxoff=not flow[0], rtscts=not flow[1])
    line = with_setting(Message(Command.SET_CONTROL, bytes([number])), before)
    assert line is not None
    assert (line.xonxoff, line.rtscts) == flow


# ---------------------------------------------------------------- modem lines


@given(st.sets(st.sampled_from([ModemLines.CTS, ModemLines.DSR, ModemLines.RI, ModemLines.CAR])))
def test_the_inputs_are_carried_over(inputs: set[ModemLines]) -> None:
    lines = ModemLines(0)
    for line in inputs:
        lines |= line
    assert inputs_of(modem_state(lines)) == lines
    assert inputs_of(modem_state(lines | ModemLines.DTR | ModemLines.RTS)) == lines


def test_what_has_changed_is_marked_and_of_ri_its_end() -> None:
    ringing = ModemLines.RI | ModemLines.CTS
    assert modem_state(ringing, ModemLines(0)) == (
        ModemState.RI | ModemState.CTS | ModemState.CTS_CHANGED
    )
    assert modem_state(ModemLines.CTS, ringing) == ModemState.CTS | ModemState.RI_ENDED
    assert modem_state(ringing, ringing) == ModemState.RI | ModemState.CTS
