"""Consoles that many clients watch: ours and those of the rivals, with a device's end and clients."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import attrs

from bench.contenders import CONSERVER, OURS, SER2NET, Contender
from bench.cpu import wait_calm
from bench.model import BenchmarkError
from bench.processes import SERVE, connect, running
from bench.relays import HOST, Address, free_ports

MOST = 200  # clients
RING = 1 << 28  # bytes; nobody is overtaken
CHUNK = 1 << 16  # bytes
PATIENCE = 0.1  # seconds until something is printed again for a newcomer who has seen nothing
ALL_ARE_HERE = b"!"


@attrs.frozen
class Plan:
    """What a server's command line, and its file, have to say."""

    far: int
    """The TCP port at which our device listens."""

    near: int
    """The TCP port for the clients."""

    spare: int
    """Another one, for a server that needs two."""

    folder: Path
    history: int
    """The bytes that a newcomer may be shown, if the server keeps any."""


@attrs.frozen
class Server:
    """How a contender is started and entered."""

    command: Callable[[Plan], list[str]]
    enter: Callable[[Address, Popen[bytes]], socket.socket] = connect
    """Makes a client, who is let in."""

    worker: Callable[[int], int] = int
    """The process that does the work, of the one that was started."""


@attrs.define
class Room:
    """A running console, its device's end and its clients."""

    pid: int
    device: socket.socket
    near: Address
    clients: list[socket.socket]
    _enter: Callable[[], socket.socket]

    def fill(self, count: int) -> None:
        """Let clients in until *count* are there and served, and have read what was printed."""
        for end in (self.device, *self.clients):
            end.setblocking(True)
        while len(self.clients) < count:
            self.clients.append(self._enter())
            self._wait_for(self.clients[-1])
        self.device.sendall(ALL_ARE_HERE)
        for client in self.clients:
            while not _receive(client).endswith(ALL_ARE_HERE):
                pass

    def _wait_for(self, newcomer: socket.socket) -> None:
        """Print something until *newcomer* sees it.

        Who only is connected may still wait to be accepted: with five of them ser2net's queue
        is full, and the kernel makes the next one wait for a second.
        """
        newcomer.settimeout(PATIENCE)
        seen = False
        while not seen:
            self.device.sendall(b"?")
            with contextlib.suppress(TimeoutError):
                seen = bool(_receive(newcomer))
        newcomer.settimeout(None)


def _receive(client: socket.socket) -> bytes:
    if not (data := client.recv(CHUNK)):
        raise BenchmarkError("a client was let go")
    return data


@contextlib.contextmanager
def room(
    contender: Contender, clients: int, history: int = RING, *, calm: bool = False
) -> Iterator[Room]:
    """Start *contender* between a device of ours, at a TCP port, and *clients*, who are all there.

    With *calm* it has done what it does after its start.
    """
    server = SERVERS[contender]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        near, spare = free_ports(2)
        far = listener.getsockname()[1]
        command = server.command(Plan(far, int(near[1]), int(spare[1]), Path(folder), history))
        workers: list[int] = []
        stack.callback(end, workers)  # when the one who started them has ended
        process = stack.enter_context(running(command))

        def enter() -> socket.socket:
            return stack.enter_context(server.enter(near, process))

        first = enter()
        device = stack.enter_context(listener.accept()[0])  # ser2net connects when a client comes
        if (worker := server.worker(process.pid)) != process.pid:
            workers.append(worker)
        place = Room(worker, device, near, [first], enter)
        place.fill(clients)
        if calm:
            wait_calm(contender, worker)
        yield place


def end(workers: list[int]) -> None:
    """End processes that are left: that of conserver's console does not always hear its SIGTERM."""
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def our_command(plan: Plan) -> list[str]:
    """Return the command for a console of ours."""
    return [
        *(*SERVE, "--qmp", f"unix:{plan.folder}/qmp.sock,server=on,wait=off"),
        *("--chardev", f"socket,id=far,host={HOST},port={plan.far}"),
        *("--chardev", f"console,id=users,history={plan.history},max-clients={MOST}"),
        *("--device", "bridge,chardev=far,peer=users"),
        *("--device", f"listener,console=users,host={HOST},port={plan.near}"),
    ]


def ser2net_command(plan: Plan) -> list[str]:
    """Write ser2net's file, and return its command."""
    path = plan.folder / "ser2net.yaml"
    path.write_text(
        f"connection: &console\n  accepter: tcp,{HOST},{plan.near}\n"
        f"  connector: tcp,{HOST},{plan.far}\n  options:\n    max-connections: {MOST}\n"
    )
    return ["ser2net", "-n", "-u", "-c", str(path)]


def conserver_command(plan: Plan) -> list[str]:
    """Write conserver's files, and return its command.

    Clients of a "trusted" address are asked for no password; ``-E``: nor for encryption. The port
    of ``-p`` only tells them where the console is: that of ``-b``, where ours go at once.
    """
    path, passwords = plan.folder / "conserver.cf", plan.folder / "conserver.passwd"
    passwords.touch()
    path.write_text(
        "config * { sslrequired no; redirect no; daemonmode no; }\n"
        f"access * {{ trusted {HOST}; }}\n"
        f'console console {{ master localhost; rw *; logfile "";'
        f" type host; host {HOST}; port {plan.far}; protocol raw; }}\n"
    )
    files = ["-C", str(path), "-P", str(passwords)]
    return ["conserver", *files, "-E", "-M", HOST, "-p", str(plan.spare), "-b", str(plan.near)]


def enter_conserver(near: Address, process: Popen[bytes]) -> socket.socket:
    """Become a client of conserver, as its ``console`` does.

    Seen on the wire: the server says "ok" to who comes and to a login. The first client is then
    "[attached]" and may type, the others are each a "[spy]"; they see the console from "^Ec;"
    on. Raises BenchmarkError for another answer.
    """
    client = connect(near, process)
    _expect(client, b"", "ok")
    _expect(client, b"login bench\r\n", "ok")
    _expect(client, b"call console\r\n", "[attached]", "[spy]")
    _expect(client, b"\x05c;", "[connected]")
    return client


def _expect(client: socket.socket, request: bytes, *good: str) -> None:
    """Send *request* and read the line that comes, but no byte of what comes after it."""
    client.sendall(request)
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := client.recv(1)):
            raise BenchmarkError("a client was let go")
        line += byte
    if (answer := line.decode().strip()) not in good:
        raise BenchmarkError(f"conserver answers {answer}")


def only_child(pid: int) -> int:
    """Return the process that conserver has for our console."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


SERVERS = {
    OURS: Server(our_command),
    SER2NET: Server(ser2net_command),
    CONSERVER: Server(conserver_command, enter_conserver, only_child),
}
