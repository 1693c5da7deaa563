"""Many clients, and slow ones, at one console, by a real service."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.crowds import Served, served
from tests.peers import LOOPBACK, need
from tests.services import TIMEOUT

CLIENTS = 200
SIZE = 3 << 20
RATE = 1 << 20  # bytes a second
PIECE = RATE // 100
LINES = b"".join(b"%07d\n" % number for number in range(SIZE // 8))


@attrs.define(eq=False)
class Reader:
    """A client that compares what comes with what was printed."""

    sock: socket.socket
    position: int = 0

    def read(self) -> bool:
        """Read once; return whether all has come."""
        data = self.sock.recv(1 << 18)
        assert data, f"it ends at {self.position}"
        wanted = LINES[self.position : self.position + len(data)]
        assert data == wanted, f"a gap or a repeat behind {self.position}"
        self.position += len(data)
        return self.position == SIZE


def test_200_clients_come_at_random_and_each_sees_all_numbers(tmp_path: Path) -> None:
    """At 1 MB/s: what is replayed and what follows join without a gap and without a repeat."""
    chance = random.Random(18)
    comes = sorted(chance.uniform(0, 0.9 * SIZE / RATE) for _ in range(CLIENTS))
    console = "history=8M,max-clients=256"
    listeners = ("plain", "tcp,host=127.0.0.1,port=0")
    with (
        served(tmp_path, *listeners, console=console) as it,
        selectors.DefaultSelector() as ready,
        contextlib.ExitStack() as stack,
    ):
        addresses: list[str | tuple[str, int]] = [
            str(tmp_path / "plain"),
            ("127.0.0.1", it.port("tcp")),
        ]
        begin = time.monotonic()
        printed = left = 0
        it.board.setblocking(False)
        while comes or left or printed < SIZE:
            now = time.monotonic() - begin
            assert now < 3 * TIMEOUT
            while comes and comes[0] <= now:
                comes.pop(0)
                address = addresses[len(comes) % 2]
                family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
                sock = stack.enter_context(socket.socket(family))
                sock.connect(address)
                sock.setblocking(False)
                ready.register(sock, selectors.EVENT_READ, Reader(sock))
                left += 1
            with contextlib.suppress(BlockingIOError):  # the service had no processor for so long
                while printed < min(SIZE, now * RATE):
                    printed += it.board.send(LINES[printed : printed + PIECE])
            for key, _ in ready.select(0.005):
                if key.data.read():
                    ready.unregister(key.data.sock)
                    left -= 1
                    key.data.sock.close()
        rows = it.qmp("query-clients", id="users")
        assert [row["skipped"] for row in rows if row["skipped"]] == []


# ---------------------------------------------------------------- slow ones

ROUND = 20 << 20
ROUNDS = 5
"""Of each kind, so that 100 MB are printed with bad readers, and as much with good ones."""


@contextmanager
def good_readers(it: Served) -> Iterator[None]:
    """Let three socats read all that comes."""
    argv = [need("socat"), "-u", f"UNIX-CONNECT:{it.folder}/plain", "OPEN:/dev/null"]
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(_reader(it, argv))
        yield


@contextmanager
def _reader(it: Served, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    before = {row["client"] for row in it.qmp("query-clients")}
    process = subprocess.Popen(argv)
    try:
        while {row["client"] for row in it.qmp("query-clients")} <= before:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def bad_readers(it: Served) -> Iterator[None]:
    """One that is stopped, one that reads nothing, as if its network were gone, one at 1 KB/s."""
    port = it.port("tcp")
    argv = [need("socat"), "-u", f"UNIX-CONNECT:{it.folder}/plain", "OPEN:/dev/null"]
    is_over = threading.Event()
    with (
        _reader(it, argv) as stopped,
        socket.create_connection((LOOPBACK, port)) as silent,
        socket.create_connection((LOOPBACK, port)) as slow,
    ):
        stopped.send_signal(signal.SIGSTOP)
        for sock in (silent, slow):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def read_slowly() -> None:
            while not is_over.wait(0.1):
                slow.recv(100)

        thread = threading.Thread(target=read_slowly)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def print_all(it: Served) -> float:
    """Print one round, and return how long the service has worked for that, in seconds.

    On the clock it takes as long as other programs let it; a producer that waited for one of the bad
    readers would take for ever, or hours.
    """
    end = it.qmp("chardev-history", id="users", start=-1)["next"] + ROUND
    begin = worked(it)
    it.board.sendall(b"x" * ROUND)
    next_ = 0
    while next_ < end:
        next_ = it.qmp("chardev-history", id="users", start=-1)["next"]
    return worked(it) - begin


def worked(it: Served) -> float:
    """How long the service has had a processor, in seconds; see proc(5)."""
    return int(Path(f"/proc/{it.service.process.pid}/schedstat").read_text().split()[0]) / 1e9


def memory_of(it: Served) -> int:
    """The memory of the service, in bytes."""
    pages = Path(f"/proc/{it.service.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def test_100_mb_take_no_longer_with_bad_readers_than_with_good_ones(tmp_path: Path) -> None:
    """Rounds alternate, so that both kinds have the same machine."""
    listeners = ("plain", "tcp,host=127.0.0.1,port=0")
    with served(tmp_path, *listeners, console="history=1M") as it:
        print_all(it)
        before = memory_of(it)
        good, bad = [], []
        for _ in range(ROUNDS):
            with good_readers(it):
                good.append(print_all(it))
            with bad_readers(it):
                bad.append(print_all(it))
                rows = it.qmp("query-clients", id="users")
                assert len([row for row in rows if "blocked-since" in row]) == 3, rows
        assert sum(bad) <= 1.1 * sum(good), (good, bad)
        assert memory_of(it) - before < 16 << 20
