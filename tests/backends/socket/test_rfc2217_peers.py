"""RFC 2217 with everybody else's: pyserial, serialx, ser2net, gensiot, pyserial's own server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import trio_chardev as tc
from tests.peers import LOOPBACK, free_port, need, program, ser2net
from tests.services import Qmp, running, until
from tests.wires import Wire, wire
from trio_chardev.events import OUTPUTS, LineSettings, ModemLines

serial: Any = pytest.importorskip("serial", reason="pyserial, of the extra 'test', is missing")
pytest.importorskip("serial.rfc2217")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial

EVERY_BYTE = bytes(range(256)) + b"\r\0\r\n\xff\xff"
STRACE = ("-f", "-q", "-e", "trace=ioctl", "-o")


@asynccontextmanager
async def served(path: str) -> AsyncIterator[tc.Registry]:
    """Serve the line at *path* as the chardev "board" by RFC 2217, at "users"."""
    async with tc.open_registry() as registry:
        await registry.add("board", tc.SerialOptions(path=path))
        addr = tc.InetAddress(LOOPBACK, "0")
        await registry.add("users", tc.SocketOptions(addr=addr, wait=False, rfc2217=True))
        registry.devices.add(tc.BridgeOptions(id="b", chardev="board", peer="users"))
        with trio.fail_after(20):  # noqa: ASYNC100 - the block waits
            yield registry


def url_of(registry: tc.Registry) -> str:
    return f"rfc2217://{LOOPBACK}:{registry['users'].backend.port}"


@contextmanager
def quick_pyserial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make pyserial look for answers each half millisecond, and not each 50 (its busy waiting)."""

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, 0.0005))

    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=sleep)
    with monkeypatch.context() as patch:
        patch.setattr(serial.rfc2217, "time", clock)
        yield


# ---------------------------------------------------------------- pyserial


async def test_pyserial_sets_and_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a PTY, which has no modem lines, and without ``ign_set_control``."""

    def use(url: str, here: Wire) -> None:
        with serial.serial_for_url(f"{url}?poll_modem", baudrate=9600, timeout=5) as port:
            assert here.speed == termios.B9600
            wanted: dict[str, list[Any]] = {
                "baudrate": [300, 115200],
                "bytesize": [7, 8],
                "parity": ["E", "O", "M", "S", "N"],
                "stopbits": [2, 1],
                "xonxoff": [True, False],
                "rtscts": [True, False],
                "dtr": [False, True],
                "rts": [False, True],
                "break_condition": [True, False],
            }
            for name, values in wanted.items():
                for value in values:
                    setattr(port, name, value)
                    assert getattr(port, name) == value
            assert (port.cts, port.dsr, port.ri, port.cd) == (False,) * 4
            port.send_break(0.01)
            port.reset_input_buffer()
            port.reset_output_buffer()

    with wire() as here, quick_pyserial(monkeypatch):
        async with served(here.path) as registry:
            await trio.to_thread.run_sync(use, url_of(registry), here)
            assert registry["board"].backend.line.settings == LineSettings()


async def test_pyserial_stays_while_the_line_is_changed_which_is_then_set_as_it_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = threading.Event()
    may_go_on = threading.Event()

    def use(url: str, first: Wire, second: Wire) -> None:
        with serial.serial_for_url(url, baudrate=300, stopbits=2, timeout=5) as port:
            for here in (first, second):
                assert (here.speed, here.has_two_stop_bits) == (termios.B300, True)
                echo = threading.Thread(target=here.echo_back, args=[len(EVERY_BYTE)])
                echo.start()
                port.write(EVERY_BYTE)
                assert port.read(len(EVERY_BYTE)) == EVERY_BYTE
                echo.join()
                if here is first:
                    changed.set()
                    assert may_go_on.wait(5)

    with wire() as first, wire() as second, quick_pyserial(monkeypatch):
        async with served(first.path) as registry, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, use, url_of(registry), first, second)
            await until(changed.is_set)
            await registry.change("board", tc.SerialOptions(path=second.path))
            may_go_on.set()


def test_a_value_that_is_in_force_touches_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pyserial sends all settings whenever its time-out is changed; here that is no system call."""
    trace = tmp_path / "trace"
    qmp = tmp_path / "qmp"
    port = free_port()
    with wire() as here, quick_pyserial(monkeypatch):
        arguments = (
            *("--chardev", f"serial,id=board,path={here.path}"),
            "--chardev",
            f"socket,id=users,host={LOOPBACK},port={port},server=on,wait=off,rfc2217=on",
            *(
                "--device",
                "bridge,id=b,chardev=board,peer=users",
                "--qmp",
                f"unix:{qmp},server=on,wait=off",
            ),
        )
        with (
            running(*arguments) as service,
            Qmp(qmp),  # it answers once everything is open
            serial.serial_for_url(f"rfc2217://{LOOPBACK}:{port}", timeout=5) as client,
        ):
            strace = subprocess.Popen(
                [need("strace"), *STRACE, str(trace), "-p", str(service.process.pid)],
            )
            try:
                _wait_traced(service.process.pid)
                echo = threading.Thread(target=here.echo_back, args=[100 * len(EVERY_BYTE)])
                echo.start()
                got = b""
                for number in range(1000):
                    client.timeout = 5 + number / 1000
                    if number % 10 == 0:
                        client.write(EVERY_BYTE)
                        got += client.read(len(EVERY_BYTE))
                echo.join()
            finally:
                strace.terminate()
                strace.wait()
        assert got == 100 * EVERY_BYTE
        calls = trace.read_text()
        assert not re.findall("TCSETS|TCFLSH|TCSBRK|TIOCSBRK|TIOCMBI|TIOCMSET", calls)


