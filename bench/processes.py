"""The processes of a run: QMP servers, relays, and children that run Trio; all end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, TypeVar

import attrs
import trio

from bench.client import QmpConnection
from bench.contenders import OURS, QEMU, QSD, Contender
from bench.model import BenchmarkError

START_TIMEOUT = 20.0  # seconds until a server must listen
STOP_TIMEOUT = 10.0  # seconds from SIGTERM to SIGKILL
T = TypeVar("T")
SERVE = [sys.executable, "-c", "from trio_chardev.cli import main; main()", "serve"]
EMULATOR = [
    "qemu-system-x86_64",
    "-S",
    "-nodefaults",
    "-display",
    "none",
    "-accel",
    "tcg",
    "-m",
    "16",
]
QMP_COMMANDS = {OURS: SERVE, QSD: ["qemu-storage-daemon"], QEMU: EMULATOR}


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise BenchmarkError in the main thread if the block takes longer than *seconds*."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise BenchmarkError(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raise_file_limit() -> None:
    """Raise the limit of open files, for us and our children, as far as possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def need_files(count: int) -> None:
    """Raise BenchmarkError if a process may not have *count* open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        raise BenchmarkError(f"{count} open files are needed, and {soft} allowed (ulimit -Hn)")


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, stopped when the block ends; if the block fails, the error has its output."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        except (BenchmarkError, OSError, EOFError) as exc:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise BenchmarkError(f"{exc}; {command[0]} said: {said or 'nothing'}") from exc
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def connect(
    address: str | tuple[str, int], process: subprocess.Popen[bytes] | None = None
) -> socket.socket:
    """Connect to a UNIX or TCP server as soon as it listens; give up once *process* has ended."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and (process is None or process.poll() is None):
        sock = socket.socket(family)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            time.sleep(0.002)
        else:
            return sock
    raise BenchmarkError(f"nobody listens at {address}")


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, socket.socket]]:
    """Give a UNIX socket of ours that others connect to, and its path."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = f"{folder}/sink.sock"
        listener.bind(path)
        listener.listen()
        listener.settimeout(START_TIMEOUT)
        yield path, listener


@attrs.frozen
class QmpServer:
    """A running server, with a client that has negotiated."""

    client: QmpConnection
    pid: int
    folder: str
    """A folder for the sockets and files of a benchmark."""


@contextlib.contextmanager
def qmp_server(
    contender: Contender, *options: str, wait_started: bool = True
) -> Iterator[QmpServer]:
    """Start *contender*'s server with a chardev for its monitor, and connect to it.

    Without *wait_started* the first command may wait for the rest of the start.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = f"{folder}/qmp.sock"
        # Without wait=on QEMU 7.2 may greet a client twice that comes too early.
        wait = "on" if contender == QEMU else "off"
        chardev = f"socket,id=qmp0,path={path},server=on,wait={wait}"
        monitor = (
            ["-mon", "chardev=qmp0,mode=control"]
            if contender == QEMU
            else ["--monitor", "chardev=qmp0"]
        )
        command = [*QMP_COMMANDS[contender], "--chardev", chardev, *monitor, *options]
        with running(command) as process, connect(path, process) as sock:
            client = QmpConnection(sock)
            client.negotiate()
            if wait_started:
                client.wait_started()
            yield QmpServer(client, process.pid, folder)


@contextlib.contextmanager
def trio_child(function: Callable[..., Awaitable[T]], *arguments: Any) -> Iterator[Callable[[], T]]:
    """Run ``function(*arguments)`` under Trio in a process of its own, until the block ends.

    Gives a function that waits for its result. Raises BenchmarkError if it fails.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_run_child, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()

    def result() -> T:
        try:
            value, error = ours.recv()
        except EOFError:
            raise BenchmarkError("the child has died") from None
        if error:
            raise BenchmarkError(error)
        good: T = value
        return good

    try:
        yield result
    except OSError:
        if ours.poll():
            result()  # raises the child's error, which is the first cause
        raise
    finally:
        ours.close()
        process.kill()
        process.join()


def _run_child(
    answer: Connection, function: Callable[..., Awaitable[T]], arguments: tuple[Any, ...]
) -> None:
    signal.alarm(0)  # the parent has the deadline, and kills this process
    try:
        answer.send((trio.run(function, *arguments), None))
    except Exception as exc:
        answer.send((None, "; ".join(_reasons(exc))))


def _reasons(exc: BaseException) -> Iterator[str]:
    """Give the errors; for a group those in it."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _reasons(inner)
    else:
        yield f"{type(exc).__name__}: {exc}"
