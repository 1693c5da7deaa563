"""``trio-chardev demo``: it runs, and what it prints is true."""

from __future__ import annotations

import re
import subprocess

import pytest
import trio

from tests.services import PROGRAM, TIMEOUT
from trio_chardev.cli.demo import LINE_SIZE, Demo, Peer, demo


def rows(text: str) -> dict[str, str]:
    """The table."""
    return dict(re.findall(r"^  (\S.*?)  +(\S.*)$", text, re.MULTILINE))


def test_the_demo_loses_and_repeats_nothing() -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--changes", "8"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, "")
    table = rows(done.stdout)
    assert (table["lines lost"], table["lines repeated"], table["in order"]) == ("0", "0", "yes")
    assert table["bytes sent"] == table["bytes received"] != "0"
    assert table["changes made"] == "7"
    assert table["changes that had to fail, and left the original"] == "1"


def lines(*numbers: int) -> bytearray:
    return bytearray().join(b"line %08d\n" % number for number in numbers)


@pytest.mark.parametrize(
    ("first", "second", "status", "lost", "repeated"),
    [
        (lines(0, 1), lines(2), 0, "0", "0"),
        (lines(0, 1), lines(), 1, "1", "0"),
        (lines(0), lines(0, 1, 2), 1, "0", "1"),
        (lines(2, 1), lines(0), 1, "0", "0"),
        (lines(0, 1)[:-3], lines(1)[-3:] + lines(2), 0, "0", "0"),
        (lines(0, 1)[:-3], lines(2), 1, "2", "1"),  # both are spoilt, and one line is strange
    ],
)
async def test_the_verdict(
    first: bytearray,
    second: bytearray,
    status: int,
    lost: str,
    repeated: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three lines were sent; two peers have received what they have."""

    async def run(self: Demo, changes: int) -> None:
        await trio.lowlevel.checkpoint()
        self.sent = 3 * LINE_SIZE
        self.peers = [Peer("file", first), Peer("pty", second)]

    monkeypatch.setattr(Demo, "run", run)
    assert await demo(1, 0) == status
    table = rows(capsys.readouterr().out)
    assert (table["lines lost"], table["lines repeated"]) == (lost, repeated)
    assert table["in order"] == ("yes" if status == 0 else "NO")
