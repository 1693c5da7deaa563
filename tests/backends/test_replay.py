"""Recordings that are replayed: when input comes, and what the frontend must send."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio
import trio.lowlevel
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.disk import eventually, is_held_open
from tests.peers import need
from trio_chardev import files
from trio_chardev.backends import replay_file
from trio_chardev.backends.ahead import PIECE
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.replay import ReplayOptions, parse_speed
from trio_chardev.backends.replay_script import LINES_AT_ONCE
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendDisconnectedError, BackendError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.protocols.asciicast import Decoder, Entry
from trio_chardev.registry import Registry, open_registry

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED

Line = tuple[float, str, str]


def text_of(*lines: Line) -> str:
    """A recording."""
    header = '{"version": 2, "width": 80, "height": 24}\n'
    return header + "".join(json.dumps(line) + "\n" for line in lines)


def write(path: Path, text: str) -> None:
    path.write_text(text)


@attrs.define
class Viewer:
    """Sees what is played, and when."""

    frontend: Frontend = attrs.field(init=False)
    registry: Registry = attrs.field(init=False)
    begin: float = attrs.Factory(trio.current_time)
    seen: list[tuple[float, bytes | BackendEvent]] = attrs.Factory(list)

    @property
    def now(self) -> float:
        return trio.current_time() - self.begin

    def on_receive(self, data: bytes) -> int:
        self.seen.append((self.now, data))
        return len(data)

    def on_event(self, event: BackendEvent) -> None:
        self.seen.append((self.now, event))

    @property
    def items(self) -> list[bytes | BackendEvent]:
        return [item for _, item in self.seen]

    async def wait_for(self, item: bytes | BackendEvent) -> None:
        """By Trio's clock, which jumps."""
        with trio.fail_after(1e6):
            while item not in self.items:  # noqa: ASYNC110
                await trio.sleep(0.25)


@pytest.fixture
def cast(tmp_path: Path) -> Path:
    return tmp_path / "x.cast"


@asynccontextmanager
async def viewing(cast: Path, *lines: Line, **options: object) -> AsyncIterator[Viewer]:
    """A chardev "c" that plays *lines*."""
    if lines:
        write(cast, text_of(*lines))
    viewer = Viewer()
    async with open_registry() as viewer.registry:
        made = ReplayOptions(path=str(cast), **options)  # type: ignore[arg-type]
        await viewer.registry.add("c", NullOptions())
        chardev = viewer.registry["c"]
        viewer.frontend = chardev.attach(
            be_change=stateless, on_receive=viewer.on_receive, on_event=viewer.on_event
        )
        await viewer.registry.change("c", made)
        yield viewer


# ---------------------------------------------------------------- timing

TALK: tuple[Line, ...] = (
    (0.5, "o", "login: "),
    (3.5, "i", "root\n"),
    (3.75, "o", "Password: "),
    (5.0, "m", "BREAK"),
    (5.0, "r", "100x50"),
    (7.0, "o", "$ "),
    (8.0, "m", "a marker of somebody else"),
)


async def test_all_comes_when_it_came(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK) as viewer:
        assert viewer.registry.query()[0].filename == f"replay:{cast}"
        await viewer.wait_for(CLOSED)
    assert viewer.seen == [
        (0, OPENED),
        (0.5, b"login: "),
        (3.75, b"Password: "),
        (5, BREAK),
        (7, b"$ "),
        (8, CLOSED),
    ]


@pytest.mark.parametrize(("speed", "times"), [("0.5", [1, 7.5, 14]), ("2", [0.25, 1.875, 3.5])])
async def test_speed(speed: str, times: list[float], cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK, speed=speed) as viewer:
        await viewer.wait_for(CLOSED)
    assert [time for time, item in viewer.seen if isinstance(item, bytes)] == times


async def test_without_waiting(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK, speed="max") as viewer:
        await viewer.wait_for(CLOSED)
    assert viewer.seen[-1] == (0, CLOSED)
    assert viewer.items == [OPENED, b"login: ", b"Password: ", BREAK, b"$ ", CLOSED]


