"""An SVG of ratios to the peers on a logarithmic axis, with the targets marked; better is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import attrs

from bench.contenders import CONSERVER, QEMU, QSD, SER2NET, SOCAT, SOCAT_LARGE
from bench.figures import Row, Spread, Verdict
from bench.report import digits, statistic_text, target_text
from bench.summary import PEERS

WIDTH = 1240
LEFT, RIGHT = 560, 270  # pixels on both sides of the axis, for titles and figures
TOLD = {(each.name, each.rival) for _, highlights in PEERS for each in highlights}
TOP, BOTTOM = 84, 30
STEP, BAR = 22, 12  # pixels from row to row, and of a bar's height
OTHERS = "beside what does less"
ORDER = (SER2NET, SOCAT, SOCAT_LARGE, CONSERVER, QSD, QEMU)
LEAST, MOST = 0.01, 100.0  # what is beyond is at the edge
MET, MISSED, FREE = "#2a7f62", "#c2452d", "#7c8ea3"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}"
    ".title{font-size:16px;font-weight:600}.head{font-weight:600}.small{font-size:11px;fill:#666}"
    ".grid{stroke:#e4e4e4}.even{stroke:#222;stroke-width:1.5}.spread{stroke:#222}"
    ".target{stroke:#222;stroke-width:3}"
)


@attrs.frozen
class Bar:
    """One line of the plot: a title, a ratio in which less is better, and its target if it has one."""

    title: str
    figures: str
    ratio: Spread
    target: float | None = None
    is_met: bool = True

    @classmethod
    def beside(cls, row: Row, verdict: Verdict | None) -> Bar:
        """Make the bar of a ratio to a peer; a ratio of rates is turned over."""
        more = row.benchmark.unit.more_is_better
        ratio = verdict.measured if verdict is not None else row.ratio
        assert ratio is not None
        assert row.rival is not None
        rival = "" if row.rival in ORDER else f" / {row.rival.name}"
        statistic = statistic_text(verdict.target.statistic) if verdict else ""
        return cls(
            f"{row.benchmark.title}{rival}" + (" (rate)" if more else ""),
            statistic
            + digits(ratio.mid)
            + (f", target {target_text(verdict)}" if verdict is not None else ""),
            turned(ratio) if more else ratio,
            None if verdict is None else 1 / verdict.target.limit if more else verdict.target.limit,
            verdict is None or verdict.is_met,
        )

    @classmethod
    def limited(cls, row: Row, verdict: Verdict) -> Bar:
        """Make the bar of a value beside its limit, which is at 1."""
        figures = f"{digits(verdict.measured.mid)} {row.benchmark.unit.name}"
        target = f"target {target_text(verdict)}"
        return cls(row.benchmark.title, f"{figures}, {target}", verdict.used, 1.0, verdict.is_met)


def turned(ratio: Spread) -> Spread:
    """Turn a ratio of rates over, so that less is better."""
    low, mid, high = (1 / each if each else math.inf for each in (ratio.high, ratio.mid, ratio.low))
    return Spread(mid, low, high)


@attrs.frozen
class Axis:
    """Maps a ratio to pixels, logarithmically."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """Make an axis for *values* and 1, ending at half decades."""
        logs = [0.0, *(math.log10(min(max(value, LEAST), MOST)) for value in values)]
        return cls(min(math.floor(2 * min(logs)) / 2, -0.5), max(math.ceil(2 * max(logs)) / 2, 0.5))

    def x(self, value: float) -> float:
        """Return the place of *value*; what is beyond the axis is at its edge."""
        at = self.low if value <= 0 else self.high if math.isinf(value) else math.log10(value)
        part = (at - self.low) / (self.high - self.low)
        return LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each decade."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        found = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        return [tick for tick in found if self.low <= math.log10(tick) <= self.high + 1e-9]


def groups_of(rows: Sequence[Row]) -> list[tuple[str, list[Bar]]]:
    """Return the bars of each peer, then those that have a target beside something else, or a limit.

    Of the rows without a target those are shown that are told on the first screen.
    """
    groups: dict[str, list[Bar]] = {f"beside {peer.name}": [] for peer in ORDER}
    others = groups.setdefault(OTHERS, [])
    limits = groups.setdefault("beside a limit", [])
    for row in rows:
        limits += [Bar.limited(row, each) for each in row.verdicts if each.target.rival is None]
        if row.rival is None:
            continue
        verdicts = [each for each in row.verdicts if each.target.rival is not None]
        chosen: Sequence[Verdict | None] = verdicts or [None]
        group = groups.get(f"beside {row.rival.name}", others)
        if verdicts or (row.benchmark.name, row.rival) in TOLD:
            group += [Bar.beside(row, each) for each in chosen]
    return [(title, bars) for title, bars in groups.items() if bars]


def plot(rows: Sequence[Row], subtitle: str) -> str:
    """Draw *rows* as an SVG file. Raises ValueError if there is no ratio, and no target."""
    groups = groups_of(rows)
    if not groups:
        raise ValueError("no benchmark with a peer or a target was measured")
    bars = [bar for _, group in groups for bar in group]
    axis = Axis.around(
        [x for bar in bars for x in (bar.ratio.low, bar.ratio.high, bar.target or 1.0)]
    )
    height = TOP + STEP * (len(bars) + len(groups)) + BOTTOM
    bottom = height - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(16, 26, "trio-chardev / its peer, in the same run: left of 1 is better", "title"),
        _text(16, 45, "a thick mark is the target; rates are turned over, so that left is better"),
        _text(16, 62, subtitle, "small"),
    ]
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(_line(x, TOP - 6, x, bottom, "even" if tick == 1 else "grid"))
        parts += [
            _text(x, y, f"{tick:g}", "small", anchor="middle") for y in (TOP - 10, bottom + 16)
        ]
    y = float(TOP)
    for title, group in groups:
        parts.append(_text(LEFT - 10, y + STEP / 2 + 4, title, "head", anchor="end"))
        for bar in group:
            y += STEP
            parts += _bar(axis, y, bar)
        y += STEP
    return "\n".join([*parts, "</svg>", ""])


def _bar(axis: Axis, y: float, bar: Bar) -> list[str]:
    """Draw a title, a bar from 1 with its spread, the target, and the figures."""
    middle = y + STEP / 2
    even, end = axis.x(1.0), axis.x(bar.ratio.mid)
    colour = FREE if bar.target is None else MET if bar.is_met else MISSED
    parts = [
        _text(LEFT - 10, middle + 4, bar.title, anchor="end"),
        f'<rect x="{min(even, end):.1f}" y="{middle - BAR / 2:.1f}" '
        f'width="{max(1.0, abs(end - even)):.1f}" height="{BAR}" fill="{colour}"/>',
        _line(axis.x(bar.ratio.low), middle, axis.x(bar.ratio.high), middle, "spread"),
        _text(WIDTH - RIGHT + 10, middle + 4, bar.figures),
    ]
    if bar.target is not None:
        x = axis.x(bar.target)
        parts.append(_line(x, middle - STEP / 2 + 1, x, middle + STEP / 2 - 1, "target"))
    return parts


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'
