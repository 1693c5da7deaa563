"""The SVG."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bench.plot import LEFT, MET, MISSED, RIGHT, WIDTH, Axis, plot
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


def test_a_bar_is_as_long_as_the_target_is_used_up() -> None:
    short, long = bars(plot([rate_row([6e6], [1e6]), rate_row([1e6], [1e6])], ""))
    assert float(short.attrib["width"]) < float(long.attrib["width"])
    assert (short.attrib["fill"], long.attrib["fill"]) == (MET, MISSED)


def test_every_target_has_a_bar_with_its_name_and_figures() -> None:
    text = plot([latency_row([30e-6], [40e-6]), rate_row([2e6], [1e6])], "2 x EPYC & more")
    assert len(bars(text)) == 3
    words = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert "a round trip" in words
    assert "a round trip / socat" in words
    assert "30.0 us, target p99 <= 40" in words
    assert "0.75, target <= 0.5" in words
    assert "bulk <both ways> / socat" in words
    assert "2 x EPYC & more" in words


def test_without_a_target_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no benchmark with a target"):
        plot([], "")