async def test_at_the_end_nobody_is_there(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK) as viewer:
        await viewer.frontend.send_all(b"not compared")
        await viewer.wait_for(CLOSED)
        assert not viewer.frontend.is_open
        with pytest.raises(BackendDisconnectedError, match=f"nobody is at replay:{cast}"):
            await viewer.frontend.send_all(b"x")


async def test_a_peer_that_came_and_went(cast: Path, autojump_clock: MockClock) -> None:
    """It begins as it was; what is not heard is not said twice."""
    lines: list[Line] = [(0, "m", "CLOSED"), (1, "m", "OPENED"), (2, "o", "a"), (3, "m", "CLOSED")]
    lines += [(4, "m", "OPENED"), (5, "m", "CHANGED null -> pty"), (5, "m", "OPENED")]
    async with viewing(cast, *lines) as viewer:
        with pytest.raises(BackendDisconnectedError):
            await viewer.frontend.send_all(b"too soon")
        await trio.sleep(10)
    assert viewer.seen == [(1, OPENED), (2, b"a"), (3, CLOSED), (4, OPENED), (5, CLOSED)]


async def test_a_loop(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, (1, "o", "a"), (2, "m", "CLOSED"), loop=True) as viewer:
        await trio.sleep(3.5)
    a_round = [(1, b"a"), (2, CLOSED), (2, OPENED), (3, b"a")]
    assert viewer.seen == [(0, OPENED), *a_round]


@pytest.mark.parametrize("lines", [(), ((0.0, "m", "BREAK"),), ((5.0, "i", "x"),)])
async def test_a_loop_in_which_nothing_would_come_ends(
    lines: tuple[Line, ...], cast: Path, autojump_clock: MockClock
) -> None:
    write(cast, text_of())
    async with viewing(cast, *lines, loop=True, speed="max") as viewer:
        await viewer.wait_for(CLOSED)


async def test_a_loop_without_waiting_gives_others_a_turn(cast: Path) -> None:
    async with viewing(cast, (1, "o", "a"), loop=True, speed="max") as viewer:
        with trio.fail_after(5):
            while len(viewer.seen) < 1000:  # noqa: ASYNC110 - the turns are what is tested
                await trio.lowlevel.checkpoint()


async def test_a_user_that_does_not_read_holds_it_up(
    cast: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_file, "PIECE", 1 << 20)  # so that no thread reads while time jumps
    lines: list[Line] = [(i, "o", "x" * 10_000) for i in range(20)]
    write(cast, text_of(*lines))
    async with open_registry() as registry:
        await registry.add("c", ReplayOptions(path=str(cast)))
        async with registry["c"].attach() as frontend:
            await trio.sleep(100)
            assert frontend.statistics().bytes_waiting == 1 << 16
            assert frontend.is_open
            size = 0
            begin = trio.current_time()
            while size < 200_000:
                size += len(await frontend.receive_some())
            assert trio.current_time() == begin


async def test_it_begins_when_it_is_in_place(cast: Path, autojump_clock: MockClock) -> None:
    write(cast, text_of((1, "o", "a"), (9, "o", "b")))
    async with open_registry() as registry:
        await registry.add("c", RingbufOptions())
        viewer = Viewer()

        async def slowly(backend: object) -> None:
            await trio.sleep(5)

        registry["c"].attach(be_change=slowly, on_receive=viewer.on_receive)
        await registry.change("c", ReplayOptions(path=str(cast)))
        await trio.sleep(2)
        await registry.change("c", RingbufOptions())
        await trio.sleep(20)
    assert viewer.seen == [(6, b"a")]


# ---------------------------------------------------------------- what the frontend sends


