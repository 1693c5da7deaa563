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
    """What a run has found, with all that it takes to read it later."""

    when: str
    machine: str
    versions: dict[str, str]
    noise: Noise
    rounds: int
    benchmarks: dict[str, Rounds]
    """Name of a benchmark -> its contenders' rounds."""

    format: int = FORMAT

    def rows(self, table: tuple[Benchmark, ...]) -> list[Row]:
        """In the order of *table*; what it does not know (any more) is left out."""
        return [
            row
            for benchmark in table
            if benchmark.name in self.benchmarks
            for row in rows_of(benchmark, self.benchmarks[benchmark.name])
        ]


def save(results: Results, path: str) -> None:
    """Raises OSError."""
    Path(path).write_text(json.dumps(cattrs.unstructure(results), indent=1) + "\n")


def load(path: str) -> Results:
    """Raises OSError, and ValueError if the file is none of ours."""
    try:
        data: Any = json.loads(Path(path).read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"{path}: of format {data['format']}, not {FORMAT}")
        return cattrs.structure(data, Results)
    except (cattrs.BaseValidationError, KeyError, TypeError, json.JSONDecodeError) as exc:
        raise ValueError(f"{path}: not results of this program") from exc
