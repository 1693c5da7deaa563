"""The rules of a session: what is wrong with a message, with QEMU's texts in its order."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.qmp.server.session import LONGEST_ID, MOST_OF_ID, NOTHING, QmpError, Session

KNOWN = {"qmp_capabilities": 1, "stop": 2}


def error_of(message: object, *, oob: bool = False) -> str | None:
    request = Session(is_negotiated=True, is_oob_enabled=oob).parse(message)
    return None if request.error is None else str(request.error)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([], "QMP input must be a JSON object"),
        ("x", "QMP input must be a JSON object"),
        (None, "QMP input must be a JSON object"),
        ({}, "QMP input lacks member 'execute'"),
        ({"id": 1}, "QMP input lacks member 'execute'"),
        ({"arguments": {}}, "QMP input lacks member 'execute'"),
        ({"execute": 5}, "QMP input member 'execute' must be a string"),
        ({"execute": None}, "QMP input member 'execute' must be a string"),
        ({"execute": "stop", "arguments": []}, "QMP input member 'arguments' must be an object"),
        ({"execute": "stop", "arguments": None}, "QMP input member 'arguments' must be an object"),
        ({"execute": "stop", "foo": 1}, "QMP input member 'foo' is unexpected"),
        ({"Execute": "stop"}, "QMP input member 'Execute' is unexpected"),
        ({"exec-oob": "stop"}, "QMP input member 'exec-oob' is unexpected"),
        ({"execute": "stop", "exec-oob": "stop"}, "QMP input member 'exec-oob' is unexpected"),
        ({"execute": "stop"}, None),
        ({"execute": "stop", "arguments": {"a": 1}, "id": None}, None),
    ],
)
def test_the_envelope(message: object, text: str | None) -> None:
    assert error_of(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"exec-oob": "stop"}, None),
        ({"exec-oob": 5}, "QMP input member 'exec-oob' must be a string"),
        (
            {"execute": "stop", "exec-oob": "stop"},
            "QMP input member 'execute' clashes with 'exec-oob'",
        ),
    ],
)
def test_the_envelope_with_oob(message: object, text: str | None) -> None:
    assert error_of(message, oob=True) == text


def test_a_good_request_keeps_its_parts() -> None:
    request = Session().parse({"execute": "stop", "arguments": {"a": 1}, "id": [2]})
    assert (request.name, request.arguments, request.reply_id) == ("stop", {"a": 1}, [2])
    assert not request.is_oob
    session = Session(is_negotiated=True, is_oob_enabled=True)
    assert session.parse({"exec-oob": "stop"}).is_oob


@pytest.mark.parametrize("reply_id", [0, None, "x", {"b": [1]}, 1.5])
def test_the_id_is_kept_also_when_the_envelope_is_wrong(reply_id: object) -> None:
    assert Session().parse({"execute": 5, "id": reply_id}).reply_id == reply_id


def test_an_id_is_as_long_as_it_can_be_told_in_one_piece() -> None:
    error = "QMP input member 'id' is too long"
    text = "x" * LONGEST_ID
    for short, long in [
        (text, text + "x"),
        ([text], [text, "x"]),
        ({text: 1}, {text + "x": 1}),
        ([1] * (MOST_OF_ID - 1), [1] * MOST_OF_ID),
        ([[1] * (MOST_OF_ID - 3), 1], [[1] * (MOST_OF_ID - 3), {}, 1]),
    ]:
        assert Session().parse({"execute": "stop", "id": short}).reply_id == short
        request = Session().parse({"execute": "stop", "id": long})
        assert (request.reply_id, str(request.error)) == (NOTHING, error)


def test_an_absent_id_is_not_null() -> None:
    assert Session().parse({"execute": "stop"}).reply_id is NOTHING
    assert Session().parse([]).reply_id is NOTHING


def check(session: Session, message: object) -> tuple[str, str] | int:
    try:
        return session.check(session.parse(message), KNOWN)
    except QmpError as error:
        return error.error_class, str(error)


@pytest.mark.parametrize("name", ["stop", "nonsense", "quit"])
def test_before_negotiation_any_command_but_one_is_unknown(name: str) -> None:
    text = "Expecting capabilities negotiation with 'qmp_capabilities'"
    assert check(Session(), {"execute": name}) == ("CommandNotFound", text)


def test_before_negotiation_what_is_wrong_with_the_envelope_comes_first() -> None:
    assert check(Session(), {"x": 1}) == ("GenericError", "QMP input member 'x' is unexpected")


def test_a_command_that_there_is_not() -> None:
    session = Session(is_negotiated=True)
    text = "The command nonsense has not been found"
    assert check(session, {"execute": "nonsense"}) == ("CommandNotFound", text)
    assert check(session, {"execute": "stop"}) == 2


@pytest.mark.parametrize(("enable", "oob"), [((), False), (("oob",), True), (("oob", "oob"), True)])
def test_negotiation_happens_once(enable: tuple[str, ...], oob: bool) -> None:
    session = Session()
    assert check(session, {"execute": "qmp_capabilities"}) == 1
    session.negotiate(enable)
    assert (session.is_negotiated, session.is_oob_enabled) == (True, oob)
    with pytest.raises(QmpError, match=r"is already complete, command ignored$") as raised:
        session.negotiate(())
    assert raised.value.error_class == "CommandNotFound"
    assert session.is_oob_enabled == oob


def test_of_two_wrong_members_the_one_is_told_that_qemu_meets_first() -> None:
    """QEMU goes through its hash table; the order of the text does not matter."""
    members: dict[str, Any] = {"execute": 5, "foo": 1}
    turned = dict(reversed(members.items()))
    assert error_of(members) == error_of(turned)
