"""Rows as text."""

from __future__ import annotations

import pytest

from bench.figures import Spread, rows_of
from bench.machine import Noise
from bench.model import Benchmark
from bench.report import (
    cells,
    change_sign,
    compare_text,
    digits,
    markdown_table,
    run_text,
    text_table,
    with_spread,
)
from bench.results import Results
from tests.bench.rounds import LATENCY, RATE, latency_row, rate_row, round_of, rounds

TABLE: tuple[Benchmark, ...] = (LATENCY, RATE)


def results(noise: Noise | None = None) -> Results:
    return Results(
        when="2026-11-25 04:00 UTC",
        machine="2 x EPYC",
        versions={"Python": "3.11.7", "socat": "1.7"},
        noise=noise or Noise(0.0, 0.0, 0.0),
        rounds=2,
        benchmarks={
            "rate": rounds([3e6, 3e6], [1e6, 1e6]),
            "latency": rounds([30e-6, 60e-6], [40e-6, 80e-6]),
            "of another version": rounds([1.0]),
        },
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (9.994, "9.99"), (12.34, "12.3"), (123.4, "123"), (65017.0, "65,017")],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert digits(value) == text


def test_a_spread_is_shown_if_there_is_one() -> None:
    assert with_spread(Spread(2, 1, 3)) == "2.00 (1.00-3.00)"
    assert with_spread(Spread(2, 2, 2)) == "2.00"


def test_a_row_has_both_sides_the_ratio_and_what_became_of_the_targets() -> None:
    assert cells(latency_row([30e-6], [50e-6])) == (
        "a round trip",
        "us",
        "30.0",
        "",
        "",
        "socat",
        "50.0",
        "0.60",
        "p99 <= 40 us; <= 0.5",
        "met; NOT MET",
    )


def test_p99_and_the_worst_are_shown_where_a_round_has_more_than_one_value() -> None:
    rounds = {"trio-chardev": [round_of(1e-6, 2e-6), round_of(1e-6, 4e-6)]}
    assert cells(rows_of(LATENCY, rounds)[0])[2:5] == ("2.00 (1.50-2.50) ~", "3.00", "4.00")


def test_a_verdict_says_when_the_rounds_disagree() -> None:
    assert cells(rate_row([1e6, 2e6, 2e6], [1e6, 1e6, 1e6]))[-1] == "met, not in all rounds"


def test_the_text_of_a_run_is_in_the_order_of_the_table() -> None:
    text = run_text(results(), results().rows(TABLE))
    assert text.index("a round trip") < text.index("bulk")
    assert "of another version" not in text
    assert "2026-11-25 04:00 UTC, 2 x EPYC" in text
    assert "Python 3.11.7, socat 1.7" in text
    assert "1 of 3 targets met; 2 rounds, in turns" in text


def test_a_noisy_machine_is_warned_of() -> None:
    quiet, noisy = results(), results(Noise(0.5, 0.1, 0.03))
    steady = [row for row in quiet.rows(TABLE) if row.benchmark is RATE]
    assert "warning" not in run_text(quiet, steady)
    text = run_text(noisy, noisy.rows(TABLE))
    assert "warning: other programs kept 0.50 of a processor busy" in text
    assert "warning: the hypervisor took 3% of the time" in text
    assert "apart (~): latency" in text


def test_a_run_without_results_says_so() -> None:
    assert run_text(results(), []) == "nothing was measured"


def test_a_text_table_aligns_its_columns() -> None:
    assert text_table(("a", "b"), [("long", "1"), ("x", "2")]) == "a     b\nlong  1\nx     2"


def test_a_markdown_table_has_a_rule_under_its_headings() -> None:
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("old", "new", "more_is_better", "sign"),
    [
        (Spread(2, 1, 3), Spread(3, 2, 4), False, "="),
        (Spread(2, 1, 3), Spread(5, 4, 6), False, "worse"),
        (Spread(2, 1, 3), Spread(5, 4, 6), True, "better"),
        (Spread(5, 4, 6), Spread(2, 1, 3), False, "better"),
        (None, Spread(2, 1, 3), False, ""),
    ],
)
def test_only_what_is_outside_both_spreads_is_a_change(
    old: Spread | None, new: Spread, more_is_better: bool, sign: str
) -> None:
    assert change_sign(old, new, more_is_better) == sign


def test_a_comparison_shows_rows_that_both_have() -> None:
    old = [latency_row([10e-6], [20e-6])]
    new = [latency_row([5e-6], [20e-6]), rate_row([1e6], [1e6])]
    line = " ".join(compare_text(old, new).splitlines()[1].split())
    assert line == "a round trip us 10.0 5.00 -50.0% better socat 0.50 0.25 better"


def test_a_comparison_of_nothing_says_so() -> None:
    assert compare_text([], [rate_row([1e6], [1e6])]) == "the two have no benchmark in common"
