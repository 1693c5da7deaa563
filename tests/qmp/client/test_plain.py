"""The client without an event loop: it says of a server what the other client says."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.qmp.client.messages import MAX_IN_FLIGHT
from trio_chardev.qmp.client.plain import PlainQmpClient, open_plain_client
from trio_chardev.qmp.errors import QmpConnectionError, QmpError, QmpTimeoutError

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
STAMP = {"seconds": 1500000000, "microseconds": 0}
SHORT = 0.05  # seconds, for what never comes
LONG = 30.0

Wire: TypeAlias = "socket.SocketIO | Any"
Script: TypeAlias = Callable[[Wire], None]


def say(wire: Wire, *messages: Any) -> None:
    wire.write(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def hear(wire: Wire) -> dict[str, Any]:
    heard: dict[str, Any] = json.loads(wire.readline())
    return heard


def reply(command: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": command["id"], **(more or {"return": {}})}


def negotiate(wire: Wire) -> None:
    say(wire, GREETING)
    say(wire, reply(hear(wire)))


@contextmanager
def serving(script: Script, path: Path, clients: int = 1) -> Iterator[UnixAddress]:
    """A server that plays *script* with so many clients, and closes their connections."""

    def serve() -> None:
        for _ in range(clients):
            sock, _ = listener.accept()
            with sock, sock.makefile("rwb", 0) as wire:
                script(wire)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield UnixAddress(os.fspath(path))
        thread.join()


@contextmanager
def connected(address: SocketAddress) -> Iterator[PlainQmpClient]:
    with closing(open_plain_client(address, timeout=LONG)) as client:
        yield client


def stay(wire: Wire) -> None:
    """Until the client leaves."""
    while wire.readline():
        pass


# ---------------------------------------------------------------- commands


def test_events_and_a_second_greeting_come_between_commands(tmp_path: Path) -> None:
    def script(wire: Wire) -> None:
        say(wire, GREETING, GREETING)
        say(wire, reply(hear(wire)))
        for value in range(3):
            command = hear(wire)
            assert command["execute"] == "count"
            assert command["arguments"] == {"to": value}
            say(wire, {"event": "E", "timestamp": STAMP}, reply(command, **{"return": value}))

    with serving(script, tmp_path / "q") as address, connected(address) as client:
        assert [client.execute("count", {"to": value}) for value in range(3)] == [0, 1, 2]


def test_many_commands_are_under_way_and_their_replies_in_order(tmp_path: Path) -> None:
    most = 0

    def script(wire: Wire) -> None:
        nonlocal most
        negotiate(wire)
        heard = [hear(wire) for _ in range(MAX_IN_FLIGHT)]
        most = len(heard)
        say(wire, *(reply(command, **{"return": command["arguments"]}) for command in heard[::-1]))
        for _ in range(3):
            command = hear(wire)
            error = {"class": "GenericError", "desc": "no"}
            say(wire, reply(command, error=error))

    with serving(script, tmp_path / "q") as address, connected(address) as client:
        each = [{"n": number} for number in range(MAX_IN_FLIGHT + 3)]
        replies = list(client.execute_each("c", each))
    assert most == MAX_IN_FLIGHT
    assert [got.value for got in replies[:-3]] == each[:-3]
    assert [str(got.error) for got in replies[-3:]] == ["no"] * 3


def test_an_error_has_the_servers_class_and_one_line(tmp_path: Path) -> None:
    def script(wire: Wire) -> None:
        negotiate(wire)
        hear(wire)
        say(wire, {"error": {"class": "CommandNotFound", "desc": "a\nb"}})  # which has no id

    with (
        serving(script, tmp_path / "q") as address,
        connected(address) as client,
        pytest.raises(QmpError, match="^a b$") as raised,
    ):
        client.execute("c")
    assert raised.value.is_unknown_command


def test_a_late_reply_is_not_that_to_the_next_command(tmp_path: Path) -> None:
    is_late = threading.Event()

    def script(wire: Wire) -> None:
        negotiate(wire)
        slow = hear(wire)
        is_late.wait(LONG)
        say(wire, reply(slow, **{"return": "late"}), reply(hear(wire), **{"return": "next"}))

    with serving(script, tmp_path / "q") as address, connected(address) as client:
        with pytest.raises(QmpTimeoutError, match=r"did not answer slow within 0.05 seconds$"):
            client.execute("slow", timeout=SHORT)
        is_late.set()
        assert client.execute("c") == "next"


def test_what_json_lacks_is_not_sent(tmp_path: Path) -> None:
    def script(wire: Wire) -> None:
        negotiate(wire)
        stay(wire)

    with (
        serving(script, tmp_path / "q") as address,
        connected(address) as client,
        pytest.raises(OptionsError, match="can't be sent"),
    ):
        client.execute("c", {"n": float("inf")})


def test_the_last_reply_is_read_though_a_command_can_not_be_sent(tmp_path: Path) -> None:
    """A server that leaves without reading it has said why before."""

    def script(wire: Wire) -> None:
        negotiate(wire)
        error = {"class": "GenericError", "desc": "enough"}
        say(wire, {"error": error})

    with (
        serving(script, tmp_path / "q") as address,
        connected(address) as client,
        pytest.raises(QmpError, match="^enough$"),
    ):
        client.execute("c", {"n": "x" * 10_000_000})


# ---------------------------------------------------------------- the end, in the same words


def no_greeting(wire: Wire) -> None:
    wire.write(b"SSH-2.0-x\r\n")


def http(wire: Wire) -> None:
    say(wire, {"status": 400})


def leaves(_: Wire) -> None:
    pass


def mute(wire: Wire) -> None:
    stay(wire)


def never_negotiates(wire: Wire) -> None:
    say(wire, GREETING)
    stay(wire)


def refuses(wire: Wire) -> None:
    say(wire, GREETING)
    say(wire, reply(hear(wire), error={"class": "GenericError", "desc": "not you"}))


def garbage(wire: Wire) -> None:
    negotiate(wire)
    hear(wire)
    wire.write(b"[1]\r\n")


def nonsense(wire: Wire) -> None:
    negotiate(wire)
    hear(wire)
    wire.write(b'{"a": 1}\r\n')


def no_json(wire: Wire) -> None:
    negotiate(wire)
    hear(wire)
    wire.write(b"}\r\n")


def dies(wire: Wire) -> None:
    negotiate(wire)
    hear(wire)
    wire.write(b'{"ret')


def resets(wire: Wire) -> None:
    negotiate(wire)
    wire.read(1)  # the rest of the command is unread


SCRIPTS = [
    *(no_greeting, http, leaves, mute, never_negotiates, refuses),
    *(garbage, nonsense, no_json, dies, resets),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_both_clients_say_the_same(script: Script, tmp_path: Path) -> None:
    timeout = 0.2 if script in (mute, never_negotiates) else LONG

    async def ask(address: SocketAddress) -> None:
        async with open_qmp_client(address, timeout=timeout) as client:
            await client.execute("c")

    texts = []
    with serving(script, tmp_path / "q", clients=2) as address:
        with pytest.raises((QmpConnectionError, QmpError)) as raised:
            trio.run(ask, address)
        texts.append((type(raised.value), str(raised.value)))
        with pytest.raises((QmpConnectionError, QmpError)) as raised:  # noqa: SIM117 - as above
            with closing(open_plain_client(address, timeout=timeout)) as client:
                client.execute("c")
        texts.append((type(raised.value), str(raised.value)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "address",
    [
        UnixAddress("/nonexistent/q"),
        UnixAddress("x" * 200),
        InetAddress("127.0.0.1", "1"),
        InetAddress("127.0.0.1", "65536"),
        InetAddress("127.0.0.1", "nonsense"),
        InetAddress("x" * 2000, "1"),
        InetAddress("\udcff", "1"),
    ],
    ids=str,
)
def test_both_fail_to_connect_in_the_same_words(address: SocketAddress) -> None:
    async def connect() -> None:
        async with open_qmp_client(address):
            pass

    with pytest.raises(QmpConnectionError) as raised:
        trio.run(connect)
    with pytest.raises(QmpConnectionError, match=f"^{re.escape(str(raised.value))}$"):
        open_plain_client(address)


def test_a_server_with_a_full_queue_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/q")
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(f"{tmp_path}/q")
            with pytest.raises(QmpConnectionError, match="it is busy or stopped, and others wait"):
                open_plain_client(UnixAddress(f"{tmp_path}/q"), timeout=SHORT)


def test_a_resolver_that_hangs_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def hang(*query: Any) -> Any:
        if query[-1] & socket.AI_NUMERICHOST:
            return getaddrinfo(*query)
        answers.wait(LONG)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(QmpConnectionError, match="^Failed to connect to 'hangs:1': Connection"):
            open_plain_client(InetAddress("hangs", "1"), timeout=SHORT)
    finally:
        answers.set()


def test_tcp_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, sock.makefile("rwb", 0) as wire:
                negotiate(wire)
                say(wire, reply(hear(wire), **{"return": "here"}))

        thread = threading.Thread(target=serve)
        thread.start()
        with connected(InetAddress("localhost", str(listener.getsockname()[1]), ipv4=True)) as qmp:
            assert qmp.execute("where") == "here"
        thread.join()


def test_nothing_stays_open_when_it_fails(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with serving(leaves, tmp_path / "q") as address, pytest.raises(QmpConnectionError):
        open_plain_client(address)
    assert len(os.listdir("/proc/self/fd")) == before
