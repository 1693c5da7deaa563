"""Rooms of a console: everybody in one gets the same bytes, whoever the contender is."""

from __future__ import annotations

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
    state = Path(f"/proc/{place.pid}/stat")
    assert not state.exists() or state.read_text().rpartition(") ")[2][0] == "Z"
