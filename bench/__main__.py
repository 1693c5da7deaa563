"""``python -m bench``: measure, side by side in turns, and show ratios."""

from __future__ import annotations

import platform
import shutil
from statistics import median

import click

from bench.qmp import BENCHMARKS, p50
from bench.servers import OURS, PEER, server
from trio_chardev.version import __version__


@click.group()
def cli() -> None:
    """Measure this program beside what a user would pick instead."""


@cli.command("list")
def list_command() -> None:
    """Name the benchmarks."""
    for name, (title, _) in BENCHMARKS.items():
        click.echo(f"{name:16} {title}")


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=3, show_default=True, help="Turns of each server.")
@click.option("--scale", default=1.0, show_default=True, help="Size of each round.")
def run(names: tuple[str, ...], rounds: int, scale: float) -> None:
    """Run benchmarks, or those NAMED; the servers take turns."""
    if unknown := set(names) - set(BENCHMARKS):
        raise click.UsageError(f"no such benchmark: {', '.join(sorted(unknown))}")
    servers = [OURS, PEER] if shutil.which(PEER) else [OURS]
    click.echo(f"trio-chardev {__version__}, Python {platform.python_version()}; p50, each of")
    click.echo(f"{rounds} rounds; spread = the slowest round's p50 over the fastest's")
    click.echo(f"{'benchmark':44}{OURS:>14}{PEER:>22}{'ratio':>8}{'spread':>9}")
    for name in names or BENCHMARKS:
        title, benchmark = BENCHMARKS[name]
        results: dict[str, list[float]] = {each: [] for each in servers}
        for _ in range(rounds):
            for each in servers:
                with server(each) as client:
                    results[each].append(p50(benchmark(client, scale)))
        click.echo(f"{title:44}{row(results)}")


def row(results: dict[str, list[float]]) -> str:
    """Our time, the peer's, their ratio, and how far apart our rounds were."""
    ours = median(results[OURS])
    spread = max(results[OURS]) / min(results[OURS])
    if PEER not in results:
        return f"{ours * 1e6:11.1f} us{'not installed':>22}{'':8}{spread:9.2f}"
    peer = median(results[PEER])
    return f"{ours * 1e6:11.1f} us{peer * 1e6:19.1f} us{ours / peer:8.2f}{spread:9.2f}"


if __name__ == "__main__":
    cli(prog_name="python -m bench")
