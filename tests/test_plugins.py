"""The command line and QMP know kinds and drivers from an installed package."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp

PAGE = (Path(__file__).parent.parent / "docs" / "new-backend.md").read_text()
CLOCK = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)[0]
(ENTRY,) = re.findall(
    r'^```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)^```$', PAGE, re.M | re.S
)

PLUGIN = '''
from trio_chardev import Driver, Kind
from trio_chardev.devices.discard import (Discard, DiscardInfo, DiscardOptions)

CLOCK = Kind(ClockOptions, open_clock)


@attrs.frozen(kw_only=True)
class SinkOptions(DiscardOptions):
    """Swallows."""


@attrs.frozen(kw_only=True)
class SinkInfo(DiscardInfo):
    """A sink."""


class Sink(Discard):
    @property
    def info(self):
        return SinkInfo(**attrs.asdict(super().info))


SINK = Driver("sink", SinkOptions, Sink, SinkInfo)
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which a package is installed, as pip does it."""
    (tmp_path / "clock.py").write_text(CLOCK + PLUGIN)
    folder = tmp_path / "clock-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: clock\nVersion: 1\n")
    group, points = ENTRY
    (folder / "entry_points.txt").write_text(
        f"[{group}]\n{points.replace(chr(34), '')}"
        "null = clock:CLOCK\nbad = nowhere:CLOCK\nodd = clock:SinkOptions\n"
        "[trio_chardev.drivers]\nsink = clock:SINK\nother = clock:SINK\n"
    )
    return tmp_path


def environ(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site)}


def told(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, timeout=60, env=environ(site)
    )


def test_the_command_line_lists_it_with_its_options(site: Path) -> None:
    assert re.search(
        r"^ *clock +Tells the time", told(site, "serve", "--chardev", "help").stdout, re.M
    )
    assert "interval-ms=<num>" in told(site, "serve", "--chardev", "clock,help").stdout
    assert "interval-ms=<num>" in told(site, "change", "x", "clock,help").stdout
    assert re.search(r"^ *sink +Swallows", told(site, "serve", "--device", "help").stdout, re.M)


def test_what_can_not_be_used_is_a_line_each_and_the_others_are(site: Path) -> None:
    errors = told(site, "serve", "--chardev", "clock,help").stderr.splitlines()
    assert [line.partition("warning: ")[2] for line in errors] == [
        "trio_chardev.kinds: 'bad' (nowhere:CLOCK) can't be used: No module named 'nowhere'",
        "trio_chardev.kinds: 'null' (clock:CLOCK) can't be used: "
        "there is a kind 'null', or one of its options, already",
        "trio_chardev.kinds: 'odd' (clock:SinkOptions) can't be used: it is no Kind",
        "trio_chardev.drivers: 'other' (clock:SINK) can't be used: the driver is called 'sink'",
    ]


def test_serve_has_it_and_so_has_qmp(site: Path) -> None:
    path = site / "qmp"
    with subprocess.Popen(
        [
            *[*PROGRAM, "serve", "--chardev", "clock,id=c,interval-ms=10"],
            *["--device", "sink,id=s,chardev=c", "--qmp", f"unix:{path},server=on,wait=off"],
        ],
        env=environ(site),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            with Qmp(path) as qmp:
                assert qmp("query-chardev")[0]["filename"] == "clock"
                assert {"name": "clock"} in qmp("query-chardev-backends")
                assert qmp("query-devices")[0]["driver"] == "sink"
                assert qmp.add("d", "clock", **{"interval-ms": 20}) == {}
                assert qmp("device_add", driver="sink", id="t", chardev="d") == {}
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def test_what_can_not_be_read_is_a_line_and_the_service_goes_on(site: Path) -> None:
    points = site / "clock-1.dist-info" / "entry_points.txt"
    points.unlink()
    points.symlink_to(points)  # ELOOP
    done = told(site, "serve", "--chardev", "null,help")
    assert "what packages bring can't be read: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "logfile" in done.stdout
