"""The first screen of the page."""

from __future__ import annotations

import math

import attrs
import pytest

from bench.contenders import SOCAT
from bench.figures import Spread
from bench.model import Benchmark
from bench.summary import ALONE, PEERS, Highlight, Told, sentence, sign, summary, tell, times
from bench.table import BENCHMARKS
from tests.bench.rounds import LATENCY, RATE, rounds

PIECES = [highlight for _, highlights in PEERS for highlight in highlights]
COST = Highlight("latency", SOCAT, "a round trip costs {} time")


def identify(highlight: Highlight) -> str:
    beside = highlight.rival.name if highlight.rival else "nobody"
    return f"{highlight.name} {highlight.statistic} beside {beside}"


def told(benchmark: Benchmark, ratio: Spread) -> Told:
    return Told(COST, benchmark, 1.0, 1.0, ratio)


@pytest.mark.parametrize("highlight", [*PIECES, *ALONE], ids=identify)
def test_a_highlight_is_of_a_benchmark_and_a_rival_of_it(highlight: Highlight) -> None:
    benchmark = next(each for each in BENCHMARKS if each.name == highlight.name)
    assert highlight.rival is None or highlight.rival in benchmark.rivals
    assert highlight.text.count("{}") == 1


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (40.9, "41 times"),
        (1.28, "1.3 times"),
        (1.0, "1.0 times"),
        (0.97, "1.0 times"),
        (0.31, "31% of"),
        (0.004, "less than 1% of"),
        (0.0, "less than 1% of"),
    ],
)
def test_a_ratio_in_words(ratio: float, text: str) -> None:
    assert times(ratio) == text


def test_a_sentence_says_whose_it_is() -> None:
    assert (
        sentence(told(LATENCY, Spread(1.3, 1.2, 1.4)))
        == "a round trip costs 1.3 times socat's time"
    )
    zero = told(LATENCY, Spread(math.inf, 1, math.inf))
    assert sentence(zero) == "a round trip costs more than socat's zero time"


@pytest.mark.parametrize(
    ("ratio", "cost", "rate"),
    [
        (Spread(1.3, 1.2, 1.4), "pays", "gains"),
        (Spread(0.5, 0.4, 0.6), "gains", "pays"),
        (Spread(1.3, 0.9, 1.4), "even", "even"),
        (Spread(1.03, 1.02, 1.04), "even", "even"),
    ],
)
def test_one_gains_pays_or_neither(ratio: Spread, cost: str, rate: str) -> None:
    assert (sign(told(LATENCY, ratio)), sign(told(RATE, ratio))) == (cost, rate)


def test_what_was_not_measured_is_not_told() -> None:
    found = {"latency": rounds([1e-6], [2e-6])}
    alone = attrs.evolve(COST, rival=None)
    gone = attrs.evolve(COST, name="gone")
    assert [each.highlight for each in tell([COST, alone, gone], [LATENCY], found)] == [COST, alone]
    found = {"latency": rounds([1e-6])}
    assert [each.highlight for each in tell([COST, alone], [LATENCY], found)] == [alone]
    assert summary(BENCHMARKS, {}) == ""


def test_the_first_screen_begins_with_what_one_gains() -> None:
    table = [attrs.evolve(LATENCY, name=name) for name in ("relay-tcp-ping", "relay-serial-ping")]
    found = {
        "relay-tcp-ping": rounds([4e-6, 4e-6], [2e-6, 2e-6]),
        "relay-serial-ping": rounds([1e-6, 1e-6], [2e-6, 2e-6]),
    }
    lines = summary(table, found).splitlines()
    assert lines[2:4] == [
        "| **socat** | gains | a byte to a serial line and back takes 50% of socat's time | 1.00 us | 2.00 us |",
        "|  | pays | a byte there and back by TCP takes 2.0 times socat's time | 4.00 us | 2.00 us |",
    ]
