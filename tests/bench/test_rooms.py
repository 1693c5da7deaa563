"""Rooms of a console: everybody in one gets the same bytes, whoever the contender is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.consoles import pour
from bench.contenders import Contender
from bench.processes import deadline
from bench.rooms import SERVERS, room
from tests.peers import need

LIMIT = 60.0  # seconds
SIZE = 10_000  # bytes


@pytest.mark.parametrize("contender", SERVERS, ids=lambda each: each.name)
def test_all_in_a_room_get_what_is_printed(contender: Contender) -> None:
    need(contender.program or "python3")
    with deadline(LIMIT), room(contender, 2) as place:
        assert pour(place, SIZE) > 0
        place.fill(7)  # more than ser2net's queue of connections
        assert len(place.clients) == 7
        assert pour(place, SIZE) > 0
    with deadline(LIMIT):
        while is_running(place.pid):  # after SIGKILL it ends when it has the processor next
            time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Is there such a process, other than one that nobody has waited for?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(") ")[2][0] != "Z"
