"""bench/RESULTS.md: the text between its marks is generated, the rest is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.figures import Row
from bench.report import page_text
from bench.results import Results

FOLDER = Path(__file__).parent
PAGE, RESULTS, PLOT = FOLDER / "RESULTS.md", FOLDER / "results.json", FOLDER / "results.svg"
BEGIN, END = "<!-- made by `python -m bench report`: -->", "<!-- to here -->"


def replace_made(page: str, made: str) -> str:
    """Put *made* between the marks of *page*. Raises ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the mark {END if begin else BEGIN}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def update(results: Results, rows: Sequence[Row]) -> None:
    """Rewrite the page. Raises OSError, ValueError."""
    PAGE.write_text(replace_made(PAGE.read_text(), page_text(results, rows, PLOT.name)))
