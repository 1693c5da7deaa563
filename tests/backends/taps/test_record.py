"""Recordings: what is in the file, when it is there, and what a change does to it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.disk import Disk, eventually
from tests.places import connect_to, dial
from tests.services import Qmp, running
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.taps import background_file as background, record as module
from trio_chardev.backends.taps.record import PIECE, Recording, open_recording
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError, ChangeFailedError, ChangeRefusedError, OptionsError
from trio_chardev.events import Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.asciicast import Decoder, Entry, Version
from trio_chardev.registry import Registry, open_registry
from trio_chardev.testing import CancelAtStep

Lines = list[tuple[str, str]]


def read(path: Path) -> list[Entry]:
    """The entries of a recording that is whole."""
    decoder = Decoder()
    decoder.receive_data(path.read_bytes())
    entries = []
    while entry := decoder.next_entry():
        entries.append(entry)
    decoder.receive_data(b"")
    assert decoder.next_entry() is None
    assert not decoder.is_torn
    return entries


def first_line(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[0]


def all_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def write(path: Path, text: str) -> None:
    path.write_text(text)


def lines(path: Path) -> Lines:
    """Without the times."""
    return [(entry.code, entry.text) for entry in read(path)]


def joined(path: Path, code: str) -> bytes:
    return b"".join(entry.data for entry in read(path) if entry.code == code)


@pytest.fixture
def cast(tmp_path: Path) -> Path:
    return tmp_path / "x.cast"


@pytest.fixture
def clock() -> MockClock:
    """Stands still; worker threads take no time."""
    return MockClock()


@asynccontextmanager
async def used(options: BackendOptions) -> AsyncIterator[tuple[Registry, Frontend]]:
    """A chardev "c" with a user."""
    async with open_registry() as registry:
        await registry.add("c", options)
        async with registry["c"].attach(be_change=stateless) as frontend:
            yield registry, frontend


@asynccontextmanager
async def served(
    folder: Path, cast: Path | None
) -> AsyncIterator[tuple[Registry, Frontend, trio.SocketStream]]:
    """A chardev on a socket that is recorded, with a user and a peer."""
    options = SocketOptions(addr=UnixAddress(str(folder / "s")), record=str(cast) if cast else None)
    async with used(options) as (registry, frontend), connect_to(registry["c"].backend) as peer:
        await eventually(lambda: frontend.is_open)
        yield registry, frontend, peer


# ---------------------------------------------------------------- what is recorded


async def test_traffic_events_and_times(cast: Path, clock: MockClock) -> None:
    options = RingbufOptions(record=str(cast))
    async with used(options) as (registry, frontend):
        users = registry["c"]._parts.users
        clock.jump(1.25)
        users.data(b"login: ")
        clock.jump(0.5)
        await frontend.send_all(b"root\n")
        registry.send_break("c")
        clock.jump(1)
    header = json.loads(first_line(cast))
    assert header.pop("timestamp") > 1.6e9
    assert header == {"version": 2, "width": 80, "height": 24, "title": "chardev c"}
    assert read(cast) == [
        Entry(0, "m", "OPENED"),
        Entry(1.25, "o", "login: "),
        Entry(1.75, "i", "root\n"),
        Entry(1.75, "m", "BREAK"),
        Entry(2.75, "m", "CLOSED"),
    ]


async def test_a_peer_that_comes_and_goes(tmp_path: Path, cast: Path) -> None:
    async with served(tmp_path, cast) as (_, frontend, peer):
        await peer.send_all(b"\xff\xc3")
        assert await frontend.receive_some() == b"\xff\xc3"
        await peer.aclose()
        await eventually(lambda: not frontend.is_open)
        with pytest.raises(BackendError):
            await frontend.send_all(b"nobody is there")
    markers = [text for code, text in lines(cast) if code == "m"]
    assert markers == ["CLOSED", "OPENED", "CLOSED"]
    assert (joined(cast, "o"), joined(cast, "i")) == (b"\xff\xc3", b"")


async def test_only_what_the_backend_took_is_recorded_in_its_order(
    tmp_path: Path, cast: Path
) -> None:
    """More than a socket's buffer, through a writer that is stuck; the background holds it all."""
    data = os.urandom(1 << 18).hex().encode()
    got = bytearray()
    async with served(tmp_path, cast) as (_, frontend, peer), trio.open_nursery() as nursery:
        nursery.start_soon(frontend.send_all, data)
        while len(got) < len(data):
            got += await peer.receive_some()
    assert got == data
    assert joined(cast, "i") == data


