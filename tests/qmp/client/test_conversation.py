from __future__ import annotations

import os
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from trio_chardev.errors import OptionsError
from trio_chardev.qmp.client.conversation import (
    Call,
    Conversation,
    QmpConnectionError,
    QmpEvent,
    QmpEvents,
)
from trio_chardev.qmp.client.messages import MAX_IN_FLIGHT
from trio_chardev.qmp.json.codec import Decoder, Malformed
from trio_chardev.qmp.server.session import QmpError

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
STAMP = {"seconds": 1500000000, "microseconds": 250000}


@pytest.fixture
def talk() -> Conversation:
    """After the greeting."""
    return greeted()


def greeted() -> Conversation:
    conversation = Conversation("The server")
    conversation.take(GREETING)
    return conversation


def submit(conversation: Conversation, command: str = "x", *, is_oob: bool = False) -> Call:
    return conversation.submit(command, {}, is_oob=is_oob, fds=[])


def drain(conversation: Conversation) -> list[int]:
    """The ids of all that may be sent now."""
    return [call.id for call in iter(conversation.begin, None)]


def sent(call: Call) -> Any:
    [message] = Decoder().feed(call.wire)
    return message


# ---------------------------------------------------------------- commands


def test_command_is_an_object_with_an_id(talk: Conversation) -> None:
    call = talk.submit("a", {"b": "é"}, is_oob=False, fds=[])
    assert sent(call) == {"execute": "a", "id": call.id, "arguments": {"b": "é"}}
    oob = submit(talk, "a", is_oob=True)
    assert sent(oob) == {"exec-oob": "a", "id": oob.id}
    assert oob.id != call.id


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_no_server_can_read_is_not_sent(talk: Conversation, number: float) -> None:
    with pytest.raises(OptionsError, match="The command can't be sent: JSON parse error"):
        talk.submit("a", {"b": number}, is_oob=False, fds=[])
    with pytest.raises(TypeError):
        talk.submit("a", {"b": b"bytes"}, is_oob=False, fds=[])
    assert drain(talk) == []


def test_no_more_in_flight_than_the_server_queues(talk: Conversation) -> None:
    calls = [submit(talk) for _ in range(MAX_IN_FLIGHT + 2)]
    assert drain(talk) == [call.id for call in calls[:MAX_IN_FLIGHT]]
    talk.take({"return": {}, "id": calls[0].id})
    assert drain(talk) == [calls[MAX_IN_FLIGHT].id]


def test_oob_overtakes_and_needs_no_room(talk: Conversation) -> None:
    plain = [submit(talk) for _ in range(MAX_IN_FLIGHT + 1)]
    oob = [submit(talk, is_oob=True) for _ in range(2)]
    assert drain(talk) == [*(c.id for c in oob), *(c.id for c in plain[:MAX_IN_FLIGHT])]


def test_left_before_it_was_begun_is_not_sent(talk: Conversation) -> None:
    first, second = submit(talk), submit(talk)
    talk.leave(first)
    assert drain(talk) == [second.id]


def test_left_after_it_was_begun_is_still_in_flight(talk: Conversation) -> None:
    """For the server it still takes a place in the queue."""
    calls = [submit(talk) for _ in range(MAX_IN_FLIGHT + 1)]
    drain(talk)
    talk.leave(calls[0])
    assert drain(talk) == []
    talk.take({"return": "for nobody", "id": calls[0].id})
    assert drain(talk) == [calls[MAX_IN_FLIGHT].id]


def test_left_oob_is_forgotten(talk: Conversation) -> None:
    call = submit(talk, is_oob=True)
    drain(talk)
    talk.leave(call)
    talk.take({"return": {}, "id": call.id})
    assert not call.done.is_set()


def test_descriptors_are_closed_once_when_nobody_sends_them(talk: Conversation) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    left, ended = (talk.submit("getfd", {}, is_oob=False, fds=[fd]) for fd in fds)
    talk.leave(left)
    talk.end("over")
    talk.leave(ended)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


# ---------------------------------------------------------------- replies


