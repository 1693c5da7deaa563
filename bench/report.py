"""Rows as text: the table of a run, of the page, and of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import Figures, Row, Spread, Verdict
from bench.model import Statistic
from bench.results import Results

HEADINGS = ("benchmark", "unit", "p50", "p99", "worst", "beside", "its p50", "ratio", "target", "")
NOISY = 0.3  # of their median; rounds further apart than this are noisy


def digits(value: float) -> str:
    """Show three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_spread(spread: Spread) -> str:
    """Show the median and how far the rounds were from it."""
    if spread.low == spread.high:
        return digits(spread.mid)
    return f"{digits(spread.mid)} ({digits(spread.low)}-{digits(spread.high)})"


def statistic_text(statistic: Statistic) -> str:
    """Name it with a space, unless it is the usual one."""
    return "" if statistic == "p50" else f"{statistic} "


def target_text(verdict: Verdict) -> str:
    """Show a target such as ``p99 <= 1 ms``; a bare number is a ratio."""
    sign = ">=" if verdict.more_is_better else "<="
    return f"{statistic_text(verdict.target.statistic)}{sign} {verdict.target.limit:g}"


def verdict_text(verdict: Verdict) -> str:
    """Say whether the target is met, and whether the rounds agree."""
    edges = verdict.used
    is_sure = edges.high <= 1 or edges.low > 1
    return ("met" if verdict.is_met else "NOT MET") + ("" if is_sure else ", not in all rounds")


def tail_texts(figures: Figures) -> tuple[str, str]:
    """Show p99 and the worst value; empty if a round gave one value."""
    return ("", "") if figures.is_single else (digits(figures.p99.mid), digits(figures.worst))


def cells(row: Row) -> tuple[str, ...]:
    """Return one row of the table."""
    unit = row.benchmark.unit.name
    noisy = " ~" if row.subject.p50.width > NOISY else ""
    targets = "; ".join(
        target_text(each) + (f" {unit}" if each.target.rival is None else "")
        for each in row.verdicts
    )
    return (
        row.benchmark.title,
        unit,
        with_spread(row.subject.p50) + noisy,
        *tail_texts(row.subject),
        row.rival.name if row.rival else "",
        with_spread(row.theirs.p50) if row.theirs else "",
        with_spread(row.ratio) if row.ratio else "",
        targets,
        "; ".join(verdict_text(each) for each in row.verdicts),
    )


def text_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (headings, *lines)
    )


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out the same table in Markdown."""
    rule = ["---"] * len(headings)
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *lines))


def header(results: Results) -> list[str]:
    """Say where, when and with what it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [f"{results.when}, {results.machine}", versions]


def warnings(results: Results, rows: Sequence[Row]) -> list[str]:
    """Return the reasons why the figures may be wrong."""
    found = [f"warning: {text}" for text in results.noise.warnings]
    noisy = {row.benchmark.name for row in rows if row.subject.p50.width > NOISY}
    if noisy:
        found.append(
            f"warning: rounds were more than {NOISY:.0%} apart (~): {', '.join(sorted(noisy))}"
        )
    return found


LEGEND = (
    "p50 and p99: the median of the rounds (their lowest-highest); p99 is what 99 of 100 are no\n"
    "worse than, worst is of all rounds. ratio: ours to theirs, round by round. A target without\n"
    "a unit is of the ratio."
)


def run_text(results: Results, rows: Sequence[Row]) -> str:
    """Return what ``run`` prints."""
    verdicts = [verdict for row in rows for verdict in row.verdicts]
    met = sum(verdict.is_met for verdict in verdicts)
    if not rows:
        return "nothing was measured"
    return "\n".join(
        [
            *header(results),
            "",
            text_table(HEADINGS, [cells(row) for row in rows]),
            "",
            LEGEND,
            f"{met} of {len(verdicts)} targets met; {results.rounds} rounds, in turns",
            *warnings(results, rows),
        ]
    )


def compare_text(old: Sequence[Row], new: Sequence[Row]) -> str:
    """Return what ``compare`` prints: each row that both have, and how it has changed."""
    before = {_key(row): row for row in old}
    lines = []
    for row in new:
        if (was := before.get(_key(row))) is None:
            continue
        lines.append(
            (
                row.benchmark.title,
                row.benchmark.unit.name,
                with_spread(was.subject.p50),
                with_spread(row.subject.p50),
                f"{row.subject.p50.mid / was.subject.p50.mid - 1:+.1%}",
                change_sign(was.subject.p50, row.subject.p50, row.benchmark.unit.more_is_better),
                row.rival.name if row.rival else "",
                digits(was.ratio.mid) if was.ratio else "",
                digits(row.ratio.mid) if row.ratio else "",
                change_sign(was.ratio, row.ratio, row.benchmark.unit.more_is_better),
            )
        )
    if not lines:
        return "the two have no benchmark in common"
    headings = ("benchmark", "unit", "old p50", "new p50", "change", "", "beside")
    legend = "better, worse: the rounds of the two runs do not overlap; =: they do"
    return text_table((*headings, "old ratio", "new ratio", ""), lines) + "\n\n" + legend


def _key(row: Row) -> tuple[str, str]:
    return row.benchmark.name, row.rival.name if row.rival else ""


def change_sign(old: Spread | None, new: Spread | None, more_is_better: bool) -> str:
    """Return ``=`` unless every round of one run is better than every round of the other."""
    if old is None or new is None:
        return ""
    if old.overlaps(new):
        return "="
    return "better" if (new.mid > old.mid) == more_is_better else "worse"
