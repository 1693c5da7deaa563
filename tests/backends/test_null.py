from __future__ import annotations

import trio

from trio_chardev.backends.null import NullOptions, open_null
from trio_chardev.core.backend import OpenRequest
from trio_chardev.events import BackendEvent
from trio_chardev.testing.pair import receive_some


async def test_eats_output_gives_no_input_and_is_never_open() -> None:
    events: list[BackendEvent] = []
    async with open_null(NullOptions(), OpenRequest(id="x", on_event=events.append)) as backend:
        assert backend.filename == "null"
        assert await backend.send_some(memoryview(bytes(1 << 20))) == 1 << 20
        assert backend.receive_nowait(1) == b""
        with trio.move_on_after(0) as scope:
            await receive_some(backend, 1)
        assert scope.cancelled_caught
    assert events == []
