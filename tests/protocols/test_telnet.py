"""Telnet: parsing at every split, negotiations that end, bytes that arrive unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_chardev.events import Event
from trio_chardev.protocols.telnet import (
    MAX_AGREEMENTS,
    MAX_SUBNEGOTIATION,
    Decoded,
    Subnegotiation,
    TelnetConnection,
)
from trio_chardev.protocols.telnet_roles import (
    AYT,
    BREAK,
    CLIENT,
    DO,
    DONT,
    IAC,
    IP,
    NOP,
    SB,
    SE,
    SERVER,
    TN3270_CLIENT,
    TN3270_SERVER,
    WILL,
    WONT,
    Role,
)

Found = list[Decoded]

ALL_BYTES = bytes(range(256))
VERBS = (WILL, WONT, DO, DONT)
BINARY, ECHO, SGA, TIMING_MARK, NAWS = 0, 1, 3, 6, 31

roles = st.sampled_from([SERVER, CLIENT, TN3270_SERVER, TN3270_CLIENT])
telnet_bytes = st.lists(
    st.sampled_from([*VERBS, IAC, SB, SE, BREAK, AYT, NOP, 0, 10, 13, 24, 65]), max_size=40
).map(bytes)


def started(role: Role) -> TelnetConnection:
    """A party whose offers are on their way."""
    party = TelnetConnection(role)
    party.data_to_send()
    return party


def joined(events: Found) -> Found:
    """With bytes that follow each other in one piece."""
    found: Found = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def parse(party: TelnetConnection, *chunks: bytes) -> Found:
    return joined([event for chunk in chunks for event in party.receive_data(chunk)])


def telnet(*values: int | bytes) -> bytes:
    """Bytes of numbers and pieces."""
    return b"".join(v if isinstance(v, bytes) else bytes([v]) for v in values)


def settle(a: TelnetConnection, b: TelnetConnection) -> int:
    """Let both answer until neither has anything to say; how many turns that took."""
    for turn in range(100):
        from_a, from_b = a.data_to_send(), b.data_to_send()
        if not from_a and not from_b:
            return turn
        b.receive_data(from_a)
        a.receive_data(from_b)
    pytest.fail("they go on and on")


# ---------------------------------------------------------------- offers and answers


def test_a_server_opens_with_qemus_bytes_and_asks_for_the_window() -> None:
    party = TelnetConnection(SERVER)
    assert party.data_to_send().hex(" ") == "ff fb 01 ff fb 03 ff fb 00 ff fd 00 ff fd 1f"
    assert party.data_to_send() == b""


def test_tn3270_opens_with_qemus_bytes() -> None:
    opening = TelnetConnection(TN3270_SERVER).data_to_send()
    assert opening.hex(" ") == "ff fd 19 ff fb 19 ff fd 00 ff fb 00 ff fd 18 ff fa 18 01 ff f0"


def test_a_client_opens_with_nothing() -> None:
    assert TelnetConnection(CLIENT).data_to_send() == b""


def test_an_agreed_offer_is_not_answered() -> None:
    server = started(SERVER)
    server.receive_data(telnet(IAC, DO, ECHO, IAC, DO, SGA, IAC, DO, BINARY, IAC, WILL, BINARY))
    assert server.data_to_send() == b""


def test_a_refused_offer_is_not_answered() -> None:
    server = started(SERVER)
    server.receive_data(telnet(IAC, DONT, ECHO, IAC, WONT, BINARY))
    assert server.data_to_send() == b""


def test_what_is_already_so_is_not_answered() -> None:
    party = started(CLIENT)
    party.receive_data(telnet(IAC, WILL, ECHO))
    assert party.data_to_send() == telnet(IAC, DO, ECHO)
    party.receive_data(telnet(IAC, WILL, ECHO, IAC, DONT, BINARY, IAC, WONT, NAWS))
    assert party.data_to_send() == b""


@pytest.mark.parametrize("option", [5, 24, 32, 35, 36, 39, 44, 255])
@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_other_options_are_refused(role: Role, option: int) -> None:
    party = started(role)
    party.receive_data(telnet(IAC, WILL, option, IAC, DO, option))
    assert party.data_to_send() == telnet(IAC, DONT, option, IAC, WONT, option)


def test_a_client_does_not_echo_for_the_server() -> None:
    client = started(CLIENT)
    client.receive_data(telnet(IAC, DO, ECHO))
    assert client.data_to_send() == telnet(IAC, WONT, ECHO)


def test_an_option_can_be_ended_and_used_again() -> None:
    server = started(SERVER)
    server.receive_data(telnet(IAC, DO, BINARY))
    server.receive_data(telnet(IAC, DONT, BINARY))
    assert server.data_to_send() == telnet(IAC, WONT, BINARY)
    assert server.encode(b"\r") == b"\r\0"
    server.receive_data(telnet(IAC, DO, BINARY))
    assert server.data_to_send() == telnet(IAC, WILL, BINARY)
    assert server.encode(b"\r") == b"\r"


def test_every_timing_mark_is_refused() -> None:
    """inetutils' telnet drops all output after an interrupt until this answer (RFC 860)."""
    server = started(SERVER)
    for _ in range(2):
        server.receive_data(telnet(IAC, DO, TIMING_MARK))
        assert server.data_to_send() == telnet(IAC, WONT, TIMING_MARK)


