"""``trio-chardev attach``, at a real terminal and at pipes."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import shlex
import signal
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminals import (
    Board,
    board,
    program_at_terminal,
    read_until,
    terminal,
    until,
)
from tests.peers import free_port, need
from tests.services import PROGRAM, TIMEOUT, running

ESCAPE = b"\x1d"


def test_keys_go_to_the_device_and_its_output_is_shown_until_one_detaches(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to board-console; ctrl-] d detaches, ctrl-] ? is help]\r\n")
        assert user.is_raw
        it.print(b"login: \n")
        user.expect(b"login: \n")
        user.type(b"root\r\x03\x1a")
        it.expect(b"root\r\x03\x1a")
        user.type(ESCAPE + b"d")
        assert user.wait() == 0
        assert user.seen.endswith(b"[trio-chardev: detached]\r\n")
        assert not user.is_raw


@pytest.mark.parametrize("key", [b"d", b"."])
def test_detaching_restores_the_terminal(tmp_path: Path, key: bytes) -> None:
    with board(tmp_path) as it, terminal(*it.attach("--escape", "^A")) as user:
        user.expect(b"ctrl-a d detaches")
        user.type(b"\x01\x01\x1d\x01" + key)
        assert user.wait() == 0
        it.expect(b"\x01\x1d")
        assert not user.is_raw


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_a_signal_ends_it_and_the_terminal_is_restored(
    tmp_path: Path, number: int, status: int
) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        user.process.send_signal(number)
        assert user.wait() == status
        assert not user.is_raw


def test_without_an_escape_character_all_keys_go_to_the_device(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach("--escape", "none")) as user:
        user.expect(b"attached to board-console]")
        user.type(b"\x1dd")
        it.expect(b"\x1dd")
        user.process.send_signal(signal.SIGTERM)
        assert user.wait() == 130


def test_a_kick_is_told_with_its_reason_and_is_status_1(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user, it.qmp() as qmp:
        user.expect(b"attached to")
        assert qmp("chardev-kick", id="board-console", client=1, reason="lunch") == {}
        assert user.wait() == 1
        assert b"[trio-chardev: kicked: lunch]" in user.seen
        assert user.seen.endswith(
            b"trio-chardev: console 'board-console' has let us go: kicked\r\n"
        )
        assert not user.is_raw


def test_a_console_that_is_removed_ends_it(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user, it.qmp() as qmp:
        user.expect(b"attached to")
        assert qmp("device_del", id="board-bridge") == {}
        assert qmp("chardev-remove", id="board-console") == {}
        assert user.wait() == 1
        assert b"the console is closed]" in user.seen
        assert not user.is_raw


def test_the_menu_says_what_there_is(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        user.type(ESCAPE + b"?")
        user.expect(b"ctrl-] c       change the backend of the device")
        user.type(ESCAPE + b"w")
        user.expect(b"CLIENT  WHO    ROLE   HERE FOR  WINDOW\r\n")
        row = user.expect(b"80x24")
        assert row.split()[:5] == [b"*w", b"1", b"uid", b"0", b"write"]


def test_the_last_screen_is_shown_again(tmp_path: Path) -> None:
    with board(tmp_path, history="64k") as it, terminal(*it.attach("--replay", "off")) as user:
        user.expect(b"attached to")
        it.print(b"".join(b"line %d\n" % n for n in range(100)))
        user.expect(b"line 99\n")
        user.type(ESCAPE + b"h")
        user.expect(b"\r\nline 78\r\n")
        assert b"line" not in user.expect(b"line 79\r\n")
        user.expect(b"line 99\r\n")


def test_a_banner_is_shown_before_the_output(tmp_path: Path) -> None:
    with board(tmp_path, banner="Hello") as it, terminal(*it.attach()) as user:
        user.expect(b"[trio-chardev: Hello]")


def test_a_break_is_sent(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user, it.qmp() as qmp:
        user.expect(b"attached to")
        user.type(ESCAPE + b"b")
        user.expect(b"[trio-chardev: break sent]")
        qmp("query-version")
        while "CHARDEV_BREAK" not in [event["event"] for event in qmp.events]:
            qmp.events.append(qmp.read())


def test_one_who_only_watches_sends_no_break(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach("--read-only")) as user:
        user.expect(b"attached to")
        user.type(ESCAPE + b"b")
        user.expect(b"[trio-chardev: client 1 has no right to write]")


def test_the_backend_of_the_device_is_changed_and_all_are_told(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        user.type(ESCAPE + b"c")
        user.expect(b"change to KIND[,KEY=VALUE...]: ")
        it.print(b"waits\n")
        user.type(b"nulll\x7f\r")
        assert b"waits" not in user.expect(b"nulll\b \b\r\n")
        user.expect(b"waits\n")
        user.expect(b"[trio-chardev: backend changed]")
        user.type(ESCAPE + b"cbogus\r")
        user.expect(b"[trio-chardev: 'bogus' is not a valid char driver name]")


def test_the_size_of_the_window_is_that_of_a_terminal_at_the_device(tmp_path: Path) -> None:
    """There a program sees it, as the device is a PTY of the service."""
    with board(tmp_path) as it, it.qmp() as qmp:
        path = qmp("chardev-change", id="board", backend={"type": "pty", "data": {}})["pty"]
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        try:
            with terminal(*it.attach(), cols=100, rows=30) as user:
                user.expect(b"attached to")
                until(lambda: os.get_terminal_size(fd) == (100, 30))
                user.resize(132, 43)
                until(lambda: os.get_terminal_size(fd) == (132, 43))
        finally:
            os.close(fd)


def test_two_hand_the_right_to_write_over(tmp_path: Path) -> None:
    with (
        board(tmp_path, write="one") as it,
        terminal(*it.attach()) as one,
        terminal(*it.attach()) as two,
        it.qmp() as qmp,
    ):
        one.expect(b"attached to")
        two.expect(b"attached to")
        first = qmp("query-clients")[0]["client"]
        one.type(ESCAPE + b"t")
        one.expect(b"[trio-chardev: you have the right to write]")
        one.type(b"1")
        it.expect(b"1")
        two.type(b"no")
        two.expect(b"[trio-chardev: uid 0 writes: what you type goes nowhere]")
        writer = next(row["client"] for row in qmp("query-clients") if row["types"])
        other = next(row["client"] for row in qmp("query-clients") if not row["types"])
        one.type(ESCAPE + b"g%d\r" % other)
        two.expect(b"[trio-chardev: you have the right to write]")
        two.type(b"2")
        it.expect(b"2")
        one.type(b"no")
        one.expect(b"what you type goes nowhere]")
        one.type(ESCAPE + b"t")
        one.expect(b"[trio-chardev: you have the right to write]")
        one.type(b"3")
        assert it.expect(b"3") == b""
        assert first in (writer, other)


def test_who_takes_has_the_right_to_write_from_the_start(tmp_path: Path) -> None:
    with board(tmp_path, write="first") as it, terminal(*it.attach()) as one:
        one.expect(b"attached to")
        with terminal(*it.attach("--take")) as two:
            two.expect(b"attached to")
            two.type(b"2")
            it.expect(b"2")
            two.type(ESCAPE + b"t")
            two.expect(b"[trio-chardev: you have the right to write already]")
            two.type(ESCAPE + b"d")
            assert two.wait() == 0
        with terminal(*it.attach("--read-only", "--take")) as three:
            assert three.wait() == 1
            assert three.seen.endswith(b"may only read\r\n")


def test_one_who_only_watches_types_nothing(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach("--read-only")) as user:
        user.expect(b"attached to")
        user.type(b"no")
        user.expect(b"[trio-chardev: you can only read: what you type goes nowhere]")
        it.print(b"there")
        user.expect(b"there")


# ---------------------------------------------------------------- the service goes and comes


def numbered(begin: int, end: int) -> bytes:
    return b"".join(b"line %06d\n" % n for n in range(begin, end))


def test_after_a_crash_of_the_service_it_goes_on_without_a_gap_or_a_repetition(
    tmp_path: Path,
) -> None:
    history: dict[str, Any] = {"history": "256k", "history_file": f"{tmp_path}/h"}
    with board(tmp_path, **history) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        it.print(numbered(0, 100))
        shown = user.expect(b"line 000099\n")
        it.kill()
        user.expect(b"[trio-chardev: the connection is lost; trying to connect again]\r\n")
        assert user.is_raw
        user.type(b"lost")
        user.expect(b"[trio-chardev: what you type goes nowhere now]\r\n")
        with board(tmp_path, device=it.device, **history) as again:
            again.print(numbered(100, 200))
            between = user.expect(b"line 000199\n")
            user.type(b"x")
            assert again.expect(b"x") == b""
            told = b"\r\n[trio-chardev: connected again]\r\n"
            assert told in between
            shown += b"line 000099\n" + between.replace(told, b"") + b"line 000199\n"
            assert shown.partition(b"]\r\n")[2] == numbered(0, 200)
            user.type(ESCAPE + b"d")
            assert user.wait() == 0


def test_crashes_while_the_device_prints_repeat_nothing_and_miss_nothing_that_was_kept(
    tmp_path: Path,
) -> None:
    """What the service had read and not kept when it was killed, nobody has."""
    history: dict[str, Any] = {"history": "1M", "history_file": f"{tmp_path}/h"}
    device, slave = os.openpty()
    tty.setraw(slave)
    (tmp_path / "device").symlink_to(os.ttyname(slave))
    stop = threading.Event()

    def print_lines() -> None:
        numbers = itertools.count()
        while not stop.wait(0.001):  # so that the history has room for all
            os.write(device, b"".join(b"line %06d\n" % next(numbers) for _ in range(5)))

    printer = threading.Thread(target=print_lines)
    try:
        with contextlib.ExitStack() as stack:
            it = stack.enter_context(board(tmp_path, device=device, **history))
            user = stack.enter_context(terminal(*it.attach()))
            user.expect(b"]\r\n")
            printer.start()
            shown = user.take(20_000)
            for _ in range(3):
                it.kill()
                user.seen, shown = shown + user.seen, b""  # the line may be in what was taken
                shown += user.expect(LOST)
                it = stack.enter_context(board(tmp_path, device=device, **history))
                shown += user.expect(AGAIN) + user.take(20_000)
            stop.set()
            printer.join()
            it.print(b"\nend\n")
            shown += user.expect(b"\nend\n")
            with it.qmp() as qmp:
                answer = qmp("chardev-history", id="board-console", max=1 << 20)
    finally:
        stop.set()
        while select.select([slave], [], [], 0)[0]:
            os.read(slave, 65536)
        os.close(slave)
        os.close(device)
    assert answer["start"] == 0
    numbers = [int(text) for text in LINE.findall(shown)]
    assert all(a < b for a, b in itertools.pairwise(numbers))
    kept = {int(text) for text in LINE.findall(answer["data"].encode())}
    assert kept - set(numbers) == set()


LINE = re.compile(rb"(?<=\nline )[0-9]{6}(?=\n)")
LOST = b"\r\n[trio-chardev: the connection is lost; trying to connect again]\r\n"
AGAIN = b"\r\n[trio-chardev: connected again]\r\n"


def test_without_a_history_file_it_says_that_something_may_be_missing(tmp_path: Path) -> None:
    with board(tmp_path, history="64k") as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        it.print(b"before\n")
        user.expect(b"before\n")
        it.kill()
        user.expect(b"the connection is lost")
        with board(tmp_path, device=it.device, history="64k") as again:
            user.expect(b"connected again: the history is another, so something may be missing]")
            again.print(b"after\n")
            user.expect(b"after\n")


def test_a_terminal_that_is_stopped_loses_only_what_the_history_has_lost(tmp_path: Path) -> None:
    """The console lets it go, and it comes again by its count."""
    lines = numbered(0, 60_000)
    with board(tmp_path, history="64k") as it, terminal(*it.attach()) as user, it.qmp() as qmp:
        user.expect(b"attached to board-console")
        user.expect(b"]\r\n")
        for at in range(0, len(lines), 4096):
            it.print(lines[at : at + 4096])
        until(lambda: qmp("chardev-history", id="board-console")["next"] == len(lines))
        skipped = 0
        rest = user.expect(b"line 059999\n") + b"line 059999\n"
        shown = b""
        while rest:
            piece, told, rest = rest.partition(b"\r\n[trio-chardev: ")
            shown += piece
            if told:
                text, _, rest = rest.partition(b"]\r\n")
                if text.startswith(b"skipped "):
                    skipped += int(text.split()[1])
        assert skipped > 0
        assert len(shown) + skipped == len(lines)
        assert shown.endswith(lines[-65_536:])
        assert lines.startswith(shown[:65_536])


def test_one_can_leave_while_there_is_no_service(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        it.kill()
        user.expect(b"the connection is lost")
        user.type(ESCAPE + b"w")
        user.expect(b"[trio-chardev: there is no connection now]")
        user.type(ESCAPE + b"d")
        assert user.wait() == 0
        assert not user.is_raw


def test_a_service_that_stops_and_starts_is_waited_for(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        it.service.stop()
        user.expect(b"the connection is lost")
        with board(tmp_path, device=it.device) as again:
            user.expect(b"connected again")
            again.print(b"there\n")
            user.expect(b"there\n")


def test_a_console_that_comes_after_the_service_is_waited_for(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        it.kill()
        user.expect(b"the connection is lost")
        with running("--qmp", f"unix:{it.socket},server=on,wait=off"), it.qmp() as qmp:
            qmp.add("board", "null")
            qmp.add("board-console", "console")
            user.expect(b"connected again")
            assert len(qmp("query-clients")) == 1


def test_a_device_that_takes_nothing_does_not_take_the_menu(tmp_path: Path) -> None:
    """Keys that nobody has room for are dropped, and one is told."""
    with board(tmp_path) as it, it.qmp() as qmp, terminal(*it.attach()) as user:
        qmp("chardev-change", id="board", backend={"type": "pty", "data": {}})
        qmp("device_del", id="board-bridge")
        user.expect(b"attached to")
        told = b"the device does not take what you type: it goes nowhere]"

        def is_told() -> bool:
            user.type(b"x" * 1000)
            while select.select([user.user], [], [], 0)[0]:
                user.seen += os.read(user.user, 65536)
            return told in user.seen

        until(is_told)
        user.type(ESCAPE + b"w")
        user.expect(b"*w  1")
        user.type(ESCAPE + b"d")
        assert user.wait() == 0


# ---------------------------------------------------------------- pipes


def piped(it: Board, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *it.attach(*arguments)]
    return subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, check=False)


def test_as_a_pipe_bytes_go_in_and_out_until_it_is_silent(tmp_path: Path) -> None:
    with board(tmp_path, history="64k") as it:
        it.print(b"before\n")
        with it.qmp() as qmp:
            until(lambda: bool(qmp("chardev-history", id="board-console")["data"]))
        done = piped(it, "--linger", "0.2", data=b"\x1dd\x00" * 1000)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"before\n", b"")
        it.expect(b"\x1dd\x00" * 1000)


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    with board(tmp_path) as it:
        process = subprocess.Popen(
            [*PROGRAM, *it.attach()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        with it.qmp() as qmp:
            until(lambda: bool(qmp("query-clients")))
        process.stdout.close()
        it.print(b"x" * 100)
        assert process.wait(TIMEOUT) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stdin.close()  # type: ignore[union-attr]
        process.stderr.close()


def test_a_mark_that_there_is_not_is_told_in_one_line(tmp_path: Path) -> None:
    with board(tmp_path, history="64k") as it:
        done = piped(it, "--replay", "nowhere")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == b"trio-chardev: there is no mark 'nowhere'; there are: 'started'\n"


def test_another_escape_character_is_misuse() -> None:
    command = [*PROGRAM, "attach", "board", "--escape", "x"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.endswith(
        b"Error: the escape character is ^X, such as ^], or none, and not 'x'\n"
    )


def test_what_is_not_of_the_device_is_not_in_a_pipe_at_the_output(tmp_path: Path) -> None:
    """Though keys come from a terminal, as with tee."""
    with board(tmp_path) as it:
        command = [*PROGRAM, *it.attach()]
        script = f"{shlex.join(command)} > {tmp_path}/out"
        with program_at_terminal(["sh", "-c", script]) as user:
            user.expect(b"[trio-chardev: attached to")
            user.type(ESCAPE + b"w")
            user.expect(b"*w  1")
            user.type(ESCAPE + b"cbogus\r" + ESCAPE + b"h")
            user.expect(b"change to KIND[,KEY=VALUE...]: bogus")
            user.expect(b"[trio-chardev: 'bogus' is not")
            it.print(b"there\n")
            until(lambda: (tmp_path / "out").read_bytes() == b"there\n")
            user.type(ESCAPE + b"d")
            assert user.wait() == 0
        assert (tmp_path / "out").read_bytes() == b"there\n"


def test_a_terminal_that_hangs_up_ends_it(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user, it.qmp() as qmp:
        user.expect(b"attached to")
        user.hang_up()
        assert user.process.wait(TIMEOUT) != 0
        until(lambda: not qmp("query-clients"))


def test_one_can_leave_a_service_that_is_stopped(tmp_path: Path) -> None:
    with board(tmp_path) as it, terminal(*it.attach()) as user:
        user.expect(b"attached to")
        os.kill(it.service.process.pid, signal.SIGSTOP)
        try:
            user.type(b"x" + ESCAPE + b"w" + ESCAPE + b"d")
            assert user.wait() == 0
            assert not user.is_raw
        finally:
            os.kill(it.service.process.pid, signal.SIGCONT)


def test_in_tmux(tmp_path: Path) -> None:
    """It has the pane's size, the screen is the device's, and the pane is a shell's again."""
    with board(tmp_path) as it, it.qmp() as qmp:
        path = qmp("chardev-change", id="board", backend={"type": "pty", "data": {}})["pty"]
        device = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(device)
        try:
            with tmux(tmp_path, 90, 20) as run:
                attach = shlex.join([*PROGRAM, *it.attach()])
                run("send-keys", f"{attach}; stty -a; echo status=$?", "Enter")
                until(lambda: "attached to board-console" in run("capture-pane", "-p"))
                until(lambda: os.get_terminal_size(device) == (90, 20))
                run("resize-window", "-x", "70", "-y", "15")
                until(lambda: os.get_terminal_size(device) == (70, 15))
                os.write(device, b"\x1b[2J\x1b[5;10Hfull screen")
                until(lambda: run("capture-pane", "-p").split("\n")[4] == " " * 9 + "full screen")
                run("send-keys", "C-c")
                assert read_until(device, b"\x03") == (b"", b"")
                run("send-keys", "C-]", "d")
                until(lambda: "status=0" in run("capture-pane", "-p", "-J"))
                assert " icanon" in run("capture-pane", "-p", "-J")
        finally:
            os.close(device)


