"""The first screen of the page: what a user gains or pays beside each peer, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from bench.contenders import CONSERVER, QEMU, QSD, SER2NET, SOCAT, SOCAT_LARGE, Contender
from bench.figures import Figures, Rounds, Spread, ratio_of
from bench.model import Benchmark, Statistic
from bench.report import digits, markdown_table

EVEN = 0.05  # of the peer's value; nobody notices less
ORDER = ("gains", "even", "pays")
EXPLAINED = "even: less than 5% apart, or not the same way in all rounds."


@attrs.frozen
class Highlight:
    """A row that tells much, as a sentence."""

    name: str
    """Of the benchmark."""

    rival: Contender | None
    text: str
    """With ``{}`` for the ratio and whose it is (``1.3 times socat's``), or for the value."""

    statistic: Statistic = "p50"


@attrs.frozen
class Told:
    """A highlight, with what was measured."""

    highlight: Highlight
    benchmark: Benchmark
    ours: float
    theirs: float | None
    ratio: Spread | None


PEERS: tuple[tuple[str, tuple[Highlight, ...]], ...] = (
    (
        "ser2net",
        (
            Highlight("consoles-lines-100", SER2NET, "a line of a busy console costs {} CPU time"),
            Highlight("consoles-keys", SER2NET, "a line and a key of a quiet one cost {} CPU time"),
            Highlight("consoles-idle-1000", SER2NET, "1,000 idle consoles cost {} CPU time"),
            Highlight(
                "consoles-latency",
                SER2NET,
                "the slowest of 100 lines at 400 consoles takes {} time",
                "p99",
            ),
            Highlight(
                "relay-serial-ping", SER2NET, "a byte to a serial line and back takes {} time"
            ),
            Highlight("relay-serial-bulk", SER2NET, "a serial line is filled at {} rate"),
            Highlight("relay-from-serial-bulk", SER2NET, "a serial line is emptied at {} rate"),
            Highlight("console-10", SER2NET, "10 clients of a console are served at {} rate"),
            Highlight("console-memory", SER2NET, "a client of a console takes {} memory"),
        ),
    ),
    (
        "socat",
        (
            Highlight(
                "relay-unix-bulk", SOCAT_LARGE, "bulk data between UNIX sockets moves at {} rate"
            ),
            Highlight(
                "relay-tcp-bulk", SOCAT_LARGE, "bulk data between TCP sockets moves at {} rate"
            ),
            Highlight("cpu-per-gb", SOCAT, "a GB between TCP sockets costs {} CPU time"),
            Highlight("relay-tcp-ping", SOCAT, "a byte there and back by TCP takes {} time"),
            Highlight("relay-serial-ping", SOCAT, "a byte to a serial line and back takes {} time"),
            Highlight("relay-serial-bulk", SOCAT, "a serial line is filled at {} rate"),
            Highlight("consoles-lines-100", SOCAT, "a line of a busy console costs {} CPU time"),
        ),
    ),
    (
        "conserver",
        (
            Highlight("console-1", CONSERVER, "one client of a console is served at {} rate"),
            Highlight("console-100", CONSERVER, "100 clients are served at {} rate"),
            Highlight("console-100-cpu", CONSERVER, "a byte for one of 100 costs {} CPU time"),
            Highlight("console-memory", CONSERVER, "a client takes {} memory"),
            Highlight("console-idle", CONSERVER, "100 idle clients cost {} CPU time"),
        ),
    ),
    (
        "QEMU",
        (
            Highlight("qmp-round-trip", QSD, "a QMP command is answered in {} time"),
            Highlight("qmp-pipelined", QSD, "commands in a row are answered at {} rate"),
            Highlight("query-5000", QSD, "5,000 chardevs are listed in {} time"),
            Highlight("change-1", QSD, "a change of an unused chardev takes {} time"),
            Highlight("change-used-null", QEMU, "a change of one that is in use takes {} time"),
            Highlight("change-pty", QSD, "a change to a PTY takes {} time"),
            Highlight("memory-unix-listener", QSD, "a chardev that listens takes {} memory"),
            Highlight("start", QSD, "to start takes {} time"),
        ),
    ),
)
ALONE = (
    Highlight(
        "change-socket-pause",
        None,
        "who writes while the backend is changed waits {} in 99 of 100 changes",
        "p99",
    ),
    Highlight("change-socket-pause", None, "in the worst of them {}", "worst"),
    Highlight(
        "changes-busy",
        None,
        "the slowest of 100 lines at 1,000 busy consoles, of which 100 a second are changed, takes {}",
        "p99",
    ),
    Highlight("console-attach", None, "who comes to a console has its 64 KiB of history in {}"),
    Highlight("console-slow", None, "others wait {} as long for 3 clients that do not read"),
    Highlight(
        "memory-console", None, "a console with line, listener and bridge takes {} of memory"
    ),
    Highlight("start-client", None, "`trio-chardev list` takes {}"),
)


def tell(
    highlights: Sequence[Highlight], table: Sequence[Benchmark], found: dict[str, Rounds]
) -> list[Told]:
    """Return those of *highlights* for which there are results."""
    by_name = {each.name: each for each in table}
    told = []
    for each in highlights:
        benchmark, rounds = by_name.get(each.name), found.get(each.name, {})
        if benchmark is None or not rounds.get(benchmark.subject.name):
            continue
        ours = Figures.of(rounds[benchmark.subject.name], benchmark.unit).get(each.statistic).mid
        if each.rival is None:
            told.append(Told(each, benchmark, ours, None, None))
        elif rounds.get(each.rival.name):
            theirs = Figures.of(rounds[each.rival.name], benchmark.unit).get(each.statistic).mid
            ratio = ratio_of(benchmark, rounds, each.rival, each.statistic)
            told.append(Told(each, benchmark, ours, theirs, ratio))
    return told


def times(ratio: float) -> str:
    """Say a ratio in words: ``1.3 times``, ``31% of``."""
    if ratio >= 10:
        return f"{ratio:,.0f} times"
    if ratio >= 1 - EVEN:
        return f"{ratio:.1f} times"
    return f"{ratio:.0%} of" if ratio >= 0.01 else "less than 1% of"


def sentence(told: Told) -> str:
    """Return the highlight with its ratio, or value."""
    highlight, unit = told.highlight, told.benchmark.unit.name
    if highlight.rival is None or told.ratio is None:
        return highlight.text.format(f"{digits(told.ours)} {'times' if unit == 'x' else unit}")
    whose = f"{highlight.rival.program}'s"
    if not math.isfinite(told.ratio.mid):
        return highlight.text.format(f"more than {whose} zero")
    return highlight.text.format(f"{times(told.ratio.mid)} {whose}")


def sign(told: Told) -> str:
    """Say whether the user gains or pays; ``even`` if it is little, or the rounds disagree."""
    ratio = told.ratio
    if ratio is None or ratio.low <= 1 <= ratio.high or abs(ratio.mid - 1) <= EVEN:
        return "even"
    return "gains" if (ratio.mid > 1) == told.benchmark.unit.more_is_better else "pays"


def summary(table: Sequence[Benchmark], found: dict[str, Rounds]) -> str:
    """Return the first screen: a table for all peers, and a list of what nobody else does."""
    lines = []
    for name, highlights in PEERS:
        told = sorted(tell(highlights, table, found), key=lambda each: ORDER.index(sign(each)))
        for number, each in enumerate(told):
            unit = each.benchmark.unit.name
            assert each.theirs is not None
            lines.append(
                (
                    "" if number else f"**{name}**",
                    sign(each),
                    sentence(each),
                    f"{digits(each.ours)} {unit}",
                    f"{digits(each.theirs)} {unit}",
                )
            )
    parts = []
    if lines:
        parts.append(markdown_table(("beside", "one", "", "here", "there"), lines))
        parts.append(EXPLAINED)
    if alone := [sentence(each) for each in tell(ALONE, table, found)]:
        parts.append("Beside nobody: " + "; ".join(alone) + ".")
    return "\n\n".join(parts)