def _wait_traced(pid: int) -> None:
    deadline = time.monotonic() + 5
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_pyserials_own_server_is_ours_too() -> None:
    """Its PortManager, which the example rfc2217_server.py is made of, on a line that loops."""
    listener = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, serial.serial_for_url("loop://", timeout=0.05) as loop:
            lock = threading.Lock()

            class Writer:
                def write(self, data: bytes) -> None:
                    with lock:
                        sock.sendall(data)

            manager = serial.rfc2217.PortManager(loop, Writer())
            ended = threading.Event()

            def read_loop() -> None:
                while not ended.is_set():
                    if data := loop.read(loop.in_waiting or 1):
                        Writer().write(b"".join(manager.escape(data)))

            reader = threading.Thread(target=read_loop)
            reader.start()
            while data := sock.recv(4096):
                loop.write(b"".join(manager.filter(data)))
            ended.set()
            reader.join()
            settings.append((loop.baudrate, loop.parity, loop.dtr, loop.rts))

    settings: list[tuple[object, ...]] = []
    with listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            async with tc.open_registry() as registry:
                url = f"rfc2217://{LOOPBACK}:{listener.getsockname()[1]}"
                await registry.add("far", tc.SerialOptions(path=url, speed=19200, reopen_ms=0))
                async with registry["far"].attach(be_change=tc.stateless) as far:
                    await far.line.set(LineSettings(1200, parity="O"))
                    await far.line.set_modem(ModemLines.DTR)
                    await _check_loop(far)
                await registry.remove("far")
    assert settings == [(1200, "O", True, False)]


async def _check_loop(far: tc.Frontend) -> None:
    await far.send_all(EVERY_BYTE)
    got = b""
    with trio.fail_after(5):
        while len(got) < len(EVERY_BYTE):
            got += await far.receive_some()
    assert got == EVERY_BYTE


# ---------------------------------------------------------------- serialx


async def test_serialx_sets_the_line_and_exchanges_bytes() -> None:
    serialx: Any = pytest.importorskip("serialx", reason="serialx, of the extra 'test', is missing")

    def use(url: str, here: Wire) -> None:
        with serialx.serial_for_url(url, baudrate=9600, stopbits=2) as port:
            assert (here.speed, here.has_two_stop_bits) == (termios.B9600, True)
            echo = threading.Thread(target=here.echo_back, args=[len(EVERY_BYTE)])
            echo.start()
            port.write(EVERY_BYTE)
            got = b""
            while len(got) < len(EVERY_BYTE):
                got += port.read(len(EVERY_BYTE) - len(got))
            assert got == EVERY_BYTE
            echo.join()

    with wire() as here:
        async with served(here.path) as registry:
            await trio.to_thread.run_sync(use, url_of(registry), here)


# ---------------------------------------------------------------- ser2net and gensiot


async def use_as_ours(registry: tc.Registry, port: str, here: Wire) -> None:
    """Set the line that is served at *port*, and exchange bytes with the board."""
    addr = tc.InetAddress(LOOPBACK, port)
    options = tc.SocketOptions(addr=addr, server=False, rfc2217=True, reconnect_ms=20)
    await registry.add("far", options)
    async with registry["far"].attach(be_change=tc.stateless) as far:
        with trio.fail_after(20):
            await far.wait_open()
            await far.line.set(LineSettings(300, stop_bits=2))
            assert (here.speed, here.has_two_stop_bits) == (termios.B300, True)
            echo = threading.Thread(target=here.echo_back, args=[len(EVERY_BYTE)])
            echo.start()
            await _check_loop(far)
            echo.join()


def ser2net_at(port: str, here: Wire, folder: Path) -> AbstractAsyncContextManager[None]:
    """Let ser2net serve the line."""
    return ser2net(
        f"telnet(rfc2217,mode=server),tcp,{LOOPBACK},{port}",
        f"serialdev(nouucplock=true),{here.path},115200n81,local",
        folder,
    )


