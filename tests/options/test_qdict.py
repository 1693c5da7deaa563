"""The orders were recorded from qemu-storage-daemon 7.2."""

from __future__ import annotations

import pytest

from trio_chardev.options.qdict import first_unexpected, qdict_order


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        (["x", "y"], "y"),
        (["y", "x"], "y"),
        (["foo", "bar", "zz"], "bar"),
        (["alpha", "beta", "gamma", "delta"], "beta"),
        (["c", "d", "a", "b"], "b"),
    ],
)
def test_the_first_unexpected_member_is_the_visitors(keys: list[str], first: str) -> None:
    assert first_unexpected(keys, ()) == first


def test_a_long_name_takes_no_longer() -> None:
    long = "x" * 4096
    assert qdict_order([long + "a", long + "b"]) == qdict_order([long + "b", long + "a"])[::-1]


@pytest.mark.parametrize(
    ("keys", "first"),
    [(["alpha", "beta", "gamma", "delta"], "beta"), (["c", "d", "a", "b"], "d")],
)
def test_the_envelope_is_looked_at_in_the_qdicts_order(keys: list[str], first: str) -> None:
    assert qdict_order(keys)[0] == first


def test_known_members_are_passed_over() -> None:
    assert first_unexpected(["x", "y"], {"y"}) == "x"


def test_of_many_members_one_that_is_unexpected_is_told() -> None:
    keys = [f"m{number}" for number in range(20)]
    assert first_unexpected([*keys, "odd"], set(keys)) == "odd"


def test_a_qdict_forgets_the_order_of_insertion() -> None:
    assert qdict_order(["id", "foo", "execute"]) == qdict_order(["execute", "id", "foo"])


def test_keys_need_not_be_valid_unicode() -> None:
    assert qdict_order(["\udc80", "é"]) in (["\udc80", "é"], ["é", "\udc80"])
