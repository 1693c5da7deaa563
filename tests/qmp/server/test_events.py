from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_chardev.core.info import ChardevInfo
from trio_chardev.notices import ChardevBreak, ChardevClosed, ChardevOpened, ChardevRemoved
from trio_chardev.options.members import Enum, IntRange, Scalar, describe, flat_json
from trio_chardev.options.structure import structure
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.server.events import (
    EVENTS,
    Shutdown,
    Throttle,
    message_of,
    outdated_keys,
    rate_key,
)


def test_a_message_has_the_host_time_the_name_and_the_data() -> None:
    message = message_of(Shutdown(guest=False, reason="host-signal"))
    assert message["event"] == "SHUTDOWN"
    assert message["data"] == {"guest": False, "reason": "host-signal"}
    assert message["timestamp"]["seconds"] > 1_600_000_000
    assert 0 <= message["timestamp"]["microseconds"] < 1_000_000


@pytest.mark.parametrize("name", EVENTS)
def test_the_data_of_every_event_fits_its_class(name: str) -> None:
    cls = EVENTS[name]
    values = {"guest": False, "client": 1, "cursor": 2}
    reason = "host-ui" if cls is Shutdown else "left"
    event = cls(
        **{a.name: {**values, "reason": reason}.get(a.name, "x") for a in attrs.fields(cls)}
    )
    assert structure(cls, message_of(event)["data"]) == event


@pytest.mark.parametrize("cls", [*EVENTS.values(), ChardevInfo], ids=lambda cls: cls.__name__)
def test_what_is_made_without_cattrs_is_what_cattrs_makes(cls: Any) -> None:
    """Of an event, and of a row of query-chardev; that needs members that are scalars."""
    members = describe(cls)
    assert {type(member.value_type) for member in members} <= {Scalar, Enum, IntRange}
    for some in (members, [member for member in members if not member.is_optional]):
        value = cls(**{member.field: member.field for member in some})
        assert list(flat_json(value).items()) == list(unstructure(value).items())


def test_opened_and_closed_of_a_chardev_share_a_key_so_that_the_last_is_the_truth() -> None:
    assert rate_key(ChardevOpened("a", "f")) == rate_key(ChardevClosed("a", "g"))
    assert rate_key(ChardevOpened("a", "f")) != rate_key(ChardevOpened("b", "f"))
    assert rate_key(ChardevOpened("a", "f")) != rate_key(ChardevBreak("a"))
    assert rate_key(Shutdown(guest=False, reason="host-ui")) is None


def test_the_first_passes_at_once_and_of_those_that_wait_the_last() -> None:
    throttle: Throttle[dict[str, Any]] = Throttle(1.0)
    assert throttle.offer("k", {"n": 1}, now=10.0)
    assert not throttle.offer("k", {"n": 2}, now=10.1)
    assert not throttle.offer("k", {"n": 3}, now=10.9)
    assert throttle.next_deadline == 11.0
    assert throttle.take_due(now=10.95) == []
    assert throttle.take_due(now=11.0) == [{"n": 3}]
    assert not throttle.offer("k", {"n": 4}, now=11.5)
    assert throttle.take_due(now=12.0) == [{"n": 4}]
    assert throttle.take_due(now=13.0) == []
    assert throttle.next_deadline == float("inf")
    assert throttle.offer("k", {"n": 5}, now=13.1)


def test_a_key_whose_interval_is_over_passes_at_once_and_is_forgotten() -> None:
    """`take_due` is not called while nothing waits."""
    throttle: Throttle[str] = Throttle(1.0)
    assert all(throttle.offer(("open", n), "x", now=float(n)) for n in range(100))
    assert throttle.offer(("open", 0), "y", now=100.0)
    assert throttle.next_deadline == 101.0
    assert not throttle.offer(("open", 0), "z", now=100.5)
    assert throttle.take_due(now=101.0) == ["z"]


def test_a_message_that_is_dropped_does_not_come() -> None:
    throttle: Throttle[str] = Throttle(1.0)
    throttle.drop("k")
    throttle.offer("k", "a", now=0.0)
    throttle.offer("k", "b", now=0.1)
    throttle.drop("k")
    assert throttle.take_due(now=5.0) == []


def test_removed_outdates_what_is_limited_and_nothing_else_does() -> None:
    keys = outdated_keys(ChardevRemoved("a"))
    assert set(keys) == {rate_key(ChardevOpened("a", "f")), rate_key(ChardevBreak("a"))}
    assert outdated_keys(ChardevOpened("a", "f")) == ()


def test_an_event_without_a_key_always_passes() -> None:
    throttle: Throttle[dict[str, Any]] = Throttle(1.0)
    assert all(throttle.offer(None, {}, now=0.0) for _ in range(10))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 0.7)), max_size=30))
def test_a_key_passes_once_an_interval_and_its_last_message_in_the_end(
    offers: list[tuple[str, float]],
) -> None:
    throttle: Throttle[dict[str, Any]] = Throttle(1.0)
    now = 0.0
    passed: dict[str, list[tuple[float, int]]] = {"a": [], "b": []}
    last: dict[str, int] = {}

    def due(until: float) -> None:
        while throttle.next_deadline <= until:
            at = throttle.next_deadline
            for message in throttle.take_due(at):
                passed[message["key"]].append((at, message["n"]))

    for n, (key, delay) in enumerate(offers):
        now += delay
        due(now)
        last[key] = n
        if throttle.offer(key, {"key": key, "n": n}, now):
            passed[key].append((now, n))
    due(now + 10)
    for key, n in last.items():
        assert passed[key][-1][1] == n
        times = [time for time, _ in passed[key]]
        assert all(b - a >= 0.999 for a, b in pairwise(times))
