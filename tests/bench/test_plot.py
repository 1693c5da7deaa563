"""The SVG."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import attrs
import pytest

from bench.contenders import Contender
from bench.figures import Row, Spread
from bench.plot import FREE, LEFT, MET, MISSED, RIGHT, WIDTH, Axis, Bar, groups_of, plot
from tests.bench.rounds import latency_row, rate_row

SVG = "{http://www.w3.org/2000/svg}"


def bars(text: str) -> list[ET.Element]:
    """Without the background."""
    return ET.fromstring(text).findall(f"{SVG}rect")[1:]


def test_an_axis_is_logarithmic_and_has_1_on_it() -> None:
    axis = Axis.around([0.1, 10.0])
    assert axis.x(0.1) == LEFT
    assert axis.x(10.0) == WIDTH - RIGHT
    assert axis.x(1.0) == pytest.approx((LEFT + WIDTH - RIGHT) / 2)
    assert axis.ticks() == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])


@pytest.mark.parametrize("values", [[0.2, 0.3], [3.0], [1.0]])
def test_an_axis_always_has_room_on_both_sides_of_its_values(values: list[float]) -> None:
    axis = Axis.around(values)
    assert axis.low <= 0 < axis.high
    assert all(LEFT <= axis.x(value) <= WIDTH - RIGHT for value in [*values, 1.0])


def bar_of(row: Row) -> Bar:
    [(_, [bar])] = groups_of([row])
    return bar


def test_a_bar_goes_from_1_to_the_ratio_with_better_on_the_left() -> None:
    good, bad = bars(plot([rate_row([6e6], [1e6]), rate_row([1e6], [2e6])], ""))
    even = float(bad.attrib["x"])
    assert float(good.attrib["x"]) + float(good.attrib["width"]) == pytest.approx(even, abs=0.2)
    assert float(good.attrib["width"]) > float(bad.attrib["width"])
    assert (good.attrib["fill"], bad.attrib["fill"]) == (MET, MISSED)


def test_ratios_of_rates_and_their_targets_are_turned_over() -> None:
    bar = bar_of(rate_row([6e6, 4e6, 3e6], [1e6, 1e6, 1e6]))
    assert bar.ratio == Spread(1 / 4, 1 / 6, 1 / 3)
    assert bar.target == pytest.approx(1 / 1.5)
    assert bar.title == "bulk <both ways> (rate)"


def told(row: Row) -> Row:
    """Return *row* as one of the first screen, without a target."""
    benchmark = attrs.evolve(row.benchmark, name="relay-serial-bulk")
    return attrs.evolve(row, benchmark=benchmark, verdicts=())


def test_a_rival_without_a_target_has_a_bar_of_another_colour() -> None:
    row = told(rate_row([6e6], [1e6]))
    [bar] = bars(plot([row], ""))
    assert bar.attrib["fill"] == FREE
    assert 'class="target"' not in plot([row], "")


def test_without_a_target_only_what_is_on_the_first_screen_is_drawn() -> None:
    row = attrs.evolve(rate_row([6e6], [1e6]), verdicts=())
    assert groups_of([row]) == []


def test_idling_at_no_cost_is_at_the_edge() -> None:
    ratio = Spread(math.inf, 0, math.inf)
    [bar] = bars(plot([attrs.evolve(told(latency_row([1e-6], [1e-6])), ratio=ratio)], ""))
    assert float(bar.attrib["x"]) + float(bar.attrib["width"]) == WIDTH - RIGHT


def test_every_target_has_a_bar_with_its_name_and_figures() -> None:
    text = plot([latency_row([30e-6], [40e-6]), rate_row([2e6], [1e6])], "2 x EPYC & more")
    assert len(bars(text)) == 3
    assert text.count('class="target"') == 3
    words = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert "beside socat" in words
    assert "beside a limit" in words
    assert words.count("a round trip") == 2
    assert "30.0 us, target p99 <= 40" in words
    assert "0.75, target <= 0.5" in words
    assert "2.00, target >= 1.5" in words
    assert "2 x EPYC & more" in words


def test_a_rival_that_is_no_peer_is_named_where_there_is_a_target() -> None:
    bare = Contender("bare")
    row = attrs.evolve(rate_row([2e6], [1e6]), rival=bare)
    assert bar_of(row).title == "bulk <both ways> / bare (rate)"
    assert groups_of([attrs.evolve(row, verdicts=())]) == []


def test_without_a_ratio_or_a_target_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no benchmark with a peer or a target"):
        plot([], "")
