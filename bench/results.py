"""The results of a run, and the JSON file in which they are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import cattrs

from bench.figures import Rounds, Row, rows_of
from bench.machine import Noise
from bench.model import Benchmark

FORMAT = 1


@attrs.frozen(kw_only=True)
class Results:
    """The results of a run, with all that is needed to read them later."""

    when: str
    machine: str
    versions: dict[str, str]
    noise: Noise
    rounds: int
    benchmarks: dict[str, Rounds]
    """Name of a benchmark -> its contenders' rounds."""

    format: int = FORMAT

    def rows(self, table: tuple[Benchmark, ...]) -> list[Row]:
        """Return the rows in the order of *table*, without benchmarks that it does not have."""
        return [
            row
            for benchmark in table
            if benchmark.name in self.benchmarks
            for row in rows_of(benchmark, self.benchmarks[benchmark.name])
        ]


def save(results: Results, path: str) -> None:
    """Write *results* to *path*. Raises OSError."""
    Path(path).write_text(json.dumps(cattrs.unstructure(results), indent=1) + "\n")


def load(path: str) -> Results:
    """Read results. Raises OSError, and ValueError if the file has none."""
    try:
        data: Any = json.loads(Path(path).read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"{path}: of format {data['format']}, not {FORMAT}")
        return cattrs.structure(data, Results)
    except (cattrs.BaseValidationError, KeyError, TypeError, json.JSONDecodeError) as exc:
        raise ValueError(f"{path}: not results of this program") from exc
