"""``python -m bench`` as one types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import bench.cli
from bench.machine import Noise
from bench.results import Results, save
from tests.bench.rounds import LATENCY, RATE, rounds


@pytest.fixture(autouse=True)
def _small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.cli, "BENCHMARKS", (LATENCY, RATE))
    monkeypatch.setattr(bench.cli, "select", lambda _names: (LATENCY, RATE))
    monkeypatch.setattr("bench.machine.REST", 0.0)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(bench.cli.cli, arguments)


def write(path: Path, ours: float) -> str:
    results = Results(
        when="now",
        machine="here",
        versions={},
        noise=Noise(0.0, 0.0, 0.0),
        rounds=1,
        benchmarks={"latency": rounds([ours], [1e-6])},
    )
    save(results, str(path))
    return str(path)


def test_list_names_benchmarks_and_rivals() -> None:
    result = invoke("list")
    assert "latency" in result.output
    assert "a round trip; beside socat" in result.output


def test_run_prints_the_table_and_keeps_the_results(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    result = invoke("run", "--peers", "none", "--rounds", "2", "--json", str(path))
    assert result.exit_code == 0
    assert "a round trip" in result.output
    assert "2 rounds, in turns" in result.output
    assert "a round trip" in invoke("compare", str(path), str(path)).output


def test_a_smoke_run_says_only_that_all_works() -> None:
    result = invoke("run", "--peers", "none", "--smoke")
    assert (result.exit_code, result.stdout) == (0, "2 of 2 benchmarks work\n")


def test_without_a_terminal_there_is_a_line_after_each_benchmark() -> None:
    lines = invoke("run", "--peers", "none", "--smoke").stderr.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1 of 2: latency", "2 of 2: rate"]


def test_a_contender_that_does_wrong_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(turns: object, *, complain: object, smoke: bool = False) -> dict[str, object]:
        assert callable(complain)
        complain("latency, socat: 3 bytes lost")
        return {}

    monkeypatch.setattr(bench.cli, "run", run)
    result = invoke("run", "--peers", "none", "--smoke")
    assert result.exit_code == 1
    assert "error: latency, socat: 3 bytes lost" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--peers", "netcat"), "no such peer: netcat"),
        (("--smoke", "--json", "x"), "--smoke measures nothing"),
        (("--rounds", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], text: str) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_compare_says_what_is_better(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old.json", 4e-6), write(tmp_path / "new.json", 2e-6)
    assert "-50.0%  better" in invoke("compare", old, new).output


def test_plot_writes_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", 1e-6)
    result = invoke("plot", path)
    assert result.output == f"{tmp_path / 'r.svg'}\n"
    assert (tmp_path / "r.svg").read_text().startswith("<svg")


def test_a_missing_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    result = invoke("plot", str(tmp_path / "none.json"))
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "No such file" in result.output


def test_report_rewrites_the_page_and_the_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text(bench.page.PAGE.read_text())
    monkeypatch.setattr("bench.page.PAGE", page)
    monkeypatch.setattr(bench.cli, "PLOT", tmp_path / "results.svg")
    assert invoke("report", write(tmp_path / "r.json", 1e-6)).exit_code == 0
    assert "| a round trip | us |" in page.read_text()
    assert (tmp_path / "results.svg").exists()
