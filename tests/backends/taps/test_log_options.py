"""Which options about the log file go together."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.backends.taps.formatted_log import format_of
from trio_chardev.backends.taps.log_options import check_log, kept_by
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.log_format import HexDump, JsonLines, MarkedTimestamps, Timestamps

BAD: list[tuple[dict[str, Any], str]] = [
    ({"logtimestamp": True, "log_format": "json"}, "logtimestamp=on contradicts log-format=json"),
    ({"logtimestamp": True, "log_format": "raw"}, "logtimestamp=on contradicts log-format=raw"),
    ({"log_strip": True, "log_format": "hexdump"}, "log-strip=on contradicts log-format=hexdump"),
    ({"log_rotate": 4095}, "'log-rotate' must be at least 4096"),
    ({"log_rotate_age": 0}, "'log-rotate-age' must be at least 1"),
    ({"log_keep": -1}, "'log-keep' must be from 0 to 1000"),
    ({"log_keep": 1001}, "'log-keep' must be from 0 to 1000"),
    ({"log_rotate": 4096, "log_max": 5}, "log-max contradicts log-rotate and log-rotate-age"),
    ({"log_rotate_age": 1, "log_max": 5}, "log-max contradicts log-rotate and log-rotate-age"),
    (
        {"log_rotate": 4096, "log_keep": 0},
        "log-rotate contradicts log-keep=0: the only copy would be lost",
    ),
    (
        {"log_rotate_age": 1, "log_keep": 0},
        "log-rotate-age contradicts log-keep=0: the only copy would be lost",
    ),
]
GIVEN: dict[str, Any] = {
    "log": "in",
    "log_format": "raw",
    "log_time": "local",
    "log_events": True,
    "log_strip": True,
    "log_rotate": 4096,
    "log_rotate_age": 1,
    "log_keep": 1,
}


@pytest.mark.parametrize(("given", "error"), BAD)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionsError) as info:
        opener_of(NullOptions(logfile="log", **given))
    assert str(info.value) == error


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_about_no_log_is_refused(name: str) -> None:
    with pytest.raises(OptionsError, match=f"^{name.replace('_', '-')} needs logfile=FILE$"):
        opener_of(NullOptions(**{name: GIVEN[name]}))


def test_all_options_about_a_log_are_tried_above() -> None:
    ours = {f.name for f in attrs.fields(BackendOptions) if f.name.startswith("log")}
    qemus = {"logfile", "logappend", "logtimestamp"}
    assert ours - qemus - {"log_mode", "log_max"} == set(GIVEN)


def test_what_agrees_is_taken() -> None:
    check_log(BackendOptions(logfile="log", logtimestamp=True, log_format="timestamp"))
    check_log(BackendOptions(logfile="log", log_rotate=4096, log_rotate_age=1, log_keep=1000))


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, 1), ({"log_keep": 0}, 0), ({"log_rotate": 4096}, 5), ({"log_rotate_age": 9}, 5)],
)
def test_how_many_old_files_are_kept(given: dict[str, Any], kept: int) -> None:
    assert kept_by(BackendOptions(logfile="log", **given)) == kept


def test_the_format() -> None:
    def kind(**given: Any) -> type[Any]:
        return type(format_of(BackendOptions(logfile="log", **given), "x"))

    assert kind() is kind(log_format="raw") is type(None)
    assert kind(logtimestamp=True) is kind(log_format="timestamp", log="in") is Timestamps
    assert kind(logtimestamp=True, log="both") is MarkedTimestamps
    assert kind(log_format="json") is JsonLines
    assert kind(log_format="hexdump") is HexDump