async def test_ser2net_is_our_server(tmp_path: Path) -> None:
    port = free_port()
    with wire() as here:
        async with ser2net_at(port, here, tmp_path), tc.open_registry() as registry:
            await use_as_ours(registry, port, here)


async def test_ser2net_at_a_pty_does_not_answer_about_dtr_and_is_taken_to_obey(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_chardev.backends.socket import line

    monkeypatch.setattr(line, "ANSWER_TIMEOUT", 0.3)
    port = free_port()
    with wire() as here:
        async with ser2net_at(port, here, tmp_path), tc.open_registry() as registry:
            await use_as_ours(registry, port, here)
            async with registry["far"].attach(be_change=tc.stateless) as far:
                await far.line.set_modem(ModemLines.RTS)
                assert await far.line.get_modem() & OUTPUTS == ModemLines.RTS
    assert "does not answer about all that was set" in caplog.text


async def test_gensiot_is_our_server() -> None:
    port = free_port()
    with wire() as here:
        argv = (
            *(
                need("gensiot"),
                "-a",
                "-i",
                f"serialdev(nouucplock=true),{here.path},115200n81,local",
            ),
            f"telnet(rfc2217),tcp,{LOOPBACK},{port}",
        )
        async with program(*argv), tc.open_registry() as registry:
            await use_as_ours(registry, port, here)


async def join_by(registry: tc.Registry, here: Wire, run: Callable[[str, str], Any]) -> None:
    """Let a program serve raw TCP and pass it on to our server, and send bytes both ways."""
    port = free_port()
    async with run(port, str(registry["users"].backend.port)):
        addr = tc.InetAddress(LOOPBACK, port)
        await registry.add("raw", tc.SocketOptions(addr=addr, server=False, reconnect_ms=20))
        async with registry["raw"].attach() as raw:
            await raw.wait_open()
            await until(lambda: registry["users"].is_open)
            echo = threading.Thread(target=here.echo_back, args=[len(EVERY_BYTE)])
            echo.start()
            await _check_loop(raw)
            echo.join()


async def test_ser2net_is_our_client(tmp_path: Path) -> None:
    with wire() as here:
        async with served(here.path) as registry:
            await join_by(
                registry,
                here,
                lambda port, ours: ser2net(
                    f"tcp,{LOOPBACK},{port}", f"telnet(rfc2217),tcp,{LOOPBACK},{ours}", tmp_path
                ),
            )


async def test_gensiot_is_our_client() -> None:
    with wire() as here:
        async with served(here.path) as registry:
            await join_by(
                registry,
                here,
                lambda port, ours: program(
                    *(need("gensiot"), "-i", f"telnet(rfc2217),tcp,{LOOPBACK},{ours}", "-a"),
                    f"tcp,{LOOPBACK},{port}",
                ),
            )


# ---------------------------------------------------------------- sessions over a change


async def test_telnet_survives_a_change_of_the_line() -> None:
    with wire() as first, wire() as second:
        async with served(first.path) as registry:
            process = await trio.lowlevel.open_process(
                [need("telnet"), LOOPBACK, str(registry["users"].backend.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                await until(lambda: registry["users"].is_open)
                for here in (first, second):
                    if here is second:
                        await registry.change("board", tc.SerialOptions(path=here.path))
                    os.write(here.board, b"login: ")
                    await _read_until(process.stdout, b"login: ")
                    await process.stdin.send_all(b"root\n")
                    got = b""
                    while b"root" not in got:
                        got += await trio.to_thread.run_sync(os.read, here.board, 100)
            finally:
                process.kill()
                with trio.fail_after(5, shield=True):
                    await process.wait()


async def test_a_terminal_at_a_pty_here_has_a_line_there(tmp_path: Path) -> None:
    """For programs that want a tty where the line is another host's."""
    link = str(tmp_path / "tty")

    async def stty(*arguments: str) -> bytes:
        command = [need("stty"), "-F", link, *arguments]
        return (await trio.run_process(command, capture_stdout=True)).stdout

    with wire() as here:
        async with served(here.path) as registry:
            await registry.add("far", tc.SerialOptions(path=url_of(registry), speed=19200))
            await registry.add("tty", tc.PtyOptions(path=link))
            registry.devices.add(tc.BridgeOptions(chardev="far", peer="tty"))
            assert here.speed == termios.B19200
            with serial.Serial(link, 300, stopbits=2, timeout=5) as port:
                port.write(b"x")
                await until(lambda: here.speed == termios.B300)
                assert b"speed 300 baud" in await stty()


async def _read_until(stream: trio.abc.ReceiveStream, text: bytes) -> None:
    got = b""
    while text not in got:
        data = await stream.receive_some()
        assert data, f"it ended after {got!r}"
        got += data
