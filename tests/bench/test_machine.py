"""The description of the machine."""

from __future__ import annotations

import os

import pytest

from bench.machine import CpuTimes, Noise, describe, find_version, versions

STAT = "cpu  100 5 50 800 20 1 4 20 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"


def test_the_first_line_of_proc_stat_is_of_all_processors() -> None:
    assert CpuTimes.parse(STAT) == CpuTimes(total=1000, idle=820, steal=20)


def test_busy_is_in_processors_and_stolen_a_part() -> None:
    before, after = CpuTimes(1000, 820, 20), CpuTimes(2000, 1320, 120)
    assert after.busy_since(before) == 0.5 * (os.cpu_count() or 1)
    assert after.stolen_since(before) == 0.1


def test_no_time_has_passed_between_two_looks() -> None:
    times = CpuTimes(1000, 820, 20)
    assert times.stolen_since(times) == 0


@pytest.mark.parametrize(
    ("noise", "count"),
    [
        (Noise(0.0, 0.02, 0.0), 0),
        (Noise(0.1, 0.0, 0.0), 1),
        (Noise(0.0, 0.1, 0.0), 1),
        (Noise(0.1, 0.1, 0.1), 2),
    ],
)
def test_warnings_of_noise(noise: Noise, count: int) -> None:
    assert len(noise.warnings) == count


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("qemu-storage-daemon version 7.2.22 (Debian 1:7.2)\n", "7.2.22"),
        ("socat by Gerhard Rieger\nsocat version 1.7.4.4 on 06 Nov 2022", "1.7.4.4"),
        ("ser2net version 4.3.11\n", "4.3.11"),
        ("usage: what?", "?"),
    ],
)
def test_versions_as_programs_say_them(text: str, version: str) -> None:
    assert find_version(text) == version


def test_our_versions_are_always_there() -> None:
    assert set(versions(())) == {"trio-chardev", "Python", "Trio", "Linux"}
    assert f"{os.cpu_count()} x " in describe()
