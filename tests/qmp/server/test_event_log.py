"""Each QMP event is a line of the log, with its members as fields, in its area."""

from __future__ import annotations

import logging
import re
from typing import Any

import attrs
import pytest

from tests.service_log.test_formats import read_journal
from trio_chardev.cli.rate_limit import BURST_OF_ONE, RateLimit
from trio_chardev.notices import ChardevChanged, ChardevClientDetached
from trio_chardev.qmp.server.event_log import log_event
from trio_chardev.qmp.server.events import EVENTS
from trio_chardev.service_log.entry import entry_of
from trio_chardev.service_log.formats import format_entry

SAMPLES: dict[str, Any] = {"client": 3, "cursor": 7, "guest": False}


def sample(cls: type[Any]) -> Any:
    """An event of that class."""
    return cls(**{member.name: SAMPLES.get(member.name, "x") for member in attrs.fields(cls)})


def area_of_event(name: str) -> str:
    if name.startswith("CHARDEV_"):
        is_of_console = re.match("CHARDEV_(CLIENT|WRITER|MARK)", name)
        return "console" if is_of_console else "chardev"
    return {"SHUTDOWN": "service", "DEVICE_DELETED": "device"}[name]


@pytest.mark.parametrize("name", EVENTS)
def test_each_has_its_name_area_and_fields(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    event = sample(EVENTS[name])
    log_event(event)
    (record,) = caplog.records
    entry = entry_of(record)
    assert (entry.area, entry.fields["event"], entry.message) == (
        area_of_event(name),
        name,
        str(event),
    )
    members = {member.name for member in attrs.fields(type(event))} - {"guest"}
    assert len(entry.fields) == len(members) + 1
    assert entry.fields.get("chardev") == getattr(event, "id", None)
    for field in read_journal(format_entry(entry, "journal")):
        assert re.fullmatch("[A-Z][A-Z0-9_]*", field)


def test_what_is_not_known_is_no_field(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_event(ChardevClientDetached("c", "uid 0", "full"))
    assert "client" not in entry_of(caplog.records[0]).fields


def test_it_costs_nothing_where_it_is_not_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log_event(ChardevChanged("a", "null", "pty"))
    assert caplog.records == []


def test_the_limit_counts_each_event_of_each_chardev(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limit = RateLimit(lambda: 0.0)
    for id in "ab":
        for _ in range(BURST_OF_ONE + 5):
            log_event(ChardevChanged(id, "null", "pty"))
    said = [some for record in caplog.records for some in limit.filter(record)]
    fields = [entry_of(record).fields for record in said]
    assert [some["more"] for some in fields if "more" in some] == [5]  # of a, told before b
    ids = [some["chardev"] for some in fields if "more" not in some]
    assert (ids.count("a"), ids.count("b")) == (BURST_OF_ONE, BURST_OF_ONE)