def test_replies_are_matched_by_id(talk: Conversation) -> None:
    first, second = submit(talk), submit(talk, is_oob=True)
    drain(talk)
    talk.take({"return": 2, "id": second.id})
    assert second.result() == 2
    assert not first.done.is_set()
    talk.take({"id": first.id, "return": None})
    assert first.result() is None


def test_error_has_class_and_desc(talk: Conversation) -> None:
    call = submit(talk)
    drain(talk)
    error = {"class": "CommandNotFound", "desc": "There is no such\ncommand"}
    talk.take({"error": error, "id": call.id})
    with pytest.raises(QmpError) as caught:
        call.result()
    assert caught.value.error_class == "CommandNotFound"
    assert str(caught.value) == "There is no such command"  # one line


def test_error_without_id_is_for_the_oldest(talk: Conversation) -> None:
    """A server that could not read a command does not know its id; it answers in order."""
    submit(talk, is_oob=True)
    oldest, younger = submit(talk), submit(talk)
    drain(talk)
    talk.take({"error": {"class": "GenericError", "desc": "JSON parse error"}})
    with pytest.raises(QmpError, match="JSON parse error"):
        oldest.result()
    assert not younger.done.is_set()


@pytest.mark.parametrize("strange", [99, -1, None, "1", [1], {"a": 1}, 1.5])
def test_reply_to_nothing_is_dropped(talk: Conversation, strange: object) -> None:
    call = submit(talk)
    drain(talk)
    talk.take({"return": {}, "id": strange})
    assert not call.done.is_set()
    assert talk.end_reason is None


def test_reply_before_anything_was_sent_is_dropped(talk: Conversation) -> None:
    call = submit(talk)
    talk.take({"return": {}, "id": call.id})
    talk.take({"error": {"class": "GenericError", "desc": "JSON parse error"}})
    assert not call.done.is_set()


@settings(max_examples=40)
@given(st.data())
def test_every_caller_gets_his_own_reply(data: st.DataObject) -> None:
    """Whatever is submitted, begun, answered and left in whatever order."""
    conversation = greeted()
    waiting: dict[int, Call] = {}
    server: list[Call] = []
    for _ in range(data.draw(st.integers(0, 60), "steps")):
        step = data.draw(st.sampled_from(["submit", "oob", "begin", "answer", "leave"]))
        if step in ("submit", "oob"):
            call = submit(conversation, is_oob=step == "oob")
            waiting[call.id] = call
        elif step == "begin":
            begun = conversation.begin()
            server += [] if begun is None else [begun]
            assert sum(not call.is_oob for call in server) <= MAX_IN_FLIGHT
        elif step == "answer" and server:
            call = server.pop(data.draw(st.integers(0, len(server) - 1)))
            conversation.take({"return": call.id, "id": call.id})
            assert call.id not in waiting or waiting.pop(call.id).result() == call.id
        elif step == "leave" and waiting:
            call = waiting.pop(data.draw(st.sampled_from(sorted(waiting))))
            conversation.leave(call)
    while server or waiting:
        server += iter(conversation.begin, None)
        call = server.pop(0)
        conversation.take({"return": call.id, "id": call.id})
        assert call.id not in waiting or waiting.pop(call.id).result() == call.id


# ---------------------------------------------------------------- what is not QMP


def test_greeting_is_kept() -> None:
    talk = Conversation("The server")
    assert not talk.greeted.is_set()
    talk.take(GREETING)
    assert talk.greeting == GREETING["QMP"]
    assert talk.greeted.is_set()


def test_greeting_may_be_repeated_until_there_is_a_reply(talk: Conversation) -> None:
    """QEMU does so to a client that it accepts while it sets its monitor up."""
    call = submit(talk)
    drain(talk)
    talk.take(GREETING)
    talk.take({"return": {}, "id": call.id})
    assert call.result() == {}
    talk.take(GREETING)
    with pytest.raises(QmpConnectionError, match="it is no event and no reply"):
        talk.check()


