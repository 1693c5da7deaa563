"""A console with everybody's programs: telnet, socat, conserver, WebSocket libraries, a browser."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio_websocket
import websockets.sync.client

from tests.browser import showing
from tests.crowds import Served, read_until, served
from tests.peers import LOOPBACK, free_port, need
from tests.services import TIMEOUT
from tests.terminals import until
from tests.xterm import page_of

CONSERVER = """config * {{ sslrequired no; redirect no; daemonmode no; }}
default full {{ rw *; master localhost; logfile ""; }}
access * {{ trusted 127.0.0.1, ::1; admin *; }}
console tcp {{ include full; type host; host 127.0.0.1; port {port}; protocol raw; }}
console unix {{ include full; type uds; uds {folder}/plain; }}
"""


@attrs.define(eq=False)
class Terminal:
    """The screen and the keys of a program: its standard streams, or the terminal that it has."""

    keys: int
    screen: int
    shown: bytes = b""

    def type(self, text: bytes) -> None:
        """Type *text*."""
        os.write(self.keys, text)

    def wait(self, text: bytes) -> None:
        """Wait until *text* is shown, and forget what is up to there."""
        while text not in self.shown:
            ready, _, _ = select.select([self.screen], [], [], TIMEOUT)
            assert ready, f"{text!r} does not come, but {self.shown!r}"
            data = os.read(self.screen, 65536)
            assert data, f"it has ended, and {text!r} is not in {self.shown!r}"
            self.shown += data
        self.shown = self.shown.partition(text)[2]


@contextmanager
def piped(*argv: str) -> Iterator[Terminal]:
    """Run a program whose standard input and output are pipes."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Terminal(process.stdin.fileno(), process.stdout.fileno())
    finally:
        process.terminate()  # conserver ends its own processes, which SIGKILL would leave behind
        process.communicate(timeout=TIMEOUT)


