"""``trio-chardev qmp``, ``list``, ``change`` and ``events``, with a service in a process."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.calls import Call, wait_for
from tests.services import PROGRAM, TIMEOUT, Qmp, running
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.cli import asking, qmp as module
from trio_chardev.cli.address import parse_address
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.client.conversation import QmpEvent, QmpEvents

NULL = {"backend": {"type": "null", "data": {}}}
RINGBUF = '{"id": "r", "backend": {"type": "ringbuf", "data": {"size": 64}}}'


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/run/qmp.sock", UnixAddress("/run/qmp.sock")),
        ("qmp.sock", UnixAddress("qmp.sock")),
        ("./a:1", UnixAddress("./a:1")),
        ("unix:a:1", UnixAddress("a:1")),
        ("localhost:4444", InetAddress("localhost", "4444")),
        ("tcp:localhost:4444", InetAddress("localhost", "4444")),
        (":4444", InetAddress("", "4444")),
        ("[::1]:4444", InetAddress("::1", "4444")),
        ("tcp:[::1]:4444", InetAddress("::1", "4444")),
        ("::1", UnixAddress("::1")),
        ("", UnixAddress("")),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "a:b:c", "localhost:", "[::1]"])
def test_tcp_needs_a_host_and_a_port(text: str) -> None:
    with pytest.raises(OptionsError, match=r"^error parsing address '.*'$"):
        parse_address(f"tcp:{text}")


# ---------------------------------------------------------------- qmp


def test_what_a_command_returns_is_a_line_of_json(call: Call) -> None:
    status, line, errors = call("qmp", "query-chardev")
    assert (status, line.count("\n"), errors) == (0, 1, "")
    assert json.loads(line) == [{"label": "n", "filename": "null", "frontend-open": False}]


def test_arguments_are_words(call: Call) -> None:
    words = ["id=r", "backend.type=ringbuf", '{"backend": {"data": {"size": 32}}}']
    assert call("qmp", "chardev-add", *words) == (0, "{}\n", "")
    assert call("qmp", "ringbuf-write", "device=r", "data='5'") == (0, "{}\n", "")
    assert call("qmp", "ringbuf-read", "device=r", "size=9") == (0, '"5"\n', "")


@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_another_socket(call: Call, path: Path, prefix: str, tmp_path: Path) -> None:
    with running("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"):
        with Qmp(tmp_path / "q"):  # it listens
            pass
        assert call("qmp", "-s", f"{prefix}{tmp_path}/q", "query-chardev") == (0, "[]\n", "")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "tcp:localhost:{}", "tcp:[::1]:{}"])
def test_over_tcp(call: Call, form: str) -> None:
    host = "::1" if "::1" in form else "127.0.0.1"
    family = socket.AF_INET6 if "::1" in form else socket.AF_INET
    with socket.create_server((host, 0), family=family) as free:
        port = free.getsockname()[1]
    host = f"[{host}]" if ":" in host else host
    with running("--qmp", f"tcp:{host}:{port},server=on,wait=off"):
        deadline = time.monotonic() + TIMEOUT
        while (answer := call("qmp", "--socket", form.format(port), "query-chardev"))[0] == 1:
            assert "Connection refused" in answer[2]
            assert time.monotonic() < deadline
    assert answer == (0, "[]\n", "")


def test_on_a_terminal_it_is_indented(path: Path) -> None:
    master, terminal = pty.openpty()
    try:
        subprocess.run(
            [*PROGRAM, "qmp", "query-version"], stdout=terminal, check=True, timeout=TIMEOUT
        )
        shown = os.read(master, 4096)
    finally:
        os.close(master)
        os.close(terminal)
    assert shown.startswith(b'{\r\n    "qemu": {\r\n        "m')


def test_an_error_has_its_class(call: Call) -> None:
    text = "GenericError: Chardev 'x' not found\n"
    assert call("qmp", "chardev-remove", "id=x") == (1, "", text)
    text = "CommandNotFound: The command bogus has not been found\n"
    assert call("qmp", "bogus") == (1, "", text)


def test_a_mistake_in_the_words(call: Call) -> None:
    text = "trio-chardev: Expected '=' after parameter 'x'\n"
    assert call("qmp", "chardev-remove", "x") == (1, "", text)


def test_without_a_server_it_is_one_line(call: Call, tmp_path: Path) -> None:
    text = f"trio-chardev: Failed to connect to '{tmp_path}/q': No such file or directory; "
    text += (
        f"start a service with 'trio-chardev serve --qmp unix:{tmp_path}/q,server=on,wait=off'\n"
    )
    assert call("qmp", "-s", f"{tmp_path}/q", "quit") == (1, "", text)


def test_a_server_of_another_kind(call: Call, tmp_path: Path) -> None:
    def hello(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(b"220 mail.example.org\r\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/q")
        listener.listen()
        thread = threading.Thread(target=hello, args=[listener])
        thread.start()
        status, out, errors = call("list", "-s", f"{tmp_path}/q")
        thread.join()
    assert (status, out) == (1, "")
    assert errors == (
        f"trio-chardev: The QMP server '{tmp_path}/q' sent no greeting: "
        "it speaks another protocol\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_waits(path: Path, tmp_path: Path, number: int) -> None:
    """And the service undoes it."""
    listening = tmp_path / "s"
    address = {"type": "unix", "data": {"path": str(listening)}}
    backend = {"type": "socket", "data": {"addr": address, "wait": True}}
    process = subprocess.Popen(
        [*PROGRAM, "qmp", "chardev-add", f"id=w{number}", f"backend={json.dumps(backend)}"],
        stderr=subprocess.PIPE,
    )
    wait_for(listening.exists)
    process.send_signal(number)
    assert process.communicate(timeout=TIMEOUT)[1] == b""
    assert process.returncode == 130
    wait_for(lambda: not listening.exists())


# ---------------------------------------------------------------- list


def test_list_escapes_what_a_terminal_would_obey(call: Call) -> None:
    call("qmp", "chardev-add", json.dumps({"id": "\x1b[2Jé\n", **NULL}))
    _, table, _ = call("list")
    assert table.splitlines()[-1].startswith("\\x1b[2Jé\\n  null")


def test_list_of_a_server_that_is_qemus(call: Call, tmp_path: Path) -> None:
    """Which knows no query-chardev-details, and here has ids that a terminal would obey."""
    row = {"label": "\x1b[2J", "filename": "pty:/dev/\x9b", "frontend-open": True}
    answers = [
        {"return": {}},
        {"error": {"class": "CommandNotFound", "desc": "no"}},
        {"return": [row]},
    ]
    with answering(f"{tmp_path}/q", answers):
        status, table, errors = call("list", "-s", f"{tmp_path}/q")
    assert (status, errors) == (0, "")
    header, line = table.splitlines()
    assert header.split() == ["ID", "FILENAME", "FRONTEND"]
    assert line.split() == [r"\x1b[2J", r"pty:/dev/\x9b", "open"]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"return": {"pty": "/dev/\x1b]0;x\x07"}}, (0, "/dev/\\x1b]0;x\\x07\n", "")),
        (
            {"error": {"class": "Generic\x1b", "desc": "a\r\nb\x9b"}},
            (1, "", "trio-chardev: a b\\x9b\n"),
        ),
    ],
)
def test_what_a_server_says_cannot_drive_the_terminal(
    call: Call, tmp_path: Path, answer: object, shown: tuple[int, str, str]
) -> None:
    with answering(f"{tmp_path}/q", [{"return": {}}, answer]):
        assert call("change", "-s", f"{tmp_path}/q", "n", "pty") == shown
    with answering(f"{tmp_path}/q2", [{"return": {}}, answer]):
        status, out, errors = call("qmp", "-s", f"{tmp_path}/q2", "query-block")
    assert (status, errors) == (shown[0], shown[2].replace("trio-chardev", r"Generic\x1b"))
    assert out.rstrip("\n").isprintable()


@contextmanager
def answering(path: str, answers: Sequence[object]) -> Iterator[None]:
    """A QMP server that gives *answers* to whatever one client sends."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, client.makefile("rwb") as wire:
            greeting = {"version": {"qemu": {}, "package": ""}, "capabilities": []}
            wire.write(json.dumps({"QMP": greeting}).encode() + b"\r\n")
            wire.flush()
            for answer in answers:
                command = json.loads(wire.readline())
                wire.write(json.dumps({**answer, "id": command.get("id")}).encode() + b"\r\n")  # type: ignore[dict-item]
                wire.flush()
            while wire.readline():  # until the client leaves
                pass

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