def test_a_chardev_that_is_no_console_is_told(tmp_path: Path) -> None:
    with board(tmp_path, "--chardev", "null,id=n") as it:
        done = subprocess.run(
            [*PROGRAM, "attach", "-s", it.socket, "n"],
            input=b"",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(b"trio-chardev: 'n' has no console")
        assert done.stderr.count(b"\n") == 1


@contextmanager
def tmux(folder: Path, cols: int, rows: int) -> Iterator[Callable[..., str]]:
    """Run a shell in a tmux of its own; gives what runs its commands."""
    program = need("tmux")

    def run(*arguments: str) -> str:
        command = [program, "-S", f"{folder}/tmux", "-f", "/dev/null", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        return done.stdout

    run("new-session", "-d", "-x", str(cols), "-y", str(rows), "sh")
    run("set-option", "status", "off")
    try:
        yield run
    finally:
        run("kill-server")


# ---------------------------------------------------------------- over TCP


def test_over_tcp_a_plain_listener_of_the_console_is_used(tmp_path: Path) -> None:
    port, qmp = free_port(), free_port()
    more = [
        *("--device", f"listener,id=l,console=board-console,host=127.0.0.1,port={port}"),
        *("--qmp", f"tcp:127.0.0.1:{qmp},server=on,wait=off,insecure=on"),
    ]
    with (
        board(tmp_path, *more) as it,
        terminal("attach", "-s", f"127.0.0.1:{qmp}", "board", cols=90) as user,
    ):
        user.expect(b"attached to board-console")
        user.type(b"x")
        it.expect(b"x")
        it.print(b"there")
        user.expect(b"there")
        user.type(ESCAPE + b"w")
        user.expect(b"*w  1")
        user.expect(b"90x24")
        user.type(ESCAPE + b"d")
        assert user.wait() == 0


def test_over_tcp_without_a_plain_listener_it_is_one_line(tmp_path: Path) -> None:
    qmp = free_port()
    more = ["--qmp", f"tcp:127.0.0.1:{qmp},server=on,wait=off,insecure=on"]
    with board(tmp_path, *more):
        done = subprocess.run(
            [*PROGRAM, "attach", "-s", f"127.0.0.1:{qmp}", "board"],
            input=b"",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(b"trio-chardev: descriptors can't be passed over TCP")
        assert done.stderr.count(b"\n") == 1