def test_a_peer_that_does_not_read_gets_each_answer_once() -> None:
    server = started(SERVER)
    everything = telnet(*(telnet(IAC, verb, option) for verb in VERBS for option in range(256)))
    for _ in range(5):
        server.receive_data(everything + telnet(IAC, AYT))
    assert len(server.data_to_send()) <= 3 * 4 * 256 + len(b"\r\n[Yes]\r\n")


@given(roles, roles)
def test_offers_of_two_parties_are_settled(a: Role, b: Role) -> None:
    assert settle(TelnetConnection(a), TelnetConnection(b)) <= 4


def test_a_peer_that_flips_for_ever_is_refused() -> None:
    server = started(SERVER)
    for _ in range(MAX_AGREEMENTS):
        server.receive_data(telnet(IAC, WILL, SGA))
        assert server.data_to_send() == telnet(IAC, DO, SGA)
        server.receive_data(telnet(IAC, WONT, SGA))
        assert server.data_to_send() == telnet(IAC, DONT, SGA)
    server.receive_data(telnet(IAC, WILL, SGA, IAC, WONT, SGA))
    assert server.data_to_send() == telnet(IAC, DONT, SGA)


@given(
    roles,
    roles,
    st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from([0, 1, 3, 24, 25, 31])), max_size=9),
)
def test_there_is_no_loop_whatever_came_before(
    a_role: Role, b_role: Role, noise: list[tuple[int, int]]
) -> None:
    """The noise is from neither, so their states do not match."""
    a, b = TelnetConnection(a_role), TelnetConnection(b_role)
    for verb, option in noise:
        a.receive_data(telnet(IAC, verb, option))
    settle(a, b)
    assert (a.data_to_send(), b.data_to_send()) == (b"", b"")


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("command", [NOP, 242, IP, 245, AYT, 247, 248, 249, SE, 239, 7])
def test_a_command_of_two_bytes_does_not_take_the_byte_behind_it(command: int) -> None:
    """QEMU takes each for three bytes."""
    assert parse(started(SERVER), telnet(b"a", IAC, command, b"b")) == [b"ab"]


def test_are_you_there_is_answered() -> None:
    server = started(SERVER)
    server.receive_data(telnet(IAC, AYT))
    assert server.data_to_send() == b"\r\n[Yes]\r\n"


def test_break_is_an_event_between_its_neighbours() -> None:
    wire = telnet(b"a", IAC, BREAK, b"b", IAC, BREAK, IAC, BREAK)
    assert parse(started(SERVER), wire) == [b"a", Event.BREAK, b"b", Event.BREAK, Event.BREAK]


def test_a_break_that_is_sent_is_understood() -> None:
    client, server = started(CLIENT), started(SERVER)
    wire = client.encode(b"a") + client.encode_break() + client.encode(b"b")
    assert parse(server, wire) == [b"a", Event.BREAK, b"b"]


def test_subnegotiations_are_no_data() -> None:
    naws = telnet(IAC, SB, NAWS, 0, 80, 0, IAC, IAC, IAC, SE)
    assert parse(started(SERVER), b"a" + naws + b"b") == [
        b"a",
        Subnegotiation(NAWS, b"\x00\x50\x00\xff"),
        b"b",
    ]


def test_an_empty_subnegotiation_is_nothing() -> None:
    assert parse(started(SERVER), telnet(b"a", IAC, SB, IAC, SE, b"b")) == [b"ab"]


def test_a_command_ends_a_subnegotiation_that_has_no_end() -> None:
    wire = telnet(IAC, SB, NAWS, 1, IAC, BREAK, b"b")
    assert parse(started(SERVER), wire) == [Subnegotiation(NAWS, b"\1"), Event.BREAK, b"b"]


def test_of_an_endless_subnegotiation_little_is_kept() -> None:
    server = started(SERVER)
    server.receive_data(telnet(IAC, SB, NAWS))
    for _ in range(5):
        assert server.receive_data(bytes(1000)) == []
    found = parse(server, telnet(IAC, SE, b"b"))
    assert found == [Subnegotiation(NAWS, bytes(MAX_SUBNEGOTIATION - 1)), b"b"]


# ---------------------------------------------------------------- characters


def test_iac_is_doubled_when_it_is_sent() -> None:
    """QEMU leaves it single."""
    assert started(SERVER).encode(b"a\xffb\xff\xff") == b"a\xff\xffb\xff\xff\xff\xff"


def test_doubled_iac_is_one() -> None:
    assert parse(started(SERVER), b"a\xff\xffb") == [b"a\xffb"]


@pytest.mark.parametrize(
    ("wire", "data"),
    [
        (b"a\r\0b", b"a\rb"),
        (b"a\r\nb", b"a\r\nb"),
        (b"\r\0\r\0\0\n", b"\r\r\0\n"),
        (b"\r\xff\xff\0", b"\r\xff\0"),
        (b"\r\xff\xf1\0b", b"\rb"),
        (b"\0\r", b"\0\r"),
    ],
)
def test_cr_nul_is_cr_without_binary(wire: bytes, data: bytes) -> None:
    for split in range(len(wire)):
        assert parse(started(CLIENT), wire[:split], wire[split:]) == [data]


