"""CPU time by the scheduler's own account, and waiting for calm."""

from __future__ import annotations

import os
import time

import pytest

from bench import cpu
from bench.contenders import OURS, SER2NET


def test_cpu_time_grows_by_what_the_process_runs() -> None:
    before, begin = cpu.cpu_time(os.getpid()), time.thread_time()
    while time.thread_time() < begin + 0.02:
        pass
    assert cpu.cpu_time(os.getpid()) - before > 0.015


class Clock:
    """A process that needs so much CPU time in each look, with time that passes at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, needs: list[float]) -> None:
        self.now, self.needs = 0.0, needs
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpu, "cpu_time", self.cpu_time)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def cpu_time(self, _pid: int) -> float:
        looks = round(max(0.0, self.now - cpu.DELAY - 2 * cpu.LOOK) / cpu.LOOK)
        return sum(self.needs[:looks])


def test_who_has_nothing_to_do_is_calm_at_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [])
    cpu.wait_calm(OURS, 1)
    assert clock.now == pytest.approx(cpu.DELAY + 3 * cpu.LOOK)


def test_who_has_been_in_use_for_long_is_only_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [])
    cpu.wait_calm(OURS, 1, waited=3.0)
    assert clock.now == pytest.approx(cpu.LOOK)


def test_who_imports_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [0.2, 0.1, 0.0])
    cpu.wait_calm(OURS, 1)
    assert clock.now == pytest.approx(cpu.DELAY + 5 * cpu.LOOK)


def test_who_is_never_calm_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [0.1] * 1000)
    cpu.wait_calm(OURS, 1)
    assert clock.now == pytest.approx(cpu.DELAY + 2 * cpu.LOOK + cpu.PATIENCE, abs=0.3)


def test_others_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [0.1] * 1000)
    cpu.wait_calm(SER2NET, 1)
    assert clock.now == 0
