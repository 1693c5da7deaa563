"""Configuration that all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trio
import trio._core._run as trio_run
from hypothesis import settings
from trio.abc import Instrument

from tests.forking import Forking
from tests.stalls import StallWatch
from trio_chardev.cached_path import open_cached
from trio_chardev.core.fast import ways
from trio_chardev.importing import import_the_rest

# The same examples each time, however long one takes; a test may ask for others.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

MOST_STALLS = 20
FEWEST, MOST = 2, 4
"""Processes that run the tests: one more than processors, as much of it is waiting."""


FAST = frozenset(
    f"test_{name}.py" for name in ("look_again", "splicing", "splice", "exchange", "pour")
)
"""The tests of what `--plain` switches off."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--plain", action="store_true", help="take the plain ways alone, see core/fast"
    )

    parser.addoption(
        "--stalls", action="store_true", help="tell which steps of tasks were the longest"
    )
    parser.addoption(
        "--exec", action="store_true", help="start each process anew, see tests/forking.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    ways.are_taken = not config.getoption("--plain")
    if (root := open_cached("/")) is not None:  # the first use leaves a descriptor open, in no test
        os.close(root)
    # Else each of hundreds of processes compiles the same modules; without a cache nothing is kept.
    if config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
    if not config.getoption("--exec"):
        forking = Forking()
        forking.begin()
        config.add_cleanup(forking.end)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--plain"):
        items[:] = [item for item in items if item.path.name not in FAST]


def pytest_collection_finish() -> None:
    """Keep what the tests are made of out of garbage collections, which would walk it each time.

    All of the package is imported before, as the first service would do in a thread.
    """
    import_the_rest()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the tests in several processes, if pytest-xdist is there and no option says otherwise.

    Not the tests of a few files: starting the processes takes longer. ``-n 0`` is one process.
    """
    is_worker = hasattr(config, "workerinput")
    if is_worker or getattr(config.option, "numprocesses", 0) is not None or config.option.usepdb:
        return
    if all(name.partition("::")[0].endswith(".py") for name in config.args):
        return
    config.option.numprocesses = max(FEWEST, min(MOST, 1 + len(os.sched_getaffinity(0))))
    if config.option.dist == "no":
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def stall_watch(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StallWatch | None]:
    """With `--stalls`, watch the steps of all tasks that the test runs."""
    if not request.config.getoption("--stalls"):
        yield None
        return
    watch, run = StallWatch(), trio.run

    def run_watched(*args: Any, instruments: Sequence[Instrument] = (), **options: Any) -> Any:
        return run(*args, instruments=[*instruments, watch], **options)

    monkeypatch.setattr(trio, "run", run_watched)
    yield watch
    for stall in watch.longest[:1]:
        request.node.user_properties.append(("stall", [stall.seconds, str(stall)]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the longest steps, a line for each test."""
    found = [
        (*value, report.nodeid)
        for report in terminalreporter.getreports("")
        for key, value in report.user_properties
        if key == "stall" and report.when == "teardown"
    ]
    if found:
        terminalreporter.section("longest steps")
        for _, text, test in sorted(found, reverse=True)[:MOST_STALLS]:
            terminalreporter.line(f"{text} ({test})")


@pytest.fixture(params=range(12))
def schedule(request: pytest.FixtureRequest) -> int:
    """Run the test under several orders of tasks; the number makes each order repeatable.

    It seeds the scheduler as pytest-trio does for hypothesis.
    """
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    seed: int = request.param
    trio_run._r.seed(seed)
    return seed