@pytest.mark.parametrize(
    ("data", "wire"),
    [(b"a\rb", b"a\r\0b"), (b"a\r\nb", b"a\r\nb"), (b"\r\0\n\r", b"\r\0\0\n\r\0")],
)
def test_a_lone_cr_is_sent_as_cr_nul_without_binary(data: bytes, wire: bytes) -> None:
    assert started(CLIENT).encode(data) == wire


def test_with_binary_nothing_happens_to_cr() -> None:
    server = started(SERVER)
    assert server.encode(b"a\rb") == b"a\rb", "it is on offer, so the peer reads on in binary"
    server.receive_data(telnet(IAC, WILL, BINARY))
    assert parse(server, b"a\r\0b") == [b"a\r\0b"]


def test_an_answer_comes_before_what_is_encoded_by_it() -> None:
    client = started(CLIENT)
    client.receive_data(telnet(IAC, DO, BINARY))
    assert client.encode(b"\r") == telnet(IAC, WILL, BINARY, b"\r")


crlf_bytes = st.one_of(st.binary(max_size=20), st.text("\r\n\0\xff").map(lambda s: s.encode("l1")))


@given(
    st.lists(crlf_bytes, max_size=6), st.lists(crlf_bytes, max_size=6), st.booleans(), st.booleans()
)
def test_all_bytes_survive_before_while_and_after_it_is_negotiated(
    to_client: list[bytes], to_server: list[bytes], is_early: bool, is_server_plain: bool
) -> None:
    """Answers and data cross in any way; *is_server_plain*: nobody offers anything."""
    server = TelnetConnection(CLIENT if is_server_plain else SERVER)
    client = TelnetConnection(CLIENT)
    got_by_client: Found = []
    got_by_server: Found = []
    if is_early:
        got_by_server += server.receive_data(client.encode(b"".join(to_server)))
        to_server = [b"".join(to_server), *to_server]
    for down, up in zip(
        [*to_client, *[b""] * 6], [*to_server[is_early:], *[b""] * 6], strict=False
    ):
        from_server, from_client = server.encode(down), client.encode(up)
        got_by_client += client.receive_data(from_server)
        got_by_server += server.receive_data(from_client)
    assert b"".join(e for e in got_by_client if isinstance(e, bytes)) == b"".join(to_client)
    assert b"".join(e for e in got_by_server if isinstance(e, bytes)) == b"".join(to_server)


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_every_byte_survives(role: Role) -> None:
    server, client = TelnetConnection(role), TelnetConnection(CLIENT)
    settle(server, client)
    data = ALL_BYTES + ALL_BYTES[::-1]
    for value in data:
        assert client.receive_data(server.encode(bytes([value]))) == [bytes([value])]
        assert server.receive_data(client.encode(bytes([value]))) == [bytes([value])]
    assert client.receive_data(server.encode(data)) == [data]
    assert server.receive_data(client.encode(data)) == [data]


@given(roles, telnet_bytes)
def test_a_split_at_any_byte_changes_nothing(role: Role, wire: bytes) -> None:
    whole = started(role)
    found, answers = parse(whole, wire), whole.data_to_send()
    for split in range(len(wire) + 1):
        party = started(role)
        assert parse(party, wire[:split], wire[split:]) == found
        assert party.data_to_send() == answers
    party = started(role)
    assert parse(party, *(bytes([value]) for value in wire)) == found


# ---------------------------------------------------------------- tn3270


def test_tn3270_gives_the_commands_round_records_as_data() -> None:
    party = started(TN3270_SERVER)
    wire = telnet(IAC, SB, 24, 0, b"IBM-3278-2", IAC, SE, b"\x7d\r\0", IAC, 239)
    assert parse(party, wire) == [wire]
    assert party.data_to_send() == b""


def test_tn3270_drops_commands_of_two_bytes() -> None:
    """It answers no AYT: a text would not be a record."""
    party = started(TN3270_SERVER)
    assert parse(party, telnet(b"a", IAC, NOP, IAC, IP, IAC, AYT, b"b", IAC, IAC)) == [b"ab\xff"]
    assert party.data_to_send() == b""


def test_tn3270_sends_as_it_is_told() -> None:
    """Its user makes the records, with their IAC EOR, itself."""
    record = telnet(b"\xf5\xff\xff\r", IAC, 239)
    assert started(TN3270_SERVER).encode(record) == record


def test_a_tn3270_client_agrees_and_asks_its_user_for_the_terminal() -> None:
    server, client = TelnetConnection(TN3270_SERVER), TelnetConnection(TN3270_CLIENT)
    found = client.receive_data(server.data_to_send())
    assert found == [bytes.fromhex("fffa1801fff0")]
    assert client.data_to_send().hex(" ") == "ff fb 19 ff fd 19 ff fb 00 ff fd 00 ff fb 18"