# ---------------------------------------------------------------- busy, mute, stopped


@pytest.mark.parametrize(
    "arguments", [["list"], ["qmp", "query-version"], ["change", "n", "null"], ["events"]]
)
def test_a_monitor_in_use_is_told_within_seconds(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.2)
    monitor = f"socket,id=m,path={tmp_path}/q,server=on,wait=off"
    with running("--chardev", monitor, "--monitor", "m"), Qmp(tmp_path / "q"):
        status, out, errors = call(*arguments, "-s", f"{tmp_path}/q")
    assert (status, out) == (1, "")
    assert errors == (
        f"trio-chardev: The QMP server '{tmp_path}/q' sent no greeting within 0.2 seconds: "
        "it is busy with another client, or hangs\n"
    )


def test_a_stopped_service_is_told_within_seconds(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.2)
    path = tmp_path / "q"
    with running("--qmp", f"unix:{path},server=on,wait=off") as service:
        with Qmp(path):
            pass
        pid = service.process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)  # until it has
        status, out, errors = call("list", "-s", f"{path}")
        os.kill(pid, signal.SIGCONT)
    assert (status, out) == (1, "")
    assert errors == (
        f"trio-chardev: The QMP server '{path}' sent no greeting within 0.2 seconds: "
        f"its process {pid} is stopped\n"
    )