async def test_strict_waits_for_what_was_sent_and_all_that_follows_is_later(
    cast: Path, autojump_clock: MockClock
) -> None:
    async with viewing(cast, *TALK, expect="strict") as viewer:
        await trio.sleep(10)
        await viewer.frontend.send_all(b"ro")
        await trio.sleep(10)
        await viewer.frontend.send_all(b"ot\n")
        await viewer.wait_for(CLOSED)
    assert viewer.seen[2:] == [(20.25, b"Password: "), (21.5, BREAK), (23.5, b"$ "), (24.5, CLOSED)]


async def test_who_sends_sooner_changes_no_times(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK, expect="strict") as viewer:
        await viewer.frontend.send_all(b"root\n")
        await viewer.wait_for(CLOSED)
    assert viewer.seen[2] == (3.75, b"Password: ")


async def test_strict_without_waiting_is_a_dialogue(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, *TALK, expect="strict", speed="max") as viewer:
        await trio.sleep(1)
        assert viewer.items == [OPENED, b"login: "]
        await viewer.frontend.send_all(b"root\n")
        await trio.lowlevel.checkpoint()
        await viewer.wait_for(CLOSED)
    assert viewer.seen[-1] == (1, CLOSED)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"roar\n", "b'ar\\n' was sent, but b'ot\\n' was recorded, after 2 bytes"),
        (b"root\nls", "b'ls' was sent, but no more was recorded"),
        (
            b"x" * 100,
            f"{b'x' * 40 + b'...'!r} was sent, but b'root\\n' was recorded, after 0 bytes",
        ),
    ],
)
async def test_strict_breaks_off(
    sent: bytes, words: str, cast: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    words = f"chardev 'c' departs from recording '{cast}': {words}"
    async with viewing(cast, *TALK, expect="strict") as viewer:
        with pytest.raises(BackendError, match=f"^{re.escape(words)}$") as error:
            await viewer.frontend.send_all(sent)
        assert not isinstance(error.value, BackendDisconnectedError)
        assert words in caplog.text
        assert viewer.items == [OPENED, CLOSED]
        await trio.sleep(20)
        assert viewer.items == [OPENED, CLOSED]
        with pytest.raises(BackendDisconnectedError):
            await viewer.frontend.send_all(b"x")
        await viewer.registry.change("c", RingbufOptions())
        await viewer.frontend.send_all(b"x")


async def test_warn_tells_the_first_difference_and_goes_on(
    cast: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with viewing(cast, *TALK, expect="warn") as viewer:
        await viewer.frontend.send_all(b"root\r")
        await viewer.frontend.send_all(b"x")
        await viewer.wait_for(CLOSED)
    assert viewer.seen[2] == (3.75, b"Password: ")
    [record] = caplog.records
    assert record.message.endswith(r"b'\r' was sent, but b'\n' was recorded, after 4 bytes")


async def test_in_a_loop_the_same_is_expected_again(cast: Path, autojump_clock: MockClock) -> None:
    async with viewing(cast, (1, "i", "ab"), (2, "o", "x"), expect="strict", loop=True) as viewer:
        await viewer.frontend.send_all(b"aba")
        await trio.sleep(10)
        assert viewer.items.count(b"x") == 1
        await viewer.frontend.send_all(b"b")
        await viewer.wait_for(b"x")
        with pytest.raises(BackendError):
            await viewer.frontend.send_all(b"ax")
    assert [time for time, item in viewer.seen if item == b"x"] == [2]


async def test_in_a_loop_without_input_nothing_may_be_sent(cast: Path) -> None:
    async with viewing(cast, (1, "o", "x"), expect="strict", loop=True) as viewer:
        with pytest.raises(BackendError, match="but no more was recorded$"):
            await viewer.frontend.send_all(b"a")


@given(
    pieces=st.lists(st.text("ab\u20ac", min_size=1, max_size=9), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 50), max_size=6),
)
async def test_how_the_bytes_are_cut_makes_no_difference(
    pieces: list[str], cuts: list[int]
) -> None:
    data = "".join(pieces).encode()
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    lines: list[Line] = [(0, "i", piece) for piece in pieces]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.cast")
        async with viewing(path, *lines, (0, "o", "x"), expect="strict", speed="max") as viewer:
            for start, end in pairwise(places):
                await wait_all_tasks_blocked()
                assert viewer.items == [OPENED]
                await viewer.frontend.send_all(data[start:end])
            await wait_all_tasks_blocked()
            assert viewer.items == [OPENED, b"x", CLOSED]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "Could not open '{}': No such file or directory"),
        ("", "Could not replay '{}': it is empty"),
        ('{"version": 1}\n', "Could not replay '{}': it is not in the format asciicast v2 or v3"),
        (text_of() + "[]\n", "Could not replay '{}': line 2 is damaged"),
    ],
)
async def test_what_cannot_be_played_does_not_open(
    text: str | None, words: str, cast: Path
) -> None:
    if text is not None:
        write(cast, text)
    words = f"^Failed to add chardev 'c': {words.format(cast)}$"
    async with open_registry() as registry:
        with pytest.raises(BackendError, match=words):
            await registry.add("c", ReplayOptions(path=str(cast)))


