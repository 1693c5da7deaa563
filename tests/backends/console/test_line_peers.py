"""pySerial sets the line of a board behind a console, if it may type."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crowds import Served, served
from tests.peers import LOOPBACK
from tests.wires import Wire, wire

serial: Any = pytest.importorskip("serial", reason="pyserial, of the extra 'test', is missing")

pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # by pyserial

LISTENERS = (
    "write,host=127.0.0.1,port=0,rfc2217=on",
    "watch,host=127.0.0.1,port=0,rfc2217=on,read-only=on",
)


@contextmanager
def line_served(folder: Path) -> Iterator[tuple[Served, Wire]]:
    with wire() as here:
        device = f"serial,path={here.path}"
        with served(folder, *LISTENERS, console="history=64k", device=device) as it:
            yield it, here


def opened(it: Served, listener: str, speed: int, **options: Any) -> Any:
    url = f"rfc2217://{LOOPBACK}:{it.port(listener)}"
    return serial.serial_for_url(url, baudrate=speed, timeout=20, **options)


def test_who_may_type_sets_the_line_and_who_watches_is_told_what_is_in_force(
    tmp_path: Path,
) -> None:
    with line_served(tmp_path) as (it, here), opened(it, "write", 115200, stopbits=2) as writer:
        assert (here.speed, here.has_two_stop_bits) == (termios.B115200, True)
        with pytest.raises(ValueError, match="remote rejected value for option 'baudrate'"):
            opened(it, "watch", 300)
        assert here.speed == termios.B115200
        with opened(it, "watch", 115200, stopbits=2) as watcher:
            writer.baudrate = 9600
            assert here.speed == termios.B9600
            watcher.write(b"no")
            writer.write(b"yes")
            assert os.read(here.board, 100) == b"yes"
            os.write(here.board, b"hello")
            assert watcher.read(5) == writer.read(5) == b"hello"
            with pytest.raises(ValueError, match="remote rejected value for option 'baudrate'"):
                watcher.baudrate = 19200
            assert here.speed == termios.B9600


def test_several_set_it_in_turn_and_each_is_answered(tmp_path: Path) -> None:
    with (
        line_served(tmp_path) as (it, here),
        opened(it, "write", 9600) as one,
        opened(it, "write", 19200) as two,
    ):
        assert here.speed == termios.B19200
        one.baudrate = 300
        assert here.speed == termios.B300
        two.parity = "E"
        assert two.parity == "E"
        one.write(b"1")
        two.write(b"2")
        assert sorted(os.read(here.board, 1) + os.read(here.board, 1)) == [ord("1"), ord("2")]
        two.break_condition = True
        two.break_condition = False
