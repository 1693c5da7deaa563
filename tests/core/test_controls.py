"""The line calls of one backend, and of one that lacks them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from trio_chardev.core.controls import Controls
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.errors import BackendError, NotSupportedError
from trio_chardev.events import LineSettings, ModemLines, WindowSize
from trio_chardev.testing import FakeDevice, open_chardev

CALLS: list[tuple[str, Callable[[Line], Awaitable[object]]]] = [
    ("line settings", lambda line: line.set(LineSettings())),
    ("modem lines", lambda line: line.get_modem()),
    ("modem lines", lambda line: line.set_modem(ModemLines.RTS)),
    ("break", lambda line: line.send_break()),
    ("echo", lambda line: line.set_echo(True)),
    ("window size", lambda line: line.set_window_size(WindowSize(80, 24))),
]


@pytest.mark.parametrize(("what", "call"), CALLS, ids=range(len(CALLS)))
async def test_what_a_backend_lacks_is_not_supported(
    what: str, call: Callable[[Line], Awaitable[object]]
) -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        with pytest.raises(NotSupportedError, match=rf"^'fake:old' has no {what}$"):
            await call(Controls(chardev.backend).line)


async def test_what_a_backend_has_is_called() -> None:
    device = FakeDevice("old", has_line=True)
    async with open_chardev(device) as chardev:
        for _, call in CALLS:
            await call(Controls(chardev.backend).line)
    assert device.line_calls == [
        *(LineSettings(), ModemLines.RTS, BREAK_DURATION, True),
        WindowSize(80, 24),
    ]


async def test_a_call_that_fails_raises_what_the_backend_raises() -> None:
    async with open_chardev(FakeDevice("old", has_line=True, line_fails=True)) as chardev:
        with pytest.raises(BackendError, match=r"^old does not take 115200 8N1$"):
            await Controls(chardev.backend).line.set(LineSettings())


async def test_it_tells_the_backends_name_and_whether_somebody_is_there() -> None:
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        controls = Controls(chardev.backend)
        assert (controls.filename, controls.is_open) == ("fake:old", True)
        device.connect(False)
        assert not controls.is_open


@pytest.mark.parametrize(
    ("has_line", "missing"),
    [(False, {"settings", "modem", "break", "purge", "window"}), (True, set())],
)
async def test_it_tells_what_of_a_line_is_missing(has_line: bool, missing: set[str]) -> None:
    async with open_chardev(FakeDevice("old", has_line=has_line)) as chardev:
        assert Controls(chardev.backend).line.missing == missing
        assert chardev.attach().line.missing == missing