@pytest.mark.parametrize("path", ["/dev/null", "/dev"])
async def test_only_files_are_played(path: str) -> None:
    async with open_registry() as registry:
        with pytest.raises(BackendError, match=f"Could not open '{path}': Not a regular file$"):
            await registry.add("c", ReplayOptions(path=path))


@pytest.mark.parametrize("speed", ["0", "-1", "inf", "nan", "fast", ""])
async def test_what_is_no_speed(speed: str, cast: Path) -> None:
    with pytest.raises(
        OptionsError, match=f"^replay: speed must be a number above 0, or max, not '{speed}'$"
    ):
        parse_speed(speed)


async def test_damage_further_on_ends_it(
    cast: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    write(cast, text_of((1, "o", "a")) + "torn\n" + '[2, "o", "b"]\n')
    async with viewing(cast) as viewer:
        await viewer.wait_for(CLOSED)
    assert viewer.items == [OPENED, b"a", CLOSED]
    assert f"Could not replay '{cast}': line 3 is damaged" in caplog.text


async def test_a_torn_last_line_is_skipped_with_a_warning(
    cast: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    write(cast, text_of((1, "o", "a")) + '[2, "o", "b')
    async with viewing(cast) as viewer:
        await viewer.wait_for(CLOSED)
    assert viewer.items == [OPENED, b"a", CLOSED]
    assert [record.message for record in caplog.records] == [
        f"recording '{cast}': its last line is torn"
    ]


async def test_a_recording_that_lacks_something_says_so(
    cast: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with viewing(cast, (1, "m", "LOST 7 events")) as viewer:
        await viewer.wait_for(CLOSED)
    assert f"recording '{cast}' is not whole: LOST 7 events" in caplog.text


@pytest.mark.parametrize("speed", ["1", "4"])
async def test_what_asciinema_3_has_recorded(
    speed: str, cast: Path, autojump_clock: MockClock
) -> None:
    write(
        cast,
        '{"version":3,"term":{"cols":80,"rows":24,"type":"xterm-256color"},"timestamp":1}\n'
        '[1.0,"o","login: "]\n# he thinks\n[2.0,"i","root\\n"]\n[1.0,"r","90x30"]\n'
        '[0.0,"m",""]\n[4.0,"o","bye"]\n[2.0,"x","0"]\n',
    )
    async with viewing(cast, speed=speed) as viewer:
        await viewer.wait_for(CLOSED)
    times = [(time * float(speed), item) for time, item in viewer.seen]
    assert times == [(0, OPENED), (1, b"login: "), (8, b"bye"), (10, CLOSED)]


# ---------------------------------------------------------------- others have their turn

SILENT = {
    "markers": json.dumps([0, "m", "x"]),
    "input": json.dumps([0, "i", "x"]),
    "empty output": json.dumps([0, "o", ""]),
    "blank lines": "",
    "comments": "#",
}


async def longest_turn(work: Callable[[], Awaitable[object]]) -> tuple[int, int]:
    """Lines that were looked at in the longest turn while *work* is done, and turns of others."""
    most = turns = 0

    async def others() -> None:
        nonlocal most, turns
        while True:
            before = LOOKED.count
            await trio.lowlevel.checkpoint()
            most = max(most, LOOKED.count - before)
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await work()
        nursery.cancel_scope.cancel()
    return most, turns


class Looked:
    """Counts the entries that are read."""

    count = 0

    def next_entry(self, decoder: Decoder) -> Entry | None:
        entry = NEXT_ENTRY(decoder)
        self.count += 1
        return entry


LOOKED = Looked()
NEXT_ENTRY = Decoder.next_entry


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    LOOKED.count = 0
    monkeypatch.setattr(Decoder, "next_entry", lambda decoder: LOOKED.next_entry(decoder))


@pytest.mark.parametrize("what", SILENT)
async def test_lines_without_output_give_others_a_turn(
    what: str, cast: Path, counted: None
) -> None:
    write(cast, '{"version": 3}\n' + (SILENT[what] + "\n") * 20_000 + '[0, "o", "end"]\n')
    async with viewing(cast, speed="max") as viewer:
        most, turns = await longest_turn(lambda: viewer.wait_for(b"end"))
    assert most <= 4 * LINES_AT_ONCE  # who waits and who looks again
    assert what in ("blank lines", "comments") or turns >= 19_000 / LINES_AT_ONCE


@pytest.mark.parametrize("expect", ["warn", "strict"])
async def test_looking_for_what_is_to_be_sent_gives_others_a_turn(
    expect: str, cast: Path, counted: None
) -> None:
    lines = json.dumps([0, "m", "x"]) + "\n"
    write(cast, '{"version": 3}\n[9, "o", ""]\n' + lines * 20_000 + '[0, "i", "ab"]\n')
    async with viewing(cast, expect=expect) as viewer:
        most, turns = await longest_turn(lambda: viewer.frontend.send_all(b"ab"))
        assert most <= 4 * LINES_AT_ONCE  # who waits and who looks again
        assert turns >= 19_000 / LINES_AT_ONCE
        if expect == "strict":
            with pytest.raises(BackendError, match="but no more was recorded$"):
                await viewer.frontend.send_all(b"c")


async def test_much_that_was_recorded_byte_by_byte_is_compared_in_turns(
    cast: Path, counted: None
) -> None:
    write(cast, '{"version": 3}\n' + (json.dumps([9, "i", "x"]) + "\n") * 5_000)
    async with viewing(cast, expect="strict") as viewer:
        most, _ = await longest_turn(lambda: viewer.frontend.send_all(b"x" * 5_000))
    assert most <= 4 * LINES_AT_ONCE  # who waits and who looks again


# ---------------------------------------------------------------- a disk that hangs

LONG = "".join(json.dumps([0, "o", "x" * 1000]) + "\n" for _ in range(200))  # several pieces


@attrs.define
class Disk:
    """It hangs once *good* bytes of the recording have been read."""

    good: int
    go: threading.Event = attrs.Factory(threading.Event)
    begun: threading.Event = attrs.Factory(threading.Event)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pread

        def pread(fd: int, size: int, offset: int) -> bytes:
            if offset >= self.good:
                self.begun.set()
                self.go.wait(10)
            return real(fd, size, offset)

        monkeypatch.setattr(os, "pread", pread)


async def test_while_its_disk_hangs_nothing_comes_and_others_go_on(
    cast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(PIECE)
    disk.install(monkeypatch)
    write(cast, '{"version": 3}\n' + LONG)
    with trio.fail_after(10):
        async with viewing(cast, speed="max") as viewer:
            await eventually(disk.begun.is_set)
            before = len(viewer.seen)
            await viewer.registry.add("other", NullOptions())
            assert CLOSED not in viewer.items
            assert len(viewer.seen) == before
            disk.go.set()
            while CLOSED not in viewer.items:  # noqa: ASYNC110
                await trio.sleep(0.001)
    assert sum(len(item) for item in viewer.items if isinstance(item, bytes)) == 200_000


async def test_who_sends_waits_while_the_disk_hangs_and_can_be_cancelled(
    cast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(PIECE)
    disk.install(monkeypatch)
    write(cast, '{"version": 3}\n[9, "o", ""]\n' + LONG + json.dumps([0, "i", "ab"]) + "\n")
    with trio.fail_after(10):
        async with viewing(cast, expect="strict") as viewer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(viewer.frontend.send_all, b"ab")
                await eventually(disk.begun.is_set)
                nursery.cancel_scope.cancel()
            disk.go.set()
            await viewer.frontend.send_all(b"ab")
            with pytest.raises(BackendError, match="but no more was recorded$"):
                await viewer.frontend.send_all(b"c")


async def test_one_that_hangs_before_anything_comes_is_given_up(
    cast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FILE_TIMEOUT", 0.05)
    disk = Disk(PIECE)
    disk.install(monkeypatch)
    write(cast, '{"version": 3}\n' + "#\n" * PIECE + LONG)
    async with open_registry() as registry:
        with trio.fail_after(5), pytest.raises(BackendError) as caught:
            await registry.add("c", ReplayOptions(path=str(cast)))
    disk.go.set()
    assert str(caught.value) == (
        f"Failed to add chardev 'c': Could not open '{cast}': its file takes longer than 0.05 s"
    )
    await eventually(lambda: not is_held_open(cast))


# ---------------------------------------------------------------- from record to replay


@pytest.mark.parametrize("form", [None, "asciicast-v2", "asciicast-v3"])
async def test_what_was_recorded_is_played(
    cast: Path, form: Literal["asciicast-v2", "asciicast-v3"] | None
) -> None:
    """Any bytes, in a dialogue of which each part waits for the one before it."""
    pieces = [bytes(range(start, 256)) * 5 for start in range(0, 250, 7)]
    async with open_registry() as registry:
        await registry.add("c", RingbufOptions(record=str(cast), record_format=form))
        async with registry["c"].attach() as frontend:
            for piece in pieces:
                registry["c"]._parts.users.data(piece)
                await frontend.send_all(piece[::-1])
    async with open_registry() as registry:
        await registry.add("c", ReplayOptions(path=str(cast), expect="strict", speed="max"))
        async with registry["c"].attach() as frontend:
            for piece in pieces:
                got = b""
                while len(got) < len(piece):
                    got += await frontend.receive_some()
                assert got == piece
                await frontend.send_all(got[::-1])
            await wait_all_tasks_blocked()
            assert not frontend.is_open


@pytest.mark.parametrize("command", [("cat",), ("play", "-s", "1000")])
async def test_asciinema_shows_what_the_frontend_was_shown(
    command: tuple[str, ...], cast: Path
) -> None:
    """Also what is no text, on a terminal that takes text only."""
    asciinema = need("asciinema")
    async with open_registry() as registry:
        await registry.add("c", RingbufOptions(record=str(cast)))
        users = registry["c"]._parts.users
        for piece in (
            b"gr\xc3",
            b"\xbc\xc3\x9fe\r\n",
            b"\xff\x80|\r\n",
            "\u2028\x85|\r\n".encode(),
        ):
            users.data(piece)
        await registry.change("c", NullOptions(record=str(cast)))
        registry.send_break("c")
    master, terminal = os.openpty()
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
    async with await trio.open_file(master, "rb", buffering=0) as shown:
        try:
            process = await trio.run_process(
                ["setsid", "-c", asciinema, *command, str(cast)],
                stdin=terminal,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                env=environ,
            )
        finally:
            os.close(terminal)
        assert process.returncode == 0
        output = await shown.read(1 << 16)
    text = "grüße\r\n\U0010feff\U0010fe80|\r\n\u2028\x85|\r\n"
    assert output.decode().replace("\r\r\n", "\r\n") == text
