"""The table of benchmarks and the list of peers."""

from __future__ import annotations

import shutil

import pytest

from bench.contenders import PEERS, QSD, SER2NET, SOCAT, SOCAT_LARGE, select_peers
from bench.model import Benchmark
from bench.table import BENCHMARKS, GROUPS, is_in, select


def test_names_are_unique() -> None:
    names = [each.name for each in BENCHMARKS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_a_target_is_beside_a_rival_that_is_measured(benchmark: object) -> None:
    found = next(each for each in BENCHMARKS if each is benchmark)
    assert {each.rival for each in found.targets} <= {None, *found.rivals}
    assert 0 < found.smoke <= found.size


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_each_is_of_one_subject(benchmark: Benchmark) -> None:
    assert sum(is_in(benchmark.name, patterns) for _, patterns in GROUPS) == 1


def test_each_peer_has_a_row_in_which_a_smoke_run_tries_it() -> None:
    tried = {rival for each in BENCHMARKS if not each.smoke_alone for rival in each.rivals}
    assert set(PEERS) <= tried


def test_patterns_are_those_of_a_shell() -> None:
    assert select([]) == BENCHMARKS
    assert [each.name for each in select(["send-64", "start"])] == ["send-64", "start"]
    assert {each.name for each in select(["qmp-*"])} == {"qmp-round-trip", "qmp-pipelined"}


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no such benchmark: qpm"):
        select(["start", "qpm"])


def test_auto_is_who_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "socat" else None)
    assert select_peers("auto") == {SOCAT, SOCAT_LARGE}
    assert select_peers("none") == frozenset()
    assert select_peers("socat") == {SOCAT, SOCAT_LARGE}


def test_a_peer_that_is_named_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="not installed: ser2net, socat"):
        select_peers("socat,ser2net")


def test_several_peers_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert select_peers("qemu-storage-daemon,ser2net") == {QSD, SER2NET}
    assert select_peers("auto") == set(PEERS)


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="no such peer: netcat"):
        select_peers("socat,netcat")
