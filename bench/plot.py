"""An SVG of the targets: one bar for each row, on a logarithmic axis on which 1 is just met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import attrs

from bench.figures import Row, Verdict
from bench.report import digits, target_text

WIDTH = 1060
LEFT, RIGHT = 470, 240  # pixels on both sides of the axis, for titles and figures
TOP, BOTTOM = 70, 30
STEP, BAR = 26, 14  # pixels from row to row, and of a bar's height
MET, MISSED = "#2a7f62", "#c2452d"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}"
    ".title{font-size:16px;font-weight:600}.small{font-size:11px;fill:#666}"
    ".grid{stroke:#e4e4e4}.limit{stroke:#222;stroke-width:1.5}.spread{stroke:#222}"
)


@attrs.frozen
class Axis:
    """Maps the used fraction of a target to pixels, logarithmically."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """Make an axis for *values* and 1, ending at half decades."""
        logs = [0.0, *(math.log10(value) for value in values if value > 0)]
        low = math.floor(2 * min(logs)) / 2
        return cls(low, max(math.ceil(2 * max(logs)) / 2, 0.5))

    def x(self, value: float) -> float:
        """Return the place of *value*; nothing is left of the axis."""
        at = math.log10(value) if value > 0 else self.low
        part = (at - self.low) / (self.high - self.low)
        return LEFT + max(0.0, part) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each decade."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        found = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        return [tick for tick in found if self.low <= math.log10(tick) <= self.high + 1e-9]


def plot(rows: Sequence[Row], subtitle: str) -> str:
    """Draw *rows* as an SVG file. Raises ValueError if no row has a target."""
    bars = [(row, verdict) for row in rows for verdict in row.verdicts]
    if not bars:
        raise ValueError("no benchmark with a target was measured")
    axis = Axis.around([x for _, each in bars for x in (each.used.low, each.used.high)])
    height = TOP + STEP * len(bars) + BOTTOM
    bottom = height - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(
            16,
            26,
            "What part of each target is used up (shorter is better; 1 is just met)",
            "title",
        ),
        _text(16, 46, subtitle, "small"),
    ]
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(_line(x, TOP - 6, x, bottom, "limit" if tick == 1 else "grid"))
        parts.append(_text(x, bottom + 16, f"{tick:g}", "small", anchor="middle"))
    for number, (row, verdict) in enumerate(bars):
        parts += _bar(axis, TOP + STEP * number, row, verdict)
    return "\n".join([*parts, "</svg>", ""])


def _bar(axis: Axis, y: float, row: Row, verdict: Verdict) -> list[str]:
    """Draw a title, a bar with its spread, and the figures."""
    used = verdict.used
    middle = y + STEP / 2
    title = row.benchmark.title
    if verdict.target.rival is not None:
        title += f" / {verdict.target.rival.name}"
    unit = f" {row.benchmark.unit.name}" if verdict.target.rival is None else ""
    figures = f"{digits(verdict.measured.mid)}{unit}, target {target_text(verdict)}"
    end = axis.x(used.mid)
    colour = MET if verdict.is_met else MISSED
    return [
        _text(LEFT - 10, middle + 4, title, anchor="end"),
        f'<rect x="{LEFT}" y="{middle - BAR / 2:.1f}" width="{max(1.0, end - LEFT):.1f}" '
        f'height="{BAR}" rx="2" fill="{colour}"/>',
        _line(axis.x(used.low), middle, axis.x(used.high), middle, "spread"),
        _text(WIDTH - RIGHT + 10, middle + 4, figures),
    ]


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'