async def test_users_of_a_mux_are_recorded_each_way(tmp_path: Path, cast: Path) -> None:
    async with served(tmp_path, None) as (registry, _, peer):
        await registry["c"].frontends[0].aclose()
        await registry.add("mux", MuxOptions(chardev="c", record=str(cast)))
        async with registry["mux"].attach() as first, registry["mux"].attach() as second:
            await peer.send_all(b"to 2\x01c\x01bto 1")
            await eventually(lambda: first.statistics().bytes_waiting > 0)
            await first.send_all(b"from 1")
            await second.send_all(b"from 2")
    assert lines(cast) == [
        ("m", "OPENED"),
        ("o", "to 2"),
        ("m", "BREAK"),
        ("o", "to 1"),
        ("i", "from 1"),
        ("i", "from 2"),
        ("m", "CLOSED"),
    ]


async def test_without_options_there_is_no_tap_and_no_task() -> None:
    async with used(NullOptions()) as (registry, _):
        assert registry["c"].backend.taps == ()
        assert registry["c"]._parts.users.taps == ()
    request = OpenRequest(id="x", on_event=lambda event: None)
    options = BackendOptions()
    assert open_recording(options, request) is open_recording(options, request)


async def test_a_log_file_and_a_recording_go_together(tmp_path: Path, cast: Path) -> None:
    options = NullOptions(record=str(cast), logfile=str(tmp_path / "log"))
    async with used(options) as (_, frontend):
        await frontend.send_all(b"both")
    assert (tmp_path / "log").read_bytes() == joined(cast, "i") == b"both"


async def test_the_file_is_emptied_when_the_chardev_comes(cast: Path) -> None:
    write(cast, "old")
    async with used(NullOptions(record=str(cast))):
        pass
    assert lines(cast) == [("m", "CLOSED")]


async def test_failure_to_create(tmp_path: Path) -> None:
    async with open_registry() as registry:
        with pytest.raises(BackendError, match=f"Could not create '{tmp_path}': Is a directory$"):
            await registry.add("c", NullOptions(record=str(tmp_path)))


async def test_a_recording_goes_into_what_is_no_file() -> None:
    async with used(NullOptions(record="/dev/null")) as (registry, _):
        await registry.add("d", NullOptions(record="/dev/null"))


async def test_a_file_takes_one_recording_at_a_time(cast: Path) -> None:
    async with used(NullOptions(record=str(cast))) as (registry, frontend):
        await frontend.send_all(b"precious")
        words = f"Could not create '{cast}': it is recorded or replayed now$"
        with pytest.raises(BackendError, match=words):
            await registry.add("d", NullOptions(record=str(cast)))
        with pytest.raises(BackendError, match=f"Could not open '{cast}': it is being recorded$"):
            await registry.add("d", ReplayOptions(path=str(cast)))
        await registry.add("e", NullOptions())
        with pytest.raises(BackendError, match=words):
            await registry.change("e", NullOptions(record=str(cast)))
    assert joined(cast, "i") == b"precious"
    async with open_registry() as registry:
        await registry.add("d", ReplayOptions(path=str(cast)))
        with pytest.raises(BackendError, match=words):
            await registry.add("c", NullOptions(record=str(cast)))