@contextmanager
def in_terminal(*argv: str) -> Iterator[Terminal]:
    """Run a program in a terminal of its own."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [need("setsid"), "--ctty", *argv], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        yield Terminal(ours, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@contextmanager
def telnet(it: Served, listener: str) -> Iterator[Terminal]:
    """Run telnet(1), connected to a listener."""
    with in_terminal(need("telnet"), LOOPBACK, str(it.port(listener))) as terminal:
        terminal.wait(b"Escape character is '^]'.\r\n")
        yield terminal


@contextmanager
def conserver(it: Served) -> Iterator[Callable[[str], Terminal]]:
    """Run conserver's server with the console as upstream; give what runs its client."""
    port, second = free_port(), free_port()
    config, passwd = it.folder / "conserver.cf", it.folder / "conserver.passwd"
    config.write_text(CONSERVER.format(port=it.port("tcp"), folder=it.folder))
    passwd.touch()
    argv = [need("conserver"), "-C", str(config), "-P", str(passwd), "-p", port, "-b", second]
    process = subprocess.Popen(
        [*argv, "-M", LOOPBACK, "-E", "-v"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        log = Terminal(-1, process.stdout.fileno())
        log.wait(f"on port {second}".encode())
        with ExitStack() as clients:

            def client(name: str) -> Terminal:
                program = need("console")
                terminal = clients.enter_context(
                    piped(program, "-M", LOOPBACK, "-p", port, "-E", "-n", "-f", name)
                )
                terminal.wait(b"help]")
                return terminal

            yield client
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


@contextmanager
def echoing(board: socket.socket) -> Iterator[bytearray]:
    """Answer each line with itself in brackets, as a board; give what has come."""
    got = bytearray()

    def run() -> None:
        line = b""
        with suppress(OSError):
            while data := board.recv(4096):
                got.extend(data)
                *lines, line = (line + data).split(b"\r")
                for one in lines:
                    board.sendall(b"[" + one.strip() + b"]\r\n")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield got
    finally:
        with suppress(OSError):
            board.shutdown(socket.SHUT_RDWR)
        thread.join()


LISTENERS = (
    "plain",
    "tcp,host=127.0.0.1,port=0",
    "telnet,host=127.0.0.1,port=0,telnet=on",
    "web,host=127.0.0.1,port=0,websocket=on",
    "page,host=127.0.0.1,port=0,websocket=on,origins.0=null",
)


@attrs.define(eq=False)
class Web:
    """A client of the library websockets."""

    socket: websockets.sync.client.ClientConnection
    shown: bytes = b""

    def type(self, text: bytes) -> None:
        self.socket.send(text)

    def wait(self, text: bytes) -> None:
        while text not in self.shown:
            piece = self.socket.recv(timeout=TIMEOUT)
            self.shown += piece if isinstance(piece, bytes) else piece.encode()
        self.shown = self.shown.partition(text)[2]


@contextmanager
def web(it: Served) -> Iterator[Web]:
    url = f"ws://{LOOPBACK}:{it.port('web')}/"
    with websockets.sync.client.connect(url, proxy=None, open_timeout=TIMEOUT) as client:
        yield Web(client)


async def test_everybodys_programs_share_one_console(tmp_path: Path) -> None:
    """All see the same; whoever types, all see the board's echo of it."""
    need("chromium")
    async with AsyncExitStack() as stack:
        enter = stack.enter_context
        it = enter(served(tmp_path, *LISTENERS, console="history=64k"))
        got = enter(echoing(it.board))
        it.board.sendall(b"prompt\r\n")
        with_conserver = enter(conserver(it))
        programs: dict[str, Terminal | Web] = {
            "telnet": enter(telnet(it, "telnet")),
            "socat": enter(piped(need("socat"), "-", f"UNIX-CONNECT:{tmp_path}/plain")),
            "conserver by TCP": with_conserver("tcp"),
            "conserver by a UNIX socket": with_conserver("unix"),
            "websockets": enter(web(it)),
        }
        it.wait_event("CHARDEV_CLIENT_ATTACHED", 5)
        for name in ("telnet", "socat", "websockets"):  # conserver has kept what came before
            programs[name].wait(b"prompt\r\n")
        url = f"ws://{LOOPBACK}:{it.port('web')}/"
        other = await stack.enter_async_context(trio_websocket.open_websocket_url(url))
        seen = b""
        await stack.enter_async_context(
            showing(page_of(it.port("page"), ("[trio-websocket]", "xterm.js\r")), tmp_path)
        )
        it.wait_event("CHARDEV_CLIENT_ATTACHED", 7)
        for typist in programs.values():
            name = next(name for name, one in programs.items() if one is typist)
            typist.type(name.encode() + b"\r" + b"\n" * isinstance(typist, Web))
            for program in programs.values():
                program.wait(f"[{name}]\r\n".encode())
        await other.send_message(b"trio-websocket\r")
        for name in ("trio-websocket", "xterm.js"):
            for program in programs.values():
                await trio.to_thread.run_sync(program.wait, f"[{name}]\r\n".encode())
        with trio.fail_after(TIMEOUT):
            while b"[xterm.js]\r\n" not in seen:
                piece = await other.get_message()
                seen += piece if isinstance(piece, bytes) else piece.encode()
        lines = [line.strip().decode() for line in bytes(got).split(b"\r")]
        typed = [*programs, "trio-websocket", "xterm.js"]
        assert lines == [*typed, ""]
        assert seen.decode().split() == " ".join(["prompt", *(f"[{n}]" for n in typed)]).split()


# ---------------------------------------------------------------- terminals that answer

ANSWERS = {
    b"\x1b[6n": b"\x1b[7;%dR",
    b"\x1b[c": b"\x1b[?64;%dc",
    b"\x1b[>c": b"\x1b[>41;%d;0c",
    b"\x1b[18t": b"\x1b[8;24;%dt",
    b"\x1b[?2026$p": b"\x1b[?2026;%d$y",
    b"\x1b]4;1;?\x07": b"\x1b]4;1;rgb:%d/0/0\x07",
    b"\x1b]10;?\x07": b"\x1b]10;rgb:%d/0/0\x07",
    b"\x1b]11;?\x1b\\": b"\x1b]11;rgb:%d/0/0\x1b\\",
    b"\x1b]12;?\x07": b"\x1b]12;rgb:%d/0/0\x07",
    b"\x1bP$qm\x1b\\": b"\x1bP1$r%dm\x1b\\",
    b"\x1bP+q544e\x1b\\": b"\x1bP1+r544e=%d\x1b\\",
}
"""What terminals are asked, and what they answer; %d is who answers."""
ENQ = b"\x05"  # the answer to this is any text, so that of several terminals each gives its own


def answer(terminal: Terminal, number: int, end: bytes) -> None:
    """Read up to *end*, and answer what is asked, as xterm does."""
    while end not in terminal.shown:
        ready, _, _ = select.select([terminal.screen], [], [], TIMEOUT)
        assert ready, f"{end!r} does not come, but {terminal.shown!r}"
        terminal.shown += os.read(terminal.screen, 65536)
    shown, _, terminal.shown = terminal.shown.partition(end)
    for query, its_answer in ANSWERS.items():
        for _ in range(shown.count(query)):
            terminal.type(its_answer % number)
    if ENQ in shown:
        terminal.type(b"xterm")


def print_old(it: Served, data: bytes) -> None:
    """Have the board print what is history to who comes later."""
    it.board.sendall(data)
    until(lambda: it.qmp("chardev-history", id="users")["next"] == len(data))


@pytest.mark.parametrize("listener", ["telnet", "plain"])
def test_old_queries_type_nothing_and_live_ones_are_answered_once(
    listener: str, tmp_path: Path
) -> None:
    asked = b"".join(ANSWERS)
    with ExitStack() as stack:
        it = stack.enter_context(served(tmp_path, *LISTENERS, console="history=64k"))
        print_old(it, asked + ENQ + b" booted\r\n")
        programs = [
            stack.enter_context(
                telnet(it, listener)
                if listener == "telnet"
                else piped(need("socat"), "-", f"UNIX-CONNECT:{tmp_path}/{listener}")
            )
            for _ in range(3)
        ]
        it.wait_event("CHARDEV_CLIENT_ATTACHED", 3)
        for number, program in enumerate(programs):
            answer(program, number, b" booted\r\n")
        programs[1].type(b"x")
        it.board.settimeout(TIMEOUT)
        assert it.board.recv(4096) == b"x", "what was replayed has typed"
        it.board.sendall(asked + b" where are you?\r\n")
        for number, program in enumerate(programs):
            answer(program, number, b" where are you?\r\n")
        for program in programs:
            program.type(b".")  # behind its answers
        got = b""
        while got.count(b".") < 3:
            got += it.board.recv(4096)
        assert got.replace(b".", b"") == b"".join(ANSWERS.values()).replace(b"%d", b"1")


async def test_xterm_js_answers_nothing_old_and_alone_if_its_user_types(tmp_path: Path) -> None:
    need("chromium")
    with ExitStack() as stack:
        it = stack.enter_context(served(tmp_path, *LISTENERS, console="history=64k"))
        it.board.settimeout(TIMEOUT)
        print_old(it, b"".join(ANSWERS) + ENQ + b"\r\nbooted\r\n")
        other = stack.enter_context(telnet(it, "telnet"))
        library = stack.enter_context(web(it))
        page = page_of(it.port("page"), ("booted", "ready\r"))
        async with showing(page, tmp_path):
            got = await trio.to_thread.run_sync(read_until, it.board, b"\r")
            assert got == b"ready\r", "what was replayed has typed"
            it.board.sendall(b"\x1b[6n?")
            answer(other, 1, b"?")
            library.wait(b"\x1b[6n")
            library.type(b"\x1b[7;2R")
            got = await trio.to_thread.run_sync(read_until, it.board, b"R")
            assert got.startswith(b"\x1b[")
            assert got not in (b"\x1b[7;1R", b"\x1b[7;2R")
            library.type(b"?")  # behind its answer
            assert await trio.to_thread.run_sync(it.board.recv, 100) == b"?"
            other.type(b"!")
            assert await trio.to_thread.run_sync(it.board.recv, 100) == b"!"
