"""One who comes again goes on with what he has not seen, whatever a crash has left of the history."""

from __future__ import annotations

import pytest

from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.lives import MAX_LIVES, Lives
from trio_chardev.backends.ringbuf.ring import Ring


def test_in_the_same_life_it_is_the_cursor() -> None:
    lives = Lives({}).another(100)
    assert lives.resume(150, lives.number) == 150


def test_after_a_crash_it_is_where_the_next_life_began_if_more_was_seen_than_kept() -> None:
    first = Lives({}).another(0)
    second = first.another(90)
    assert second.resume(100, first.number) == 90
    assert second.resume(80, first.number) == 80
    third = second.another(200)
    assert third.resume(100, first.number) == 90
    assert third.resume(250, second.number) == 200
    assert third.resume(250, third.number) == 250


def test_a_life_that_is_not_known_is_another_history() -> None:
    lives = Lives({}).another(0)
    assert lives.resume(0, 1) is None
    first = lives.number
    for begin in range(MAX_LIVES):
        lives = lives.another(begin)
    assert lives.resume(0, first) is None
    assert len(lives.begins) == MAX_LIVES


def test_they_are_kept_with_the_marks() -> None:
    ring = Ring(64)
    before = History(ring)
    before.write(b"seen")
    before.mark("here")
    after = History(ring)
    assert after.marks == {"here": 4}
    assert after.lives.resume(9, before.lives.number) == 4


@pytest.mark.parametrize("value", [None, {}, [1], [[1]], [["1", 2]], [[1, 2], 3], [[True, 1]]])
def test_what_is_damaged_is_as_if_there_were_none(value: object) -> None:
    assert Lives.parse(value).begins == {}
