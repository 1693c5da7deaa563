"""The mutants of `tests.mutate`."""

from __future__ import annotations

from tests import mutate


def test_each_reason_is_of_a_mutant_that_there_is() -> None:
    assert mutate.unknown_reasons() == set()


def test_a_mutant_is_the_source_but_for_one_change() -> None:
    names = [mutant.full_name for mutant in mutate.mutants()]
    assert len(names) > 1500
    assert "core/change.py commit: without `_check_fit(parts, new)`" in names