async def test_a_file_system_without_locks_will_do(
    cast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(error, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    error = errno.EOPNOTSUPP
    async with used(NullOptions(record=str(cast))):
        pass
    assert lines(cast) == [("m", "CLOSED")]


# ---------------------------------------------------------------- changes


async def test_the_recording_goes_on_in_the_same_file(cast: Path, clock: MockClock) -> None:
    options = RingbufOptions(record=str(cast))
    async with used(options) as (registry, frontend):
        clock.jump(1)
        await frontend.send_all(b"one")
        await registry.change("c", FileOptions(out="/dev/null", record=str(cast)))
        clock.jump(1)
        await frontend.send_all(b"two")
        await registry.change("c", NullOptions(record=str(cast)))
        await frontend.send_all(b"three")
    assert read(cast) == [
        Entry(0, "m", "OPENED"),
        Entry(1, "i", "one"),
        Entry(1, "m", "CHANGED ringbuf -> file"),
        Entry(2, "i", "two"),
        Entry(2, "m", "CHANGED file -> null"),
        Entry(2, "m", "CLOSED"),
        Entry(2, "i", "three"),
    ]


async def test_it_cannot_go_on_in_another_format(cast: Path) -> None:
    async with used(RingbufOptions(record=str(cast))) as (registry, frontend):
        words = f"recording '{cast}' is in asciicast v2: it can't go on$"
        with pytest.raises(BackendError, match=words):
            await registry.change("c", NullOptions(record=str(cast), record_format="asciicast-v3"))
        await registry.change("c", NullOptions(record=str(cast), record_format="asciicast-v2"))
        await frontend.send_all(b"on")
    assert lines(cast)[-1] == ("i", "on")


async def test_in_v3(cast: Path, clock: MockClock) -> None:
    options = RingbufOptions(record=str(cast), record_format="asciicast-v3")
    async with used(options) as (registry, frontend):
        clock.jump(1.25)
        registry["c"]._parts.users.data(b"login: ")
        clock.jump(0.5)
        await registry.change("c", NullOptions(record=str(cast), record_format="asciicast-v3"))
        clock.jump(2)
        await frontend.send_all(b"root\n")
    header, *events = map(json.loads, all_lines(cast))
    assert header.pop("timestamp") > 1.6e9
    size = {"cols": 80, "rows": 24}
    assert header == {"version": 3, "term": size, "title": "chardev c"}
    assert events == [
        [0, "m", "OPENED"],
        [1.25, "o", "login: "],
        [0.5, "m", "CHANGED ringbuf -> null"],
        [0, "m", "CLOSED"],
        [2, "i", "root\n"],
    ]


@pytest.mark.parametrize("record", [None, "other.cast"])
async def test_else_the_recording_ends_with_the_change(
    record: str | None, cast: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.cast"
    async with used(RingbufOptions(record=str(cast))) as (registry, frontend):
        await frontend.send_all(b"one")
        await registry.change("c", NullOptions(record=str(other) if record else None))
        await frontend.send_all(b"two")
    assert lines(cast) == [("m", "OPENED"), ("i", "one"), ("m", "CHANGED ringbuf -> null")]
    assert not record or lines(other) == [("m", "CLOSED"), ("i", "two")]


async def test_what_the_old_backend_had_received_is_recorded_before_the_change(
    tmp_path: Path, cast: Path
) -> None:
    async with served(tmp_path, cast) as (registry, frontend, peer):
        data = b"".join(b"%07d," % i for i in range(20_000))  # more than the queue takes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, data)
            await wait_all_tasks_blocked(0.01)
            got = b""
            await registry.change("c", RingbufOptions(record=str(cast)))
            nursery.cancel_scope.cancel()
        while more := frontend.take_ready():
            got += more
    assert joined(cast, "o") == got
    assert [line for line in lines(cast) if line[0] == "m"][2][1].startswith("CHANGED unix:")
    assert data.startswith(got)


async def test_a_change_that_fails_harms_no_recording(cast: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.cast"
    write(other, "precious")

    async def refuse(backend: Controls) -> None:
        raise ValueError

    async with open_registry() as registry:
        await registry.add("c", RingbufOptions(record=str(cast)))
        async with registry["c"].attach(be_change=refuse) as frontend:
            await frontend.send_all(b"one")
            for record in (cast, other):
                with pytest.raises(ChangeFailedError):
                    await registry.change("c", NullOptions(record=str(record)))
            await frontend.send_all(b"two")
    assert lines(cast) == [("m", "OPENED"), ("i", "one"), ("i", "two"), ("m", "CLOSED")]
    assert other.read_text() == "precious"


async def test_it_goes_on_behind_a_backend_that_died(cast: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cast"
    write(broken, '{"version": 2}\n[0, "o", "last words"]\nbroken\n')
    options = ReplayOptions(path=str(broken), record=str(cast))
    async with used(options) as (registry, frontend):
        await eventually(lambda: not frontend.is_open)
        await registry.change("c", RingbufOptions(record=str(cast)))
        await frontend.send_all(b"two")
    assert lines(cast) == [
        ("m", "OPENED"),
        ("o", "last words"),
        ("m", "CLOSED"),
        ("m", f"CHANGED replay:{broken} -> ringbuf"),
        ("m", "OPENED"),
        ("i", "two"),
        ("m", "CLOSED"),
    ]


@attrs.define
class Fire:
    """A change of a recorded chardev to the same file, cancelled at step *k*."""

    folder: Path
    k: int
    when: str
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    changed: bool = False

    async def main(self) -> bool:
        """True if step k was reached."""
        cast = self.folder / f"{self.when}{self.k}.cast"
        injector = CancelAtStep(self.k, self.when, self.scope)
        trio.lowlevel.add_instrument(injector)
        sent = b"".join(b"%d," % i for i in range(40))
        async with used(RingbufOptions(record=str(cast))) as (registry, frontend):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.send, frontend, sent)
                injector.armed = True
                with self.scope:
                    await registry.change("c", NullOptions(record=str(cast)))
                    self.changed = True
                injector.armed = False
            # Whatever came of it, the next change is of one that is whole.
            before = registry["c"].backend.filename
            assert (before == "null") is self.changed
            await registry.change("c", RingbufOptions(record=str(cast)))
        trio.lowlevel.remove_instrument(injector)
        assert joined(cast, "i") == sent
        markers = [text for code, text in lines(cast) if code == "m"]
        first = ["CHANGED ringbuf -> null", "CLOSED"] if self.changed else []
        last = ["OPENED"] if self.changed else []
        assert markers == ["OPENED", *first, f"CHANGED {before} -> ringbuf", *last, "CLOSED"]
        return injector.fired

    async def send(self, frontend: Frontend, data: bytes) -> None:
        for piece in data.split(b",")[:-1]:
            await frontend.send_all(piece + b",")


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_a_change_leaves_a_whole_recording(
    when: str, tmp_path: Path
) -> None:
    outcomes = set()
    for k in range(1, 1000):
        fire = Fire(tmp_path, k, when)
        fired = trio.run(fire.main)
        outcomes.add(fire.changed)
        if not fired:
            break
    assert outcomes == {False, True}
    assert k > 5


# ---------------------------------------------------------------- trouble with the disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def make_recording(path: Path, version: Version = 2) -> Recording:
    request = OpenRequest(id="c", on_event=lambda event: None)
    output = await module._open_output(str(path), NullOptions(), request, None)
    return Recording("c", str(path), output, None, version)


@asynccontextmanager
async def recording(path: Path, version: Version = 2) -> AsyncIterator[Recording]:
    """In place."""
    it = await make_recording(path, version)
    async with it.background.running():
        it.activate()
        it.event(Event.OPENED)
        try:
            yield it
        finally:
            it.close()


async def test_a_slow_disk_holds_up_nobody_and_what_is_lost_is_told(
    cast: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.go.clear()
    async with recording(cast) as it:
        await disk.wait_calls(1)
        for _ in range(100):
            it.received(b"x" * PIECE)
        assert len(it.background.pending) <= background.MAX_PENDING
        assert 0 < it.background.dropped < 100
        disk.go.set()
        await eventually(lambda: not it.background.pending)
        it.received(b"again")
    assert f"recording '{cast}' lacks {it.background.dropped} events by now" in caplog.text
    entries = lines(cast)
    assert len(joined(cast, "o")) == (100 - it.background.dropped) * PIECE + 5
    assert entries[-3:] == [
        ("m", f"LOST {it.background.dropped} events"),
        ("o", "again"),
        ("m", "CLOSED"),
    ]


async def test_a_large_write_is_lost_in_part_not_in_all(cast: Path) -> None:
    async with recording(cast) as it:
        it.sent(memoryview(b"x" * (2 * background.MAX_PENDING)))
    size = len(joined(cast, "i"))
    assert 0.9 * background.MAX_PENDING < size < background.MAX_PENDING
    assert size % PIECE == 0


async def test_a_full_disk_is_told_and_the_header_comes_when_there_is_room(
    cast: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.error = OSError(errno.ENOSPC, "full")
    async with recording(cast) as it:
        await disk.wait_calls(1)
        await wait_all_tasks_blocked(0.01)
        it.received(b"lost")
        await disk.wait_calls(2)
        await wait_all_tasks_blocked(0.01)
        disk.error = None
        it.received(b"kept")
    assert f"Could not write to recording '{cast}': No space left on device" in caplog.text
    assert lines(cast)[1:] == [("o", "kept"), ("m", "CLOSED")]
    [(_, told), *_] = lines(cast)
    assert told.startswith("LOST ")


async def test_in_v3_what_is_lost_makes_what_follows_no_sooner(
    cast: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0
    monkeypatch.setattr(module._Tape, "now", property(lambda tape: now))
    async with recording(cast, 3) as it:
        now += 1
        it.received(b"kept")
        await disk.wait_calls(1)
        await wait_all_tasks_blocked(0.01)
        disk.error = OSError(errno.ENOSPC, "full")
        now += 2
        it.received(b"not written")
        await disk.wait_calls(2)
        await wait_all_tasks_blocked(0.01)
        disk.error = None
        now += 4
        it.sent(memoryview(b"x" * (2 * background.MAX_PENDING)))  # there is not room for all
        await eventually(lambda: not it.background.pending)
        now += 8
        it.received(b"end")
    entries = [(entry.time, entry.code, entry.text[:4]) for entry in read(cast)]
    assert entries[1] == (1, "o", "kept")
    assert entries[2:4] == [(7, "m", "LOST"), (7, "i", "xxxx")]
    assert entries[-3:] == [(15, "m", "LOST"), (15, "o", "end"), (15, "m", "CLOS")]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond *size* fails in the midst, as on a disk that becomes full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_written_of_a_line_that_did_not_fit_is_taken_back(cast: Path) -> None:
    output = module._LinesOutput(os.open(cast, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    output.write(bytearray(b"a line\n"))
    with largest_file(10), pytest.raises(OSError, match="File too large"):
        output.write(bytearray(b"another\n"))
    assert cast.read_bytes() == b"a line\n"
    output.write(bytearray(b"another\n"))
    output.close()
    assert cast.read_bytes() == b"a line\nanother\n"


def test_a_service_that_is_killed_leaves_what_it_had_written(tmp_path: Path, cast: Path) -> None:
    chardev = f"socket,id=c,path={tmp_path}/s,server=on,wait=off,record={cast}"
    monitor = f"unix:{tmp_path}/qmp,server=on,wait=off"
    with running("--chardev", chardev, "--qmp", monitor) as service, Qmp(tmp_path / "qmp"):
        sent = b"".join(b"%05d " % at for at in range(0, 30_000, 6))  # for which there is room
        with dial(UnixAddress(str(tmp_path / "s"))) as peer:
            peer.sendall(sent)
            deadline = time.monotonic() + 10
            while cast.stat().st_size < 20_000:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            service.process.send_signal(signal.SIGKILL)
            service.process.wait()
    decoder = Decoder()
    decoder.receive_data(cast.read_bytes())
    data = b""
    while entry := decoder.next_entry():
        data += entry.data if entry.code == "o" else b""
    assert len(data) > 10_000
    assert sent.startswith(data)


# ---------------------------------------------------------------- rr


async def test_a_deterministic_chardev_is_neither_changed_nor_removed(cast: Path) -> None:
    async with open_registry() as registry:
        await registry.add("r", NullOptions(record=str(cast), rr="record"))
        await refuses(registry, "r")
    async with open_registry() as registry:
        await registry.add("p", ReplayOptions(path=str(cast), rr="play"))
        await refuses(registry, "p")


async def refuses(registry: Registry, id: str) -> None:
    words = f"^Chardev '{id}' cannot be changed in record/replay mode$"
    with pytest.raises(ChangeRefusedError, match=words):
        await registry.change(id, NullOptions())
    words = f"^Chardev '{id}' cannot be unplugged in record/replay mode$"
    with pytest.raises(ChangeRefusedError, match=words):
        await registry.remove(id)


async def test_a_change_can_make_a_chardev_deterministic(cast: Path) -> None:
    async with used(NullOptions()) as (registry, _):
        await registry.change("c", NullOptions(record=str(cast), rr="record"))
        with pytest.raises(ChangeRefusedError, match="in record/replay mode$"):
            await registry.change("c", NullOptions())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (NullOptions(rr="record"), "rr=record needs record=FILE"),
        (NullOptions(rr="play"), "rr=play needs a chardev of kind replay"),
        (NullOptions(record_format="asciicast-v3"), "record-format needs record=FILE"),
        (NullOptions(record="x", logfile="x"), "record and logfile cannot be the same file"),
    ],
)
async def test_what_does_not_go_together(options: BackendOptions, words: str) -> None:
    async with open_registry() as registry:
        with pytest.raises(OptionsError, match=f"^Failed to add chardev 'c': {words}$"):
            await registry.add("c", options)
        await registry.add("c", NullOptions())
        with pytest.raises(OptionsError, match=f"{words}$"):
            await registry.change("c", options)
