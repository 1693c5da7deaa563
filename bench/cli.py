"""``python -m bench``: list, run, compare, plot, report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import click

from bench import machine
from bench.contenders import PEERS, select_peers
from bench.figures import Row
from bench.page import PLOT, RESULTS, update
from bench.plot import groups_of, plot
from bench.processes import raise_file_limit
from bench.report import compare_text, run_text
from bench.results import Results, load, save
from bench.runner import Turn, plan, run
from bench.table import BENCHMARKS, select


@click.group()
def cli() -> None:
    """Measure this program beside what a user would pick instead, in one run."""


@cli.command("list")
def list_command() -> None:
    """Name the benchmarks, and whom they compare with."""
    for each in BENCHMARKS:
        rivals = ", ".join(rival.name for rival in each.rivals)
        click.echo(f"{each.name:24} {each.title}" + (f"; beside {rivals}" if rivals else ""))
    missing = sorted({str(peer.program) for peer in PEERS if not peer.is_installed})
    if missing:
        click.echo(f"not installed: {', '.join(missing)}")


@cli.command("run")
@click.argument("names", nargs=-1)
@click.option(
    "--peers",
    default="auto",
    show_default=True,
    help="Whom to measure beside: auto (who is installed), none, or programs with commas between.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option("--json", "path", type=click.Path(), help="Keep the results in this file.")
@click.option("--smoke", is_flag=True, help="Only see that each works, with as little as shows it.")
def run_command(
    names: tuple[str, ...], peers: str, rounds: int, path: str | None, smoke: bool
) -> None:
    """Run all benchmarks, or those NAMED (``qmp-*`` for several), in turns.

    Timings are no test: targets that are not met are shown. The exit status is 1 if a
    contender did the wrong thing, such as losing a byte.
    """
    if smoke and path is not None:
        raise click.UsageError("--smoke measures nothing that --json could keep")
    try:
        benchmarks, chosen = select(names), select_peers(peers)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    raise_file_limit()
    complaints: list[str] = []
    if smoke:
        with progress(plan(benchmarks, chosen, 1, smoke=True)) as turns:
            found = run(turns, smoke=True, complain=complaints.append)
        click.echo(f"{len(found)} of {len(benchmarks)} benchmarks work")
    else:
        watch = machine.NoiseWatch()
        with progress(plan(benchmarks, chosen, rounds)) as turns:
            found = run(turns, complain=complaints.append)
        results = Results(
            when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=machine.describe(),
            versions=machine.versions(chosen),
            noise=watch.end(),
            rounds=rounds,
            benchmarks=found,
        )
        if path is not None:
            with file_errors():
                save(results, path)
        click.echo(run_text(results, results.rows(BENCHMARKS)))
    for complaint in complaints:
        click.echo(f"error: {complaint}", err=True)
    if complaints:
        sys.exit(1)


@contextlib.contextmanager
def progress(turns: Sequence[Turn]) -> Iterator[Iterator[Turn]]:
    """Show a progress bar while *turns* are taken; elsewhere than on a terminal, lines."""
    if not sys.stderr.isatty():
        yield tell_progress(turns)
        return
    with click.progressbar(
        turns,
        item_show_func=lambda turn: f"{turn.benchmark.name}: {turn.contender.name}" if turn else "",
        file=sys.stderr,
    ) as bar:
        yield iter(bar)


def tell_progress(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Give *turns*; after those of a benchmark tell which it was, and how long they took."""
    names = [name for name, _ in groupby(turns, lambda turn: turn.benchmark.name)]
    for number, (name, group) in enumerate(groupby(turns, lambda turn: turn.benchmark.name), 1):
        begin = time.monotonic()
        yield from group
        took = time.monotonic() - begin
        click.echo(f"{number} of {len(names)}: {name}, {took:.1f} s", err=True)


@cli.command("compare")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
def compare_command(old: str, new: str) -> None:
    """Show what became of each row between two files of results."""
    with file_errors():
        click.echo(compare_text(load(old).rows(BENCHMARKS), load(new).rows(BENCHMARKS)))


@cli.command("plot")
@click.argument("file", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="[default: FILE with .svg at its end]")
def plot_command(file: str, output: str | None) -> None:
    """Draw the targets of a file of results as an SVG."""
    with file_errors():
        results = load(file)
        target = Path(output) if output else Path(file).with_suffix(".svg")
        target.write_text(draw(results, results.rows(BENCHMARKS)))
    click.echo(target)


@cli.command("report")
@click.argument("file", type=click.Path(), default=RESULTS)
def report_command(file: str) -> None:
    """Put the table and the plot of FILE (bench/results.json) into bench/RESULTS.md."""
    with file_errors():
        results = load(file)
        rows = results.rows(BENCHMARKS)
        if groups_of(rows):  # of a few rows there may be nothing to draw
            PLOT.write_text(draw(results, rows))
        update(results, BENCHMARKS)


def draw(results: Results, rows: Sequence[Row]) -> str:
    """Draw the plot, with where and when it was measured."""
    return plot(rows, f"{results.when}, {results.machine}, {results.rounds} rounds")


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """Report in one line what is wrong with a file."""
    try:
        yield
    except (OSError, ValueError) as exc:
        raise click.ClickException(str(exc)) from None
