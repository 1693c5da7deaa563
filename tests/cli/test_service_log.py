"""The service's log: its form and its levels, and that it stops nothing when it can't be written."""

from __future__ import annotations

import json
import logging
import os
import pty
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.cli.test_log import fill, read_exactly, record
from tests.service_log.test_formats import read_journal
from tests.services import TIMEOUT, Qmp, running
from trio_chardev.cli import cli, journal, log as log_module, rate_limit, service_log as module
from trio_chardev.cli.log import MAX_PENDING, LineWriter
from trio_chardev.cli.output import warn
from trio_chardev.cli.rate_limit import BURST_OF_ONE
from trio_chardev.cli.service_log import LogHandler, ServiceLog, printing_in_background
from trio_chardev.errors import OptionsError
from trio_chardev.service_log.areas import Levels
from trio_chardev.service_log.options import LogOptions

log = logging.getLogger("trio_chardev.backends.serial.serial")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@contextmanager
def logging_to(
    monkeypatch: pytest.MonkeyPatch, fd: int, options: LogOptions | None = None
) -> Iterator[ServiceLog]:
    """Have the log written to *fd* in the block; at its end it is."""
    with os.fdopen(os.dup(fd), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with printing_in_background(options or LogOptions()) as service_log:
            yield service_log


def lines_of(reader: int) -> list[dict[str, Any]]:
    """What is in a pipe now, as JSON lines."""
    return [json.loads(line) for line in os.read(reader, 1 << 16).splitlines()]


# ---------------------------------------------------------------- forms


def test_into_a_pipe_it_is_json(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    with logging_to(monkeypatch, writer):
        log.warning("chardev '%s': it went away", "board")
    (line,) = lines_of(reader)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "area": "serial",
        "chardev": "board",
        "message": "chardev 'board': it went away",
    }


def test_at_a_terminal_it_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with logging_to(monkeypatch, slave):
        log.warning("chardev '%s': it went away", "board")
    line = os.read(master, 1000).decode()
    assert line.startswith("time=")
    assert line.endswith(' level=warning area=serial chardev=board message="it went away"\r\n')
    os.close(master)
    os.close(slave)


@pytest.fixture
def a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a journal."""
    path = str(tmp_path / "journal")
    monkeypatch.setattr(journal, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.bind(path)
        yield sock


def lead_to_journal(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    status = os.fstat(fd)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")


def test_where_standard_error_leads_to_the_journal_it_gets_fields(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, a_journal: socket.socket
) -> None:
    lead_to_journal(monkeypatch, pipe[1])
    with logging_to(monkeypatch, pipe[1]):
        log.error("chardev '%s': it went away", "board")
    assert read_journal(a_journal.recv(1 << 16)) == {
        "MESSAGE": "chardev 'board': it went away",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "trio-chardev",
        "TRIO_CHARDEV_AREA": "serial",
        "TRIO_CHARDEV_ID": "board",
    }


@pytest.mark.parametrize("stream", [None, "", "1:2", "nonsense", "1:2:3"])
def test_elsewhere_the_journal_is_left_alone(
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    a_journal: socket.socket,
    stream: str | None,
) -> None:
    if stream is None:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    else:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    with logging_to(monkeypatch, pipe[1]):
        log.error("gone")
    assert [line["message"] for line in lines_of(pipe[0])] == ["gone"]


def test_a_journal_that_is_not_there_is_replaced_by_json_or_refused(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL", "/missing/journal")
    lead_to_journal(monkeypatch, pipe[1])
    with logging_to(monkeypatch, pipe[1]):
        log.error("gone")
    assert [line["message"] for line in lines_of(pipe[0])] == ["gone"]
    with (
        pytest.raises(OptionsError, match="'/missing/journal': No such file or directory"),
        logging_to(monkeypatch, pipe[1], LogOptions(form="journal")),
    ):
        pass


def test_what_else_is_printed_has_the_same_form(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with logging_to(monkeypatch, pipe[1]):
        warn("short-form boolean option")
        print("x.py:1: UserWarning: careful", file=sys.stderr)
        click.echo("by another", err=True)
    said = [(line["area"], line["message"]) for line in lines_of(pipe[0])]
    assert said == [
        ("service", "short-form boolean option"),
        ("other", "x.py:1: UserWarning: careful"),
        ("other", "by another"),
    ]


def test_levels_and_form_change_while_it_is_written(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, a_journal: socket.socket
) -> None:
    with logging_to(monkeypatch, pipe[1]) as service_log:
        log.info("not yet")
        service_log.set_levels(Levels.parse("serial=info"))
        log.info("as json")
        service_log.apply(LogOptions.parse("serial=debug", "journal"))
        log.debug("to the journal")
        service_log.apply(LogOptions.parse(None, "text"))
        log.info("no more")
        log.warning("as text")
    first, second = os.read(pipe[0], 1 << 16).splitlines()
    assert json.loads(first)["message"] == "as json"
    assert second.endswith(b'message="as text"')
    assert read_journal(a_journal.recv(1 << 16))["MESSAGE"] == "to the journal"


def test_a_form_that_can_not_be_changes_nothing(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL", "/missing/journal")
    with logging_to(monkeypatch, pipe[1], LogOptions.parse("info")) as service_log:
        with pytest.raises(OptionsError):
            service_log.apply(LogOptions.parse("error", "journal"))
        log.info("still")
    assert [line["message"] for line in lines_of(pipe[0])] == ["still"]


def test_after_it_the_loggers_are_as_before(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("trio_chardev.qmp").level
    with logging_to(monkeypatch, pipe[1], LogOptions.parse("error,qmp=debug")):
        pass
    now = root.level, list(root.handlers), logging.getLogger("trio_chardev.qmp").level
    assert now == before


# ---------------------------------------------------------------- what can't be written


def test_what_a_stuck_pipe_cost_is_told_when_it_goes_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    size = fill(writer)
    monkeypatch.setattr(rate_limit, "BURST", 10**6)
    with logging_to(monkeypatch, writer):
        count = 0
        while count * 100 < 2 * MAX_PENDING:
            log.warning("line %d %s", count, "x" * 100)
            count += 1
        read_exactly(reader, size)
        data = b""
        while b'"dropped"' not in data:
            data += os.read(reader, 1 << 16)
        log.warning("there again")
    lines = [json.loads(line) for line in (data + os.read(reader, 1 << 16)).splitlines()]
    (told,) = [line for line in lines if "dropped" in line]
    assert told["level"] == "warning"
    assert told["message"] == f"{told['dropped']} lines could not be written"
    assert lines[-1]["message"] == "there again"
    assert len(lines) - 2 + told["dropped"] == count


def test_a_journal_that_is_stuck_holds_up_nobody_and_one_that_restarts_is_found(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, a_journal: socket.socket
) -> None:
    monkeypatch.setattr(rate_limit, "BURST", 10**6)
    with logging_to(monkeypatch, pipe[1], LogOptions(form="journal")):
        for number in range(5000):  # more than a datagram socket and the queue take
            log.warning("line %d %s", number, "x" * 100)
        path = a_journal.getsockname()
        os.unlink(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
            again.settimeout(TIMEOUT)
            again.bind(path)
            a_journal.close()  # now the thread that is stuck goes on
            fields: dict[str, str] = {}
            while "TRIO_CHARDEV_DROPPED" not in fields:
                fields = read_journal(again.recv(1 << 16))
            assert int(fields["TRIO_CHARDEV_DROPPED"]) > 0
            assert fields["PRIORITY"] == "4"


def test_without_a_thread_a_stuck_journal_costs_the_entry(a_journal: socket.socket) -> None:
    def no_thread(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    writer = journal.JournalWriter(start=no_thread)
    before = -1
    while writer._failed == 0:
        writer.put_data(b"MESSAGE=x\n")
        before += 1
    for _ in range(before):
        assert a_journal.recv(100) == b"MESSAGE=x\n"
    writer.close()


@pytest.mark.parametrize("what", ["full", "closed", "no reader"])
def test_nothing_stops_when_it_goes_nowhere(what: str) -> None:
    reader, writer = os.pipe()
    fd = os.open("/dev/full", os.O_WRONLY) if what == "full" else os.dup(writer)
    service_log = ServiceLog(fd)
    service_log.handler.writer = service_log._lines
    try:
        if what == "no reader":
            os.close(reader)
        if what == "closed":
            os.close(fd)
        for _ in range(3):
            service_log.handler.handle(record("lost"))
        assert service_log.handler.writer is not None
        service_log.close()
        assert service_log.handler.writer._failed == 3
    finally:
        for each in (reader, writer, fd):
            with suppress(OSError):
                os.close(each)


def test_the_end_waits_for_a_stuck_pipe_no_longer_than_it_may(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "FLUSH_TIMEOUT", 0.01)
    size = fill(pipe[1])
    with logging_to(monkeypatch, pipe[1]):
        log.warning("late")
    read_exactly(pipe[0], size)  # the thread ends


def test_the_log_tells_of_what_was_left_out(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_INTERVAL", 0.01)
    monkeypatch.setattr(rate_limit, "TELL_INTERVAL", 0.01)
    reader, writer = pipe
    handler = LogHandler()
    handler.form = "json"
    handler.writer = LineWriter(writer, on_idle=handler.tell)
    for _ in range(BURST_OF_ONE + 1):
        handler.handle(record("chardev '%s' died", "x"))
    data = b""
    while data.count(b"\n") < BURST_OF_ONE + 1:
        data += os.read(reader, 1 << 16)
    lines = [json.loads(line) for line in data.splitlines()]
    assert [line["message"] for line in lines[:-1]] == ["chardev 'x' died"] * BURST_OF_ONE
    assert lines[-1]["message"] == "1 more like this: chardev 'x' died"
    assert (lines[-1]["chardev"], lines[-1]["more"]) == ("x", 1)
    handler.writer.close()


def test_a_line_that_can_not_be_made_prints_no_stack(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    handler = LogHandler()
    handler.writer = LineWriter(writer)
    handler.handle(record("no %d", "number"))
    handler.handle(record("next"))
    handler.writer.close()
    assert os.read(reader, 1000).endswith(b'message="next"\n')
    assert capfd.readouterr().err == ""


def test_a_stream_without_a_descriptor_stays(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with printing_in_background(LogOptions()):
        assert (sys.stdout, sys.stderr) == before


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--log-level", "loud"], "there is no level 'loud': there are error, warning, notice"),
        (["--log-level", "tty=info"], "there is no area 'tty': there are chardev, config, console"),
        (["--log-format", "xml"], "'xml' is not one of 'auto', 'text', 'json', 'journal'"),
        (["-v", "--log-level", "info"], "-v and --log-level are the same: give one of them"),
    ],
)
def test_misuse_names_what_there_is(arguments: list[str], error: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *arguments])
    assert result.exit_code == 2
    assert error in " ".join(result.output.split())


def test_one_line_an_event_with_ids(tmp_path: Path) -> None:
    path = tmp_path / "q"
    board = f"unix:{path},server=on,wait=off"
    with running("--log-level", "info", "--qmp", board) as service:
        with Qmp(path) as qmp:
            qmp.add("c", "console")
            qmp("device_add", driver="listener", id="l", console="c", path=f"{tmp_path}/c")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(f"{tmp_path}/c")
                while not qmp("query-clients", id="c"):
                    pass
            while qmp("query-clients", id="c"):
                pass
            qmp("chardev-change", id="c", backend={"type": "serial", "data": {"device": "/no"}})
            qmp("device_del", id="l")
        errors = service.stop()[2]
    lines = [json.loads(line) for line in errors.splitlines()]
    who = f"uid {os.getuid()}"
    said = {(line.get("event"), line.get("chardev"), line.get("client"), line.get("device")) for line in lines}  # fmt: skip
    assert "device 'l' is added: listener" in [line["message"] for line in lines]
    assert said >= {
        ("CHARDEV_ADDED", "c", None, None),
        ("CHARDEV_CLIENT_ATTACHED", "c", 1, None),
        ("CHARDEV_CLIENT_DETACHED", "c", 1, None),
        ("DEVICE_DELETED", None, None, "l"),
        ("SHUTDOWN", None, None, None),
    }
    attached = next(line for line in lines if line.get("event") == "CHARDEV_CLIENT_ATTACHED")
    assert (attached["area"], attached["who"]) == ("console", who)
    assert {line["monitor"] for line in lines if "monitor" in line} == {f"unix:{path}#1"}
    assert all({"time", "level", "area", "message"} <= line.keys() for line in lines)
    assert not any("traceback" in line for line in lines)


def test_the_levels_can_be_set_by_qmp(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with running("--log-level", "error", "--qmp", f"unix:{path},server=on,wait=off") as service:
        with Qmp(path) as qmp:
            assert qmp("query-log-level")["levels"] == "error"
            qmp.add("before", "null")
            assert qmp("log-level-set", levels="error,chardev=info") == {}
            now = qmp("query-log-level")
            assert now["levels"] == "error,chardev=info"
            assert {"area": "chardev", "level": "info"} in now["areas"]
            qmp.add("after", "null")
            error = qmp("log-level-set", levels="chardev=loud")
            assert error.startswith("there is no level 'loud': there are error, ")
        errors = service.stop()[2]
    assert '"chardev": "after"' in errors
    assert '"before"' not in errors
