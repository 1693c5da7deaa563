"""The file of results, and the page made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.machine import Noise
from bench.page import BEGIN, END, PAGE, replace_made
from bench.results import Results, load, save
from tests.bench.rounds import rounds


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    results = Results(
        when="now",
        machine="here",
        versions={"Python": "3"},
        noise=Noise(0.0, 0.1, 0.2),
        rounds=2,
        benchmarks={"latency": rounds([1e-6, 2e-6], [3e-6, 4e-6])},
    )
    save(results, str(tmp_path / "r.json"))
    assert load(str(tmp_path / "r.json")) == results


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "noise": 3}'])
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"r\.json: not results of this program"):
        load(str(path))


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ValueError, match="of format 2, not 1"):
        load(str(path))


def test_only_what_stands_between_the_marks_is_made_anew() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_made(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replace_made(replace_made(page, "new"), "new") == replace_made(page, "new")


@pytest.mark.parametrize("page", ["", f"{END} {BEGIN}", BEGIN])
def test_a_page_without_its_marks_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match=r"RESULTS\.md lacks the mark"):
        replace_made(page, "new")


def test_the_page_has_its_marks() -> None:
    assert "\n\nnew\n\n" in replace_made(PAGE.read_text(), "new")
