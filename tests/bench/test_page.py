"""The generated part of the page."""

from __future__ import annotations

import attrs

from bench.contenders import SER2NET
from bench.machine import Noise
from bench.page import page_text, section
from bench.results import Results
from tests.bench.rounds import LATENCY, RATE, latency_row, rate_row, rounds

TABLE = (attrs.evolve(RATE, name="relay-x-bulk"), attrs.evolve(LATENCY, name="change-x"))


def results() -> Results:
    return Results(
        when="2026-11-25 04:00 UTC",
        machine="2 x EPYC",
        versions={"Python": "3.11.7"},
        noise=Noise(0.0, 0.0, 0.0),
        rounds=2,
        benchmarks={
            "relay-x-bulk": rounds([3e6, 3e6], [1e6, 1e6]),
            "change-x": rounds([30e-6, 60e-6], [40e-6, 80e-6]),
        },
    )


def test_the_page_has_the_plot_and_a_table_for_each_subject() -> None:
    text = page_text(results(), TABLE, "results.svg")
    assert "(results.svg)" in text
    assert "| a round trip | us | 45.0 (30.0-60.0) ~ |" in text
    assert text.index("### Bridges") < text.index("### Changes")
    assert "### QMP" not in text


def test_the_page_says_by_how_much_targets_are_missed() -> None:
    text = page_text(results(), TABLE, "results.svg")
    assert "1 of 3 targets are met, by the median of at most 2 rounds; not met:" in text
    assert "* a round trip: p99 45.0, not 40\n* a round trip, beside socat: 0.75, not 0.5\n" in text


def test_a_page_of_nothing_has_no_plot() -> None:
    nothing = attrs.evolve(results(), benchmarks={})
    assert "results.svg" not in page_text(nothing, TABLE, "results.svg")


def test_what_is_ours_is_said_once_beside_several_rivals() -> None:
    row = rate_row([2e6], [1e6])
    _, text = section("Others", None, [row, attrs.evolve(row, rival=SER2NET)])
    assert text.splitlines()[2].startswith("| bulk <both ways> | MB/s | 2.00 |")
    assert text.splitlines()[3].startswith("|  |  |  |  |  | ser2net | 1.00 |")


def test_rows_of_no_subject_are_not_lost() -> None:
    assert section("Others", None, [latency_row([1e-6], [1e-6])])[0] == "### Others"