def test_one_that_never_answers_is_told_too(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.2)
    with answering(f"{tmp_path}/q", [{"return": {}}]):
        status, _, errors = call("list", "-s", f"{tmp_path}/q")
    assert status == 1
    assert errors == (
        f"trio-chardev: The QMP server '{tmp_path}/q' did not answer query-chardev-details "
        "within 0.2 seconds\n"
    )


# ---------------------------------------------------------------- change


def test_change_prints_the_path_of_a_pty(call: Call, path: Path, tmp_path: Path) -> None:
    status, out, errors = call("change", "n", f"pty,path={tmp_path}/c")
    assert (status, errors) == (0, "")
    assert out == f"{os.readlink(tmp_path / 'c')}\n"
    assert call("change", "n", f"file,path={tmp_path}/log,append=on") == (0, "", "")
    assert not os.path.lexists(tmp_path / "c")
    with Qmp(path) as qmp:
        assert [row["filename"] for row in qmp("query-chardev")] == ["file"]


def test_change_carries_over_what_nobody_has_taken(call: Call, path: Path) -> None:
    with Qmp(path) as qmp:
        qmp("chardev-change", id="n", backend={"type": "ringbuf", "data": {}})
        qmp("ringbuf-write", device="n", data="boot")
        assert call("change", "n", "ringbuf,size=2", "--carry", "--drain-timeout=0") == (0, "", "")
        assert qmp("ringbuf-read", device="n", size=9) == "ot"


KEEP_PEER = "'keep-peer' requires two sockets of the same address"
DRAIN_TIMEOUT = "'drain-timeout' must be from 0 to 60 seconds"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x", "null"], "trio-chardev: Chardev 'x' does not exist"),
        (["n", "bogus"], "trio-chardev: 'bogus' is not a valid char driver name"),
        (
            ["n", "file,path=/missing/f"],
            "trio-chardev: Failed to change chardev 'n': "
            "Could not open '/missing/f': No such file or directory",
        ),
        (["n", "null,foo=1"], "trio-chardev: Invalid parameter 'foo'"),
        (["n", "null", "--keep-peer"], "trio-chardev: " + KEEP_PEER),
        (["n", "null", "--drain-timeout", "61"], "trio-chardev: " + DRAIN_TIMEOUT),
        (["n", "null,id=n"], "trio-chardev: Unexpected 'id' parameter"),
        (["n", "pty,mux=on"], "trio-chardev: Unexpected 'mux' parameter"),
    ],
)
def test_a_change_that_is_refused(call: Call, arguments: list[str], text: str) -> None:
    assert call("change", *arguments) == (1, "", f"{text}\n")


def test_help_of_kinds(call: Call) -> None:
    status, kinds, _ = call("change", "n", "help")
    assert (status, "ringbuf" in kinds) == (0, True)
    status, options, _ = call("change", "n", "ringbuf,help")
    assert (status, "size=<size>" in options) == (0, True)


def test_help_of_commands(call: Call) -> None:
    _, commands, _ = call("--help")
    for name in ("qmp", "list", "change", "events"):
        assert f"\n  {name} " in commands
        assert "--socket ADDRESS" in call(name, "--help")[1]


# ---------------------------------------------------------------- events


@contextmanager
def printing_events(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, "events", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def make_events_until_printed(qmp: Qmp, process: subprocess.Popen[str]) -> None:
    """It cannot be told when it listens."""

    def is_printed() -> bool:
        qmp.add("x", "null")
        qmp("chardev-remove", id="x")
        assert process.stdout is not None
        return bool(select.select([process.stdout], [], [], 0.01)[0])

    wait_for(is_printed)


def test_events_are_lines_of_json_until_interrupted(path: Path, call: Call) -> None:
    with printing_events() as process, Qmp(path) as qmp:
        make_events_until_printed(qmp, process)
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())
        assert event["event"].startswith("CHARDEV_")
        assert event["data"]["id"] == "x"
        assert set(event["timestamp"]) == {"seconds", "microseconds"}
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")


def test_events_end_with_the_server(tmp_path: Path) -> None:
    listener = f"unix:{tmp_path}/q,server=on,wait=off"
    with (
        running("--qmp", listener) as service,
        Qmp(tmp_path / "q") as qmp,
        printing_events("-s", f"{tmp_path}/q") as process,
    ):
        make_events_until_printed(qmp, process)
        service.stop()
        out, errors = process.communicate(timeout=TIMEOUT)
    assert json.loads(out.splitlines()[-1])["event"] == "SHUTDOWN"
    text = f"trio-chardev: The QMP server '{tmp_path}/q' closed the connection\n"
    assert (process.returncode, errors) == (1, text)


async def test_events_that_are_lost_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    events = QmpEvents(2)
    for number in range(5):
        events.put(QmpEvent("E", {"n": number}, 1500000000.000001))
    events.end()
    await module._print_all(events)
    out, errors = capsys.readouterr()
    stamp = '"timestamp": {"seconds": 1500000000, "microseconds": 1}'
    assert out == "".join(
        f'{{{stamp}, "event": "E", "data": {{"n": {number}}}}}\n' for number in (3, 4)
    )
    assert errors == "trio-chardev: 3 events are lost\n"
