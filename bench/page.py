"""bench/RESULTS.md: the text between its marks is generated, the rest is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bench.figures import Row
from bench.model import Benchmark
from bench.plot import groups_of
from bench.report import (
    HEADINGS,
    LEGEND,
    cells,
    digits,
    header,
    markdown_table,
    statistic_text,
    warnings,
)
from bench.results import Results
from bench.summary import summary
from bench.table import GROUPS, is_in

FOLDER = Path(__file__).parent
PAGE, RESULTS, PLOT = FOLDER / "RESULTS.md", FOLDER / "results.json", FOLDER / "results.svg"
BEGIN, END = "<!-- made by `python -m bench report`: -->", "<!-- to here -->"
OURS = 5  # columns of a row that are ours, the same beside every rival
OTHERS = "Others"


def replace_made(page: str, made: str) -> str:
    """Put *made* between the marks of *page*. Raises ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the mark {END if begin else BEGIN}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def page_text(results: Results, table: Sequence[Benchmark], plot: str) -> str:
    """Return the generated part of RESULTS.md; *plot* is the file beside it."""
    rows = results.rows(tuple(table))
    verdicts = [verdict for row in rows for verdict in row.verdicts]
    met = sum(verdict.is_met for verdict in verdicts)
    missed = [text for row in rows for text in missed_texts(row)]
    return "\n\n".join(
        [
            "\\\n".join(header(results)),
            *warnings(results, rows),
            summary(table, results.benchmarks),
            *([met_text(met, len(verdicts), results.rounds)] if verdicts else []),
            *(["\n".join(f"* {text}" for text in missed)] if missed else []),
            "## Tables and targets",
            *([f"![Ratios to the peers, and the targets]({plot})"] if groups_of(rows) else []),
            *(text for title, patterns in GROUPS for text in section(title, patterns, rows)),
            *section(OTHERS, None, rows),
            LEGEND,
        ]
    )


def met_text(met: int, of: int, rounds: int) -> str:
    """Say how many targets are met; what is not follows, if anything is."""
    of_rounds = f"of at most {rounds} rounds" if rounds > 1 else "of one round"
    return f"{met} of {of} targets are met, by the median {of_rounds}" + (
        "; not met:" if met < of else "."
    )


def missed_texts(row: Row) -> list[str]:
    """Say by how much each target of a row is missed."""
    beside = f", beside {row.rival.name}" if row.rival else ""
    return [
        f"{row.benchmark.title}{beside if each.target.rival else ''}: "
        f"{statistic_text(each.target.statistic)}{digits(each.measured.mid)}, not {each.target.limit:g}"
        for each in row.verdicts
        if not each.is_met
    ]


def section(title: str, patterns: Sequence[str] | None, rows: Sequence[Row]) -> list[str]:
    """Return heading and table of those *rows* whose subject it is; nothing if there are none.

    Without *patterns* it is of those that are no group's.
    """
    chosen = [
        row
        for row in rows
        if (
            is_in(row.benchmark.name, patterns)
            if patterns is not None
            else not any(is_in(row.benchmark.name, each) for _, each in GROUPS)
        )
    ]
    if not chosen:
        return []
    lines = [cells(chosen[0])]
    for before, row in pairwise(chosen):
        line = cells(row)
        if row.benchmark is before.benchmark:  # what is ours is said once
            line = ("",) * OURS + line[OURS:]
        lines.append(line)
    return [f"### {title}", markdown_table(HEADINGS, lines)]


def update(results: Results, table: Sequence[Benchmark]) -> None:
    """Rewrite the page. Raises OSError, ValueError."""
    PAGE.write_text(replace_made(PAGE.read_text(), page_text(results, table, PLOT.name)))