@pytest.mark.parametrize(
    "first", [{"return": {}}, {"QMP": {}}, {"QMP": 1}, {"hello": 1}, 5, Malformed("stray 'SSH'")]
)
def test_without_greeting_it_is_no_qmp_server(first: object) -> None:
    talk = Conversation("The server")
    talk.take(first)
    assert talk.greeted.is_set()
    with pytest.raises(
        QmpConnectionError, match="The server sent no greeting: it speaks another pro"
    ):
        talk.check()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Malformed("JSON parse error, stray 'x'"), "JSON parse error, stray 'x'"),
        (Malformed("JSON parse error, stray '\"a\n'"), "JSON parse error, stray '\"a '"),
        ([], "it is no JSON object"),
        ({}, "it is no event and no reply"),
        ({"error": "a text", "id": 1}, "it is no event and no reply"),
        ({"event": "X"}, "it is no event and no reply"),
        ({"event": "X", "timestamp": STAMP, "data": 1}, "it is no event and no reply"),
        ({"event": 1, "timestamp": STAMP}, "it is no event and no reply"),
    ],
)
def test_what_is_not_qmp_ends_it(talk: Conversation, message: object, reason: str) -> None:
    begun, waiting = submit(talk), submit(talk)
    talk.begin()
    talk.take(message)
    for call in (begun, waiting):
        with pytest.raises(QmpConnectionError) as caught:
            call.result()
        assert str(caught.value) == f"The server sent what is not QMP: {reason}"
    with pytest.raises(QmpConnectionError, match=reason):
        submit(talk)


def test_first_reason_counts(talk: Conversation) -> None:
    talk.end("first")
    talk.end("second")
    with pytest.raises(QmpConnectionError, match="first"):
        talk.check()


def test_each_waiter_gets_an_exception_of_its_own(talk: Conversation) -> None:
    """One that is raised in two tasks would mix up their tracebacks."""
    calls = [submit(talk), submit(talk)]
    talk.end("over")
    errors = []
    for call in calls:
        with pytest.raises(QmpConnectionError) as caught:
            call.result()
        errors.append(caught.value)
    assert errors[0] is not errors[1]


# ---------------------------------------------------------------- events


def happen(conversation: Conversation, *names: str) -> None:
    for name in names:
        conversation.take({"event": name, "timestamp": STAMP})


async def received(events: QmpEvents) -> list[str]:
    """The names of all that are left, up to the end."""
    with trio.fail_after(5):
        return [event.name async for event in events]


async def test_event_has_name_data_and_time(talk: Conversation) -> None:
    with talk.subscribe(10) as events:
        talk.take({"event": "A", "timestamp": STAMP, "data": {"b": 1}})
        talk.take({"event": "B", "timestamp": STAMP})
        assert await events.receive() == QmpEvent("A", {"b": 1}, 1500000000.25)
        assert await events.receive() == QmpEvent("B", {}, 1500000000.25)


async def test_subscriptions_are_independent(talk: Conversation) -> None:
    happen(talk, "too early")
    with talk.subscribe(10) as outer:
        happen(talk, "A")
        with talk.subscribe(10) as inner:
            happen(talk, "B")
            talk.end("over")
            assert await received(inner) == ["B"]
        assert await received(outer) == ["A", "B"]
    with talk.subscribe(10) as late:
        assert await received(late) == []


async def test_oldest_events_are_dropped_and_counted(talk: Conversation) -> None:
    with talk.subscribe(2) as slow, talk.subscribe(5) as quick:
        happen(talk, *"ABCDE")
        talk.end("over")
        assert (slow.dropped, await received(slow)) == (3, ["D", "E"])
        assert (quick.dropped, await received(quick)) == (0, [*"ABCDE"])


async def test_closed_subscription_takes_nothing(talk: Conversation) -> None:
    with talk.subscribe(1) as events:
        await events.aclose()
        happen(talk, "A")
        with pytest.raises(trio.ClosedResourceError):
            await events.receive()


def test_subscription_needs_room(talk: Conversation) -> None:
    with pytest.raises(ValueError, match="at least 1"), talk.subscribe(0):
        pass
