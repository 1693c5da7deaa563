"""From values to rows."""

from __future__ import annotations

import math

import pytest

from bench.figures import Figures, Spread, rows_of
from bench.model import MICROSECONDS
from tests.bench.rounds import LATENCY, RATE, latency_row, rate_row, round_of, rounds


def test_p99_is_what_99_of_100_are_no_worse_than() -> None:
    found = round_of(*range(1, 101))
    assert (found.count, found.p50, found.p99, found.worst) == (100, 50.5, 99, 100)


def test_the_bad_end_of_a_rate_is_its_low_one() -> None:
    found = round_of(*range(1, 101), more_is_better=True)
    assert (found.p50, found.p99, found.worst) == (50.5, 2, 1)


def test_one_value_is_all_its_figures() -> None:
    found = round_of(7.0)
    assert (found.p50, found.p99, found.worst) == (7.0, 7.0, 7.0)


def test_a_round_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="no values|no median"):
        round_of()


def test_figures_are_in_the_unit_of_the_benchmark() -> None:
    figures = Figures.of([round_of(1e-6, 3e-6), round_of(4e-6, 6e-6)], MICROSECONDS)
    assert figures.p50 == Spread(3.5, 2.0, 5.0)
    assert figures.worst == pytest.approx(6.0)
    assert not figures.is_single


def test_ratios_are_taken_round_by_round() -> None:
    row = latency_row([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert row.ratio == Spread(0.5, 0.5, 0.5)


def test_a_target_with_a_rival_is_of_the_ratio_and_one_without_of_the_value() -> None:
    of_value, of_ratio = latency_row([30e-6], [100e-6]).verdicts
    assert of_value.measured.mid == pytest.approx(30)
    assert of_ratio.measured.mid == pytest.approx(0.3)
    assert of_value.is_met
    assert of_ratio.is_met


@pytest.mark.parametrize(("ours", "is_met"), [(0.5, True), (0.51, False)])
def test_a_latency_meets_its_target_at_most(ours: float, is_met: bool) -> None:
    assert latency_row([ours], [1.0]).verdicts[1].is_met is is_met


@pytest.mark.parametrize(("ours", "is_met"), [(1.5, True), (1.49, False)])
def test_a_rate_meets_its_target_at_least(ours: float, is_met: bool) -> None:
    assert rate_row([ours], [1.0]).verdicts[0].is_met is is_met


def test_less_than_one_target_is_used_up_when_it_is_met() -> None:
    assert latency_row([1.0], [4.0]).verdicts[1].used.mid == 0.5
    used = rate_row([3.0, 6.0], [1.0, 1.0]).verdicts[0].used
    assert used == Spread(1.5 / 4.5, 0.25, 0.5)


def test_without_its_rival_a_benchmark_is_one_row() -> None:
    row, *more = rows_of(LATENCY, rounds([1e-6]))
    assert more == []
    assert (row.rival, row.ratio) == (None, None)
    assert [each.target.rival for each in row.verdicts] == [None]


def test_the_subject_must_have_been_measured() -> None:
    with pytest.raises(KeyError):
        rows_of(RATE, {"socat": [round_of(1.0)]})


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (Spread(2, 1, 3), Spread(4, 3, 5), True),
        (Spread(2, 1, 3), Spread(5, 4, 6), False),
        (Spread(5, 4, 6), Spread(2, 1, 3), False),
        (Spread(5, 1, 9), Spread(2, 2, 2), True),
    ],
)
def test_spreads_overlap_when_a_round_could_be_of_either(
    one: Spread, other: Spread, overlap: bool
) -> None:
    assert one.overlaps(other) is overlap


def test_a_rival_that_took_no_time_at_all_has_a_ratio_too() -> None:
    assert [latency_row([ours], [0.0]).ratio for ours in (0.0, 1e-6)] == [
        Spread(1, 1, 1),
        Spread(math.inf, math.inf, math.inf),
    ]
