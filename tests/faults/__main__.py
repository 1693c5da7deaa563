"""The command line: selects the trials, shows their table, and can play one again."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from tests.faults.calls import Fault
from tests.faults.scenarios import SCENARIOS
from tests.faults.trial import Outcome, Trial

WORD: Final = "python -m tests.faults"
PROGRESS: Final = 500  # trials between two reports of progress
TRIES: Final = 5  # of a trial that is void
LONGEST: Final = 5  # trials, the longest ones, that are named


@attrs.frozen
class Job:
    """A trial to be run."""

    scenario: str
    fault: Fault | None
    reference: Counter[str]
    shown: bool = False

    def run(self) -> tuple[Job, Outcome]:
        """Run it in a process of the pool."""
        for _ in range(TRIES):
            outcome = Trial(self.scenario, self.fault, self.reference).run()
            if not (outcome.is_void and outcome.problems):
                break
        return self, outcome

    @property
    def command(self) -> str:
        """The command that plays it again."""
        return f"{WORD} --scenario '{self.scenario}' --fault {self.fault}"


def run_job(job: Job) -> tuple[Job, Outcome]:
    """Run *job*; a function for a pool."""
    return job.run()


def jobs_of(counted: Iterable[tuple[Job, Outcome]], wanted: argparse.Namespace) -> list[Job]:
    """Return the jobs that there are: one error for each call, in turn, or all errors."""
    jobs = []
    for job, outcome in counted:
        by_call: dict[tuple[str, int], list[Fault]] = {}
        for fault in outcome.faults:
            by_call.setdefault((fault.call, fault.when), []).append(fault)
        for (call, when), faults in by_call.items():
            if wanted.call in (None, call) and call not in wanted.leave_out:
                chosen = faults if wanted.all_errors else [faults[when % len(faults)]]
                jobs += [Job(job.scenario, fault, outcome.descriptors) for fault in chosen]
    part, parts = wanted.part
    return jobs[part - 1 :: parts]


def part(text: str) -> tuple[int, int]:
    """Parse K/N."""
    number, _, parts = text.partition("/")
    if not 1 <= int(number) <= int(parts):
        raise argparse.ArgumentTypeError("K/N is a part, from 1/N to N/N")
    return int(number), int(parts)


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog=WORD, description=__doc__)
    parser.add_argument("--scenario", help="only those with this in their name")
    parser.add_argument("--call", help="only this system call")
    parser.add_argument(
        "--leave-out",
        type=lambda text: text.split(","),
        default=[],
        metavar="WORD,...",
        help="not these system calls, nor scenarios with such a word in their name",
    )
    parser.add_argument("--fault", type=Fault.parse, help="only this one: CALL:error=E:when=N")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/N", help="each N-th trial")
    parser.add_argument("--all-errors", action="store_true", help="each call with each error")
    parser.add_argument(
        "--jobs", type=int, default=2 * (os.cpu_count() or 1), help="trials at a time"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the trials. Returns the exit status: 1 if a promise is broken."""
    wanted = arguments(argv)
    names = [name for name in SCENARIOS if (wanted.scenario or "") in name]
    if wanted.scenario in SCENARIOS:
        names = [wanted.scenario]
    names = [name for name in names if not any(word in name for word in wanted.leave_out)]
    if wanted.list or not names:
        print("\n".join(names or SCENARIOS))
        return 0 if names else 2
    begin = time.monotonic()
    gc.collect()
    gc.freeze()  # so that the collection before each fork has little to look at
    with multiprocessing.get_context("fork").Pool(wanted.jobs) as pool:
        counted, broken = [], 0
        for job, outcome in pool.imap(run_job, [Job(name, None, Counter()) for name in names]):
            if not outcome.problems:
                counted.append((job, outcome))
            for problem in outcome.problems:
                broken += 1
                print(f"{job.scenario}: BROKEN WITHOUT A FAULT: {problem}", flush=True)
        if wanted.fault is not None:
            jobs = [Job(job.scenario, wanted.fault, it.descriptors) for job, it in counted]
        else:
            jobs = jobs_of(counted, wanted)
        print(f"{len(names)} scenarios, {len(jobs)} trials", flush=True)
        table = Table(begin, len(jobs))
        for job, outcome in pool.imap_unordered(run_job, jobs):
            table.note(job, outcome)
            if wanted.fault is not None:
                print("\n".join(outcome.injected) or "not reached, or no kernel does that")
        pool.close()
        pool.join()
    table.show()
    return 1 if broken or table.broken else 0


@attrs.define
class Table:
    """The figures, a row for each system call."""

    begin: float
    wanted: int
    trials: Counter[str] = attrs.Factory(Counter)
    reached: Counter[str] = attrs.Factory(Counter)
    broken: Counter[str] = attrs.Factory(Counter)
    longest: list[tuple[float, str]] = attrs.Factory(list)

    def note(self, job: Job, outcome: Outcome) -> None:
        """Count a trial, and print at once what is broken."""
        assert job.fault is not None
        call = job.fault.call
        self.trials[call] += 1
        self.reached[call] += bool(outcome.injected)
        self.longest = sorted([*self.longest, (outcome.seconds, job.command)])[-LONGEST:]
        if (done := self.trials.total()) % PROGRESS == 0:
            print(f"{done} of {self.wanted} in {time.monotonic() - self.begin:.0f} s", flush=True)
        if outcome.problems:
            self.broken[call] += 1
            print(f"{job.scenario}: {job.fault}")
            for line in outcome.injected[:2] or ["nothing was made to fail"]:
                print(f"    {line[:160]}")
            for problem in outcome.problems:
                print(f"    BROKEN: {problem}")
            print(f"    {job.command}", flush=True)

    def show(self) -> None:
        """Print it."""
        row: Callable[..., str] = "{:20} {:>8} {:>8} {:>8}".format
        for seconds, command in self.longest:
            print(f"{seconds:.1f} s  {command}")
        print(row("call", "trials", "failed", "broken"))
        for call in sorted(self.trials):
            print(row(call, self.trials[call], self.reached[call], self.broken[call]))
        totals = (counts.total() for counts in (self.trials, self.reached, self.broken))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            row("all", *totals),
            f"in {time.monotonic() - self.begin:.0f} s,",
            f"{used.ru_utime + used.ru_stime:.0f} s of a processor",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
