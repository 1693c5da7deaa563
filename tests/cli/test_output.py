"""Every command ends without a traceback when its output goes nowhere, or ctrl-C comes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp, running
from trio_chardev.cli.output import OutputError, say
from trio_chardev.version import __version__

PRINTING = [
    ["--help"],
    ["--version"],
    ["-V"],
    ["serve", "--help"],
    ["serve", "--chardev", "help"],
    ["serve", "--chardev", "socket,help"],
    ["serve", "--object", "help"],
    ["serve", "--device", "bridge,help"],
    ["demo", "--changes", "2"],
    ["demo", "--help"],
    ["list"],
    ["qmp", "query-chardev"],
    ["change", "p", "pty"],
    ["change", "p", "help"],
    ["bridge", "p", "p", "help"],
    ["show", "p"],
    ["clients"],
    ["list", "--json"],
    ["list", "--devices"],
    ["history", "c"],
    ["history", "c", "--follow"],
    ["history", "c", "--json"],
    ["expect", "c", "x", "--since", "0"],
    ["send", "c", "x", "--cursor"],
    ["mark", "c", "x"],
    ["version"],
    ["events"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$XDG_RUNTIME_DIR of a service."""
    folder = tmp_path_factory.mktemp("service")
    options = ["--chardev", "null,id=p", "--chardev", "console,id=c", "--device", "echo,chardev=c"]
    with running(*options, XDG_RUNTIME_DIR=str(folder)) as service:
        assert service.wait_line().startswith("QMP at ")
        with open(os.devnull, "wb") as nowhere:
            assert end_of(folder, ["send", "c", "x"], nowhere.fileno()) == (0, "")
            assert end_of(folder, ["expect", "c", "x", "--since", "0"], nowhere.fileno())[0] == 0
        yield folder


def make_events(folder: Path, process: subprocess.Popen[str]) -> None:
    """So that `events` has something to print, and then something more."""
    with Qmp(folder / "trio-chardev" / "qmp.sock") as qmp:
        while process.poll() is None:
            qmp.add("e", "null")
            qmp("chardev-remove", id="e")


def start(folder: Path, arguments: list[str], stdout: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )


def end_of(folder: Path, arguments: list[str], stdout: int) -> tuple[int, str]:
    """Exit status, and what is said on standard error."""
    process = start(folder, arguments, stdout)
    try:
        if arguments == ["events"]:
            make_events(folder, process)
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_is_one_line_and_status_1(folder: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = end_of(folder, arguments, full.fileno())
    text = "trio-chardev: can't write to standard output: No space left on device\n"
    assert ended == (1, text)


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_left_ends_it_quietly(folder: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert end_of(folder, arguments, writer) == (-signal.SIGPIPE, "")
    finally:
        os.close(writer)


def test_a_service_goes_on_when_nobody_hears_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "trio-chardev" / "qmp.sock"
    with open("/dev/full", "wb") as full:
        process = start(tmp_path, ["serve", "--chardev", "pty,id=p"], full.fileno())
    try:
        with Qmp(path) as qmp:
            qmp("quit")
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status"), [(["list", "-s", "/missing"], 1), (["list", "--bogus"], 2), ([], 2)]
)
def test_errors_that_nobody_takes_leave_the_status(arguments: list[str], status: int) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *arguments], stderr=full, timeout=TIMEOUT)
    assert done.returncode == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up_and_says_nothing(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "demo", "--changes", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line", "answer"),
    [
        (["qmp", "-"], b"chardev-mark id=c name=m\n", b'{"cursor": '),
        (["history", "c", "--follow"], b"", b"x"),
    ],
)
def test_an_interrupted_command_that_waits_says_nothing(
    folder: Path, arguments: list[str], line: bytes, answer: bytes
) -> None:
    """Whatever it waits for: what is printed, or standard input."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100).startswith(answer)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert process.communicate() == (b"", b"")
    finally:
        process.kill()


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "trio_chardev", "-V"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"trio-chardev {__version__}\n", "")


def test_what_the_encoding_lacks_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    say("é\x1b\ntwo")
    assert stream.buffer.getvalue() == b"\\xe9\\x1b\ntwo\n"


def test_standard_output_that_is_closed_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    say("nothing")


def test_what_fails_is_told() -> None:
    assert str(OutputError(OSError(28, "x"))).endswith(": No space left on device")
