"""The harness of `tests.faults`: what it makes fail, and that it finds a broken promise."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import __main__ as program
from tests.faults.calls import CALLS, RULES, Fault, errors_of, faults_of, injected_in, is_cut
from tests.faults.scenarios import SCENARIOS
from tests.faults.trial import Outcome, Trial, prepare
from tests.peers import need
from trio_chardev import service as module
from trio_chardev.backends.table import KINDS

OPEN = Fault("openat", "EMFILE", 1)


def careless() -> None:
    """To have no descriptor is a bug."""
    prepare()
    open_fd = os.open

    def open_it(*arguments: Any, **options: Any) -> int:
        try:
            return open_fd(*arguments, **options)
        except OSError as exc:
            if exc.errno != errno.EMFILE:
                raise
            raise ZeroDivisionError from exc

    os.open = open_it


def leaky() -> None:
    """What was opened is never closed."""
    prepare()
    os.close = lambda fd: None


def deaf() -> None:
    """SIGTERM has no effect."""
    prepare()
    module.QUIT_SIGNALS = (10,)  # type: ignore[assignment]


@pytest.fixture(scope="module")
def plain() -> Outcome:
    need("strace")
    return Trial("add file", None).run()


def test_without_a_fault_nothing_is_broken_and_there_is_something_to_fail(plain: Outcome) -> None:
    assert plain.problems == []
    assert OPEN in plain.faults
    assert plain.descriptors["socket:[N]"] > 0


def test_a_fault_that_is_met_breaks_nothing(plain: Outcome) -> None:
    outcome = Trial("add file", OPEN, plain.descriptors).run()
    assert outcome.problems == []
    assert len(outcome.injected) == 1


@pytest.mark.parametrize(
    ("before", "what"),
    [(careless, "Traceback"), (leaky, "descriptors are left"), (deaf, "it ends with status")],
    ids=["careless", "leaky", "deaf"],
)
def test_a_broken_promise_is_found(
    before: Callable[[], object], what: str, plain: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.service.PATIENCE", 1.0)
    monkeypatch.setattr("tests.faults.world.PATIENCE", 1.0)
    outcome = Trial("add file", OPEN, plain.descriptors, before).run()
    assert any(what in problem for problem in outcome.problems), outcome.problems


@pytest.mark.parametrize("fault", [None, "openat:error=EMFILE:when=1"])
def test_the_status_and_the_table_say_so(
    fault: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("strace")
    arguments = ["--scenario", "add file", "--call", "openat", "--jobs", "1"]
    arguments += ["--fault", fault] if fault else []
    monkeypatch.setattr(Trial, "run", lambda its: broken(its))
    assert program.main(arguments) == 1
    said = capsys.readouterr().out
    assert "BROKEN: of course" in said
    assert "python -m tests.faults --scenario 'add file' --fault openat:error=EMFILE:when=1" in said


def broken(trial: Trial) -> Outcome:
    problems = ["of course"] if trial.fault else []
    return Outcome([], problems, [OPEN], trial.reference, 0.0)


# ---------------------------------------------------------------- what can fail


def test_errors_are_the_kernels() -> None:
    assert {call for names, _, _ in RULES for call in names} == set(CALLS)
    assert all(hasattr(errno, error) for _, _, errors in RULES for error in errors)


@pytest.mark.parametrize(
    ("line", "errors"),
    [
        ('7 write(3</tmp/x/log>, "a", 1) = 1', {"ENOSPC", "EIO", "EDQUOT"}),
        ('7 write(3</dev/ptmx>, "a", 1) = 1', {"ENOMEM"}),
        ('7 write(3</dev/pts/4>, "a", 1) = 1', {"EIO", "ENOMEM"}),
        ("7 read(3</dev/pts/4>, 0x1, 65536) = 9", set()),
        ('7 write(3<anon_inode:[eventfd]>, "a", 8) = 8', set()),
        ('7 write(3<socket:[1]>, "\\17", 1) = 1', set()),
        ('7 newfstatat(3<socket:[1]>, "", 0x7f, AT_EMPTY_PATH) = 0', set()),
        ("7 read(3<pipe:[1]>, 0x1, 1) = 0", set()),
        ('7 sendto(3<socket:[1]>, "\\0", 1, 0, NULL, 0) = 1', set()),
        ('7 sendto(3<socket:[1]>, "a", 1, MSG_NOSIGNAL, NULL, 0) = 1', {"ENOBUFS", "ENOMEM"}),
        ("7 epoll_ctl(3<anon_inode:[eventpoll]>, EPOLL_CTL_ADD, 4<socket:[1]>, {}) = 0", {"ENOSPC", "ENOMEM"}),
        ("7 epoll_ctl(3<anon_inode:[eventpoll]>, EPOLL_CTL_MOD, 4<socket:[1]>, {}) = 0", set()),
        ("7 mmap(NULL, 8392704, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f", set()),
        ("7 fcntl(3<socket:[1]>, F_SETFL, O_RDWR|O_NONBLOCK) = 0", set()),
        ("7 fcntl(3<socket:[1]>, F_DUPFD_CLOEXEC, 0) = 4", {"EMFILE"}),
    ],
)  # fmt: skip
def test_which_errors_fit_a_call(line: str, errors: set[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line + "\n")
    assert {fault.error for fault in faults_of(tmp_path / "log")} == errors


def test_calls_are_counted_for_each_thread(tmp_path: Path) -> None:
    lines = ["7 fsync(3</x>) = 0", "8 fsync(3</x>) = 0", "7 fsync(3</x>) = 0", "7 +++ exited +++"]
    (tmp_path / "log").write_text("\n".join(lines))
    assert {fault.when for fault in faults_of(tmp_path / "log")} == {1, 2}


def test_what_no_kernel_does_was_not_injected(tmp_path: Path) -> None:
    fails = "= -1 EIO (Input/output error) (INJECTED)"
    (tmp_path / "log").write_text(f"7 fsync(3</x>) {fails}\n8 fsync(3</y>) = 0\n")
    assert injected_in(tmp_path / "log") == [f"fsync(3</x>) {fails}"]
    (tmp_path / "log").write_text(f"7 fsync(3</x>) {fails}\n8 read(3<pipe:[1]>, 0x1, 1) {fails}\n")
    assert injected_in(tmp_path / "log") == []


def test_a_call_in_which_strace_was_stopped_makes_a_trial_void(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("7 fsync(3</x>) = 0\n7 recvmsg(3<socket:[1]>,  <detached ...>\n")
    assert is_cut(tmp_path / "log", "recvmsg")
    assert not is_cut(tmp_path / "log", "fsync")


def test_a_fault_is_read_as_it_is_written() -> None:
    assert Fault.parse(str(OPEN)) == OPEN
    assert errors_of("openat", 'AT_FDCWD</>, "x", O_RDONLY')


def test_each_kind_of_backend_is_in_a_scenario() -> None:
    names = " ".join(SCENARIOS)
    other = {"socket": "unix-server", "ringbuf": "ring", "memory": "ring", "serial": "serial"}
    for kind in KINDS:
        assert other.get(kind, kind) in names
