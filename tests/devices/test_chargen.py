"""chargen: numbered lines, one stream for all readers, and how it is checked."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.devices.fakes import open_fakes
from tests.fakes import FakeLog
from trio_chardev.devices.chargen import (
    LINE_SIZE,
    ChargenInfo,
    ChargenOptions,
    chargen_line,
    chargen_stream,
    check_chargen,
)
from trio_chardev.errors import BackendError
from trio_chardev.testing import FakeDevice, FakeOptions

OPTIONS = ChargenOptions(id="d", chardev="c")


def device(name: str = "c", room: int = 1000, connected: bool = True) -> FakeDevice:
    return FakeDevice(name, eager=True, room=room, connected=connected)


# ---------------------------------------------------------------- the stream


def test_a_line_is_its_number_and_the_printable_characters_from_another_one_on() -> None:
    printable = bytes(range(0x20, 0x7F))
    assert chargen_line(0) == b"0000000000 " + printable[:61] + b"\r\n"
    assert chargen_line(94) == b"0000000094 ~" + printable[:60] + b"\r\n"
    assert chargen_line(95)[10:] == chargen_line(0)[10:]
    assert chargen_line(10**10)[:10] == b"0000000000"
    assert {len(chargen_line(number)) for number in (0, 7, 94, 10**10)} == {LINE_SIZE}


@pytest.mark.parametrize("offset", [0, 1, 73, 74, 75, 7400, 12_345])
@pytest.mark.parametrize("size", [150, 1000])
def test_a_piece_is_known_by_itself(offset: int, size: int) -> None:
    data = chargen_stream(offset, size)
    assert len(data) == size
    assert check_chargen(data) == offset


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:500] + data[501:],
        lambda data: data[:500] + data[499:],
        lambda data: data[: 5 * LINE_SIZE] + data[6 * LINE_SIZE :],
        lambda data: data[: 6 * LINE_SIZE] + data[5 * LINE_SIZE :],
        lambda data: data[:500] + b"?" + data[501:],
        lambda data: b"?" + data,
    ],
    ids=["lost", "twice", "line lost", "line twice", "wrong", "before all"],
)
def test_what_is_no_piece_is_told(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"^byte [0-9]+ is not what follows: b"):
        check_chargen(spoil(chargen_stream(0, 2000)))


def test_too_little_is_told() -> None:
    with pytest.raises(ValueError, match="no number"):
        check_chargen(chargen_stream(0, LINE_SIZE))


# ---------------------------------------------------------------- the device


async def test_it_sends_as_the_other_end_takes_it_and_reads_nothing() -> None:
    c = device(room=1000)
    async with open_fakes(c) as registry:
        registry.devices.add(OPTIONS)
        c.feed(b"is dropped")
        await wait_all_tasks_blocked()
        c.make_room(500)
        await wait_all_tasks_blocked()
        assert c.sent == chargen_stream(0, 1500)
        assert c.unread == 0
        assert registry.devices["d"].info == ChargenInfo(id="d", chardev="c", bytes=1500)


async def test_it_waits_for_somebody_to_come() -> None:
    c = device(connected=False)
    async with open_fakes(c) as registry:
        registry.devices.add(OPTIONS)
        await wait_all_tasks_blocked()
        assert c.sent == b""
        c.connect()
        await wait_all_tasks_blocked()
        assert c.sent == chargen_stream(0, 1000)


async def test_the_stream_goes_on_after_a_change_and_for_who_comes_next() -> None:
    c, new = device(room=999), device("new", room=500)
    async with open_fakes(c) as registry:
        registry.devices.add(OPTIONS)
        await wait_all_tasks_blocked()
        await registry.change("c", FakeOptions(device=new))
        await wait_all_tasks_blocked()
        new.connect(False)
        new.make_room(500)
        await wait_all_tasks_blocked()
        new.connect()
        await wait_all_tasks_blocked()
    assert c.sent + new.sent == chargen_stream(0, 1999)
    assert check_chargen(bytes(new.sent)) == 999


async def test_after_an_error_it_tries_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    c = device()
    async with open_fakes(c) as registry:
        assert c.backend is not None

        def fail(data: memoryview) -> int:
            raise BackendError("no space left")

        monkeypatch.setattr(c.backend, "send_nowait", fail)
        with caplog.at_level(logging.WARNING):
            registry.devices.add(OPTIONS)
            await trio.sleep(0.5)
        assert caplog.messages == ["chardev 'c': no space left"]
        monkeypatch.undo()
        await trio.sleep(1)
        assert c.sent == chargen_stream(0, 1000)


async def test_a_log_has_what_nobody_was_there_for_once() -> None:
    its = device(room=100_000, connected=False)
    async with open_fakes(its) as registry:
        log = FakeLog(its)
        registry.devices.add(OPTIONS)
        await wait_all_tasks_blocked()
        for _ in range(3):
            its.connect()
            its.connect(False)
            await wait_all_tasks_blocked()
        its.connect()
        await wait_all_tasks_blocked()
        assert log.data == its.sent
        assert len(its.sent) == 100_000
