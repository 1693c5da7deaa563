"""The long-running fuzzer: ``python -m tests.fuzz --minutes 5``, or ``just fuzz 5``.

Each target of `tests.fuzz_targets` gets an equal share of the time, in a process of its own. With
atheris (``pip install atheris``) coverage guides the choices, else they are random. A finding is
printed as hexadecimal digits, which ``--replay TARGET HEX`` runs again, and the status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import attrs

MAX_SIZE: Final = 1024  # bytes of choices
SEEDS: Final = 50  # inputs that atheris begins with
WARM_UP: Final = 200  # inputs, after which caches are filled and memory is first measured

atheris: Any = None
with contextlib.suppress(ImportError):
    atheris = importlib.import_module("atheris")


@attrs.define
class Fuzzer:
    """Runs one target until its time is over, counts, and ends the process."""

    name: str
    target: Callable[[bytes], None]
    deadline: float
    count: int = 0
    memory: int = 0

    def one(self, data: bytes) -> None:
        """Try an input; the first finding ends the run."""
        if self.count == WARM_UP:
            self.memory = memory_now()
        if time.monotonic() > self.deadline:
            self.end()
        self.count += 1
        try:
            self.target(data)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"FINDING after {self.count} inputs: --replay {self.name} {data.hex()}")
            leave(1)

    def end(self) -> NoReturn:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{self.name:<8} {self.count:>9} inputs, 0 findings, memory {self.memory} KiB at "
            f"the start, {memory_now()} KiB at the end, {most} KiB at most"
        )
        leave(0)

    def by_chance(self, seed: int) -> NoReturn:
        chance = random.Random(seed)
        while True:
            self.one(chance.randbytes(chance.randrange(MAX_SIZE)))

    def by_coverage(self, seed: int, corpus: str) -> None:
        chance = random.Random(seed)
        for number in range(SEEDS):
            Path(corpus, str(number)).write_bytes(chance.randbytes(chance.randrange(MAX_SIZE)))
        options = [f"-seed={seed}", f"-max_len={MAX_SIZE}", "-len_control=0", "-verbosity=0"]
        options.append(f"-artifact_prefix={corpus}/")
        atheris.Setup([sys.argv[0], *options, corpus], self.one)
        atheris.Fuzz()


def leave(status: int) -> NoReturn:
    """End without what libFuzzer, or Trio in the middle of a run, would do at exit."""
    sys.stdout.flush()
    os._exit(status)


def memory_now() -> int:
    """Return the resident memory in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def import_targets(*, instrumented: bool) -> ModuleType:
    if not instrumented:
        return importlib.import_module("tests.fuzz_targets")
    with atheris.instrument_imports(include=["trio_chardev"]):
        return importlib.import_module("tests.fuzz_targets")


def run_target(name: str, seconds: float, seed: int) -> None:
    """Run a target in a process of its own, which this ends."""
    targets = import_targets(instrumented=atheris is not None).TARGETS
    fuzzer = Fuzzer(name, targets[name], time.monotonic() + seconds)
    if atheris is None:
        fuzzer.by_chance(seed)
    with tempfile.TemporaryDirectory() as corpus:
        fuzzer.by_coverage(seed, corpus)


def run_all(minutes: float, seed: int) -> int:
    """Run the targets one after another; returns the exit status."""
    names = list(import_targets(instrumented=False).TARGETS)
    engine = "coverage (atheris)" if atheris is not None else "chance"
    print(f"seed {seed}, led by {engine}, {minutes:g} minutes for {len(names)} targets", flush=True)
    status = 0
    for name in names:
        options = ["--target", name, "--minutes", str(minutes / len(names)), "--seed", str(seed)]
        # libFuzzer's output is of interest only if libFuzzer is what ends the process.
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *options], stderr=subprocess.PIPE, check=False
        )
        if done.returncode != 0:
            sys.stderr.write(done.stderr.decode(errors="replace"))
            status = 1
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--target", help="only that one")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "HEX"), help="run an input")
    given = parser.parse_args()
    if given.replay:
        name, data = given.replay
        import_targets(instrumented=False).TARGETS[name](bytes.fromhex(data))
    elif given.target:
        run_target(given.target, given.minutes * 60, given.seed)
    else:
        return run_all(given.minutes, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
