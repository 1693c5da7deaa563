"""Relays to be measured: each joins a near side, where a client connects, with a far side.

Each contender gets the same two ends, made by us; only what joins them differs.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import attrs

from bench.contenders import OURS, SER2NET, SOCAT_LARGE, Contender
from bench.model import BenchmarkError
from bench.processes import SERVE, START_TIMEOUT, connect, running

Near = Literal["unix", "tcp"]
Far = Literal["unix", "tcp", "pty", "serial"]
Address = str | tuple[str, int]
"""A path, or a host and a port."""

HOST = "127.0.0.1"
KNOCK = b"?"
QUIET = 0.1  # seconds without a byte, after which the line is taken to be quiet


@attrs.frozen
class Link:
    """What a relay is to join."""

    near: Near
    far: Far
    near_at: Address
    """The address at which the relay listens."""

    far_at: Address
    """The address that it connects to, the PTY that it makes, or the tty that it opens."""

    folder: str


@attrs.frozen
class Ends:
    """Our ends of a running relay, as file descriptors."""

    near: int
    far: int


@attrs.frozen
class Relay(Ends):
    """A running relay with our ends."""

    pid: int


def serve_command(link: Link) -> list[str]:
    """Return the command of our bridge."""
    far = {
        "unix": f"socket,id=far,path={link.far_at}",
        "tcp": f"socket,id=far,host={HOST},port={link.far_at[1]}",
        "pty": f"pty,id=far,path={link.far_at}",
        "serial": f"serial,id=far,path={link.far_at}",
    }[link.far]
    near = f"path={link.near_at}" if link.near == "unix" else f"host={HOST},port={link.near_at[1]}"
    chardevs = ["--chardev", far, "--chardev", f"socket,id=near,{near},server=on,wait=off"]
    qmp = ["--qmp", f"unix:{link.folder}/qmp.sock,server=on,wait=off"]
    return [*SERVE, *qmp, *chardevs, "--device", "bridge,id=relay,chardev=far,peer=near"]


def socat_command(link: Link, *options: str) -> list[str]:
    """Return the command of socat(1), with its addresses."""
    near = (
        f"UNIX-LISTEN:{link.near_at}"
        if link.near == "unix"
        else f"TCP-LISTEN:{link.near_at[1]},bind={HOST},reuseaddr"
    )
    far = {
        "unix": f"UNIX-CONNECT:{link.far_at}",
        "tcp": f"TCP-CONNECT:{HOST}:{link.far_at[1]}",
        "pty": f"PTY,link={link.far_at},raw,echo=0",
        "serial": f"OPEN:{link.far_at},raw,echo=0",
    }[link.far]
    return ["socat", *options, near, far]


def ser2net_command(*links: Link) -> list[str]:
    """Return the command of ser2net(8), with its defaults, for several links in one process."""
    path = Path(links[0].folder, "ser2net.yaml")
    path.write_text("".join(ser2net_connection(*each) for each in enumerate(links)))
    return ["ser2net", "-n", "-u", "-c", str(path)]


def ser2net_connection(number: int, link: Link) -> str:
    """Return the part of ser2net.yaml(5) for one link; it makes no PTY."""
    far = {
        "tcp": f"tcp,{HOST},{link.far_at[1]}",
        "serial": f"serialdev(nouucplock=true),{link.far_at},115200n81,local,nobreak",
    }[link.far]
    near = f"tcp,{HOST},{link.near_at[1]}"
    return f"connection: &relay{number}\n  accepter: {near}\n  connector: {far}\n"


def command_of(contender: Contender, link: Link) -> list[str]:
    """Return the command that starts *contender*."""
    if contender == OURS:
        return serve_command(link)
    if contender == SER2NET:
        return ser2net_command(link)
    return socat_command(link, *(["-b262144"] if contender == SOCAT_LARGE else []))


@contextlib.contextmanager
def relay(contender: Contender, near: Near, far: Far) -> Iterator[Relay]:
    """Start *contender* as a relay and give both ends, when bytes go both ways."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        far_at, open_far = FAR_SIDES[far](folder, stack)
        link = Link(
            near, far, f"{folder}/near.sock" if near == "unix" else free_port(), far_at, folder
        )
        process = stack.enter_context(running(command_of(contender, link)))
        client = stack.enter_context(connect(link.near_at, process))
        found = Relay(client.fileno(), open_far(), process.pid)
        settle(found)
        yield found


def free_port() -> Address:
    """Return a port that is not in use now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[Address]:
    """Return different ports that are not in use now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [sock.getsockname() for sock in socks]


FarSide = Callable[[str, contextlib.ExitStack], tuple[Address, Callable[[], int]]]
"""Makes our far end in a folder: its address for the relay, and what gives the descriptor."""


def unix_far(folder: str, stack: contextlib.ExitStack) -> tuple[Address, Callable[[], int]]:
    """Listen at a path, to which the relay connects."""
    path = f"{folder}/far.sock"
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    return path, lambda: stack.enter_context(listener.accept()[0]).fileno()


def tcp_far(_folder: str, stack: contextlib.ExitStack) -> tuple[Address, Callable[[], int]]:
    """Listen at a port, to which the relay connects."""
    listener = stack.enter_context(socket.create_server((HOST, 0)))
    return listener.getsockname(), lambda: stack.enter_context(listener.accept()[0]).fileno()


def pty_far(folder: str, stack: contextlib.ExitStack) -> tuple[Address, Callable[[], int]]:
    """Have the relay make a PTY with a link to it, which we open."""
    path = f"{folder}/far.pty"

    def open_far() -> int:
        until = time.monotonic() + START_TIMEOUT
        while not Path(path).exists():
            if time.monotonic() > until:
                raise BenchmarkError("it has made no PTY")
            time.sleep(0.002)
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        stack.callback(os.close, fd)
        tty.setraw(fd)
        return fd

    return path, open_far


def serial_far(_folder: str, stack: contextlib.ExitStack) -> tuple[Address, Callable[[], int]]:
    """Make a PTY, of which the relay opens the slave as a serial line; we use the master."""
    master, slave = pty.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    tty.setraw(slave)
    return os.ttyname(slave), lambda: master


FAR_SIDES: dict[Far, FarSide] = {
    "unix": unix_far,
    "tcp": tcp_far,
    "pty": pty_far,
    "serial": serial_far,
}


def settle(ends: Ends) -> None:
    """Send from both sides until something comes, and wait until nothing more does.

    A relay may open its far side late, and flush what has come before.
    """
    for source, sink in ((ends.far, ends.near), (ends.near, ends.far)):
        until = time.monotonic() + START_TIMEOUT
        while True:
            os.write(source, KNOCK)
            if is_readable(sink):
                break
            if time.monotonic() > until:
                raise BenchmarkError("it relays nothing")
        while is_readable(sink):
            if not os.read(sink, 4096):
                raise EOFError("the relay has left")


def is_readable(fd: int) -> bool:
    """Does a byte come soon?"""
    poll = select.poll()  # select(2) knows no descriptor above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(QUIET * 1000))
