"""``usb:SERIAL`` on a tree like sysfs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.serial.serial import open_serial
from trio_chardev.backends.serial.usb import (
    NotPluggedInError,
    Roots,
    check_is_named,
    find_node,
)
from trio_chardev.core.backend import OpenRequest
from trio_chardev.errors import BackendError, OptionsError

ESP32_S3 = "7C:DF:A1:00:11:22"


@attrs.define
class Sysfs:
    """A part of sysfs, and of /dev."""

    folder: Path
    ports: int = 0

    @property
    def roots(self) -> Roots:
        return Roots(str(self.folder / "sys"), str(self.folder / "dev"))

    def plug(self, name: str, serial: str | None, interface: int = 0, port: int = 0) -> Path:
        """Make the tty *name* of a USB device; of the one at *port* if that is there."""
        device = self.folder / f"sys/devices/pci0/usb1/1-{port or self.ports + 20}"
        self.ports += 1
        tty = device / f"{device.name}:1.{interface}" / name
        tty.mkdir(parents=True)
        (tty.parent / "bInterfaceNumber").write_text(f"{interface:02x}\n")
        if serial is not None:
            (device / "serial").write_text(f"{serial}\n")
        entry = self.folder / "sys/class/tty" / name
        entry.mkdir(parents=True)
        (entry / "device").symlink_to(tty)
        return entry

    def make_node(self, name: str, target: str) -> Path:
        node = self.folder / "dev" / name
        node.symlink_to(target)
        return node


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A root hub that has a number like a serial number, and ttys that are no adaptors."""
    made = Sysfs(tmp_path)
    hub = tmp_path / "sys/devices/pci0/usb1"
    hub.mkdir(parents=True)
    (hub / "serial").write_text("0000:00:14.0\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys/class/tty/tty0").mkdir(parents=True)
    platform = tmp_path / "sys/devices/platform/serial8250"
    platform.mkdir(parents=True)
    (tmp_path / "sys/class/tty/ttyS0").mkdir()
    (tmp_path / "sys/class/tty/ttyS0/device").symlink_to(platform)
    made.plug("ttyUSB0", "A50285BI")
    made.plug("ttyUSB1", "FT4232", 0, port=9)
    made.plug("ttyUSB2", "FT4232", 1, port=9)
    made.plug("ttyUSB3", "FT4232", 10, port=9)
    made.plug("ttyACM0", ESP32_S3)
    made.plug("ttyUSB4", None)
    made.plug("ttyUSB5", "0001")
    made.plug("ttyUSB6", "0001")
    return made


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("usb:A50285BI", "ttyUSB0"),
        ("usb:A50285BI:00", "ttyUSB0"),
        ("usb:FT4232:0", "ttyUSB1"),
        ("usb:FT4232:01", "ttyUSB2"),
        ("usb:FT4232:0a", "ttyUSB3"),
        ("usb:FT4232:A", "ttyUSB3"),
        (f"usb:{ESP32_S3}", "ttyACM0"),
        (f"usb:{ESP32_S3}:0", "ttyACM0"),
    ],
)
def test_an_adaptor_is_found_by_its_serial_number(sysfs: Sysfs, path: str, name: str) -> None:
    assert find_node(path, sysfs.roots) == str(sysfs.folder / "dev" / name)


@pytest.mark.parametrize(
    "path",
    [
        "usb:",
        "usb:A50285B",
        "usb:A50285BI:1",
        "usb:A50285BI:",
        "usb:0000:00:14.0",
        "usb:A50285BI:x",
    ],
)
def test_another_is_not(sysfs: Sysfs, path: str) -> None:
    with pytest.raises(NotPluggedInError, match="no USB adaptor with that serial number"):
        find_node(path, sysfs.roots)


@pytest.mark.parametrize(
    ("path", "which"),
    [
        (
            "usb:FT4232",
            r"ttyUSB1 \(interface 00\), ttyUSB2 \(interface 01\), ttyUSB3 \(interface 0a\)",
        ),
        ("usb:0001", r"ttyUSB5 \(interface 00\), ttyUSB6 \(interface 00\)"),
    ],
)
def test_one_that_is_not_the_only_one_is_an_error_that_names_them(
    sysfs: Sysfs, path: str, which: str
) -> None:
    with pytest.raises(OSError, match=f"^it is one of {which}$"):
        find_node(path, sysfs.roots)


def test_one_that_is_pulled_while_it_is_looked_at_is_not_there(sysfs: Sysfs) -> None:
    (sysfs.folder / "sys/class/tty/ttyUSB0/device").unlink()
    with pytest.raises(NotPluggedInError):
        find_node("usb:A50285BI", sysfs.roots)


@pytest.fixture
def slave() -> Iterator[str]:
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(slave)
    os.close(master)


async def test_it_is_opened_and_absent_it_is_an_error_of_one_line(sysfs: Sysfs, slave: str) -> None:
    sysfs.make_node("ttyUSB0", slave)
    request = OpenRequest(id="x", on_event=lambda event: None)
    async with open_serial(SerialOptions(path="usb:A50285BI"), request, sysfs.roots) as backend:
        assert backend.is_open
    with pytest.raises(BackendError) as caught:
        async with open_serial(SerialOptions(path="usb:nope"), request, sysfs.roots):
            pass
    text = "Could not open 'usb:nope': no USB adaptor with that serial number is plugged in"
    assert str(caught.value) == text


async def test_it_is_found_when_it_is_plugged_in_under_another_name(
    sysfs: Sysfs, slave: str
) -> None:
    """By its node, which the kernel makes when sysfs has it."""
    options = SerialOptions(path="usb:NEW", wait=False, reopen_ms=20)
    request = OpenRequest(id="x", on_event=lambda event: None)
    async with open_serial(options, request, sysfs.roots) as backend:
        assert not backend.is_open
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.wait_readable)
                await wait_all_tasks_blocked(0.05)
                sysfs.plug("ttyUSB9", "NEW")
                sysfs.make_node("ttyUSB9", slave)
        assert backend.is_open


@pytest.mark.parametrize(
    ("link", "serial", "is_right"),
    [
        ("usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0", "A50285BI", True),
        ("usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0", "B12345", False),
        ("usb-Espressif_USB_JTAG_serial_debug_unit_7C:DF:A1:00:11:22-if00", ESP32_S3, True),
        ("usb-Maker_Thing_two_words-if00", " two  words ", True),
        ("usb-Maker_Thing-if00", "a,b", True),  # udev leaves such a number out
        ("usb-Maker_Thing-if00", "\u00e9", True),
        ("usb-Maker_Thing-if00", None, True),
    ],
)
def test_a_name_of_by_id_must_have_the_number_of_the_adaptor(
    sysfs: Sysfs, slave: str, link: str, serial: str | None, is_right: bool
) -> None:
    device = os.stat(slave)
    entry = sysfs.plug("ttyUSB8", serial)
    number = f"{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}"
    folder = sysfs.folder / "sys/dev/char"
    folder.mkdir(parents=True)
    (folder / number).symlink_to(entry)
    if is_right:
        check_is_named(f"/dev/serial/by-id/{link}", device, sysfs.roots)
    else:
        with pytest.raises(NotPluggedInError, match="another adaptor has its device now"):
            check_is_named(f"/dev/serial/by-id/{link}", device, sysfs.roots)


async def test_a_name_of_by_id_that_udev_has_not_removed_yet_is_refused(
    sysfs: Sysfs, slave: str
) -> None:
    device = os.stat(slave).st_rdev
    folder = sysfs.folder / "sys/dev/char"
    folder.mkdir(parents=True)
    (folder / f"{os.major(device)}:{os.minor(device)}").symlink_to(
        sysfs.folder / "sys/class/tty/ttyUSB0"
    )
    by_id = sysfs.folder / "dev/serial/by-id"
    by_id.mkdir(parents=True)
    link = by_id / "usb-Maker_Thing_OTHER-if00"
    link.symlink_to(slave)
    request = OpenRequest(id="x", on_event=lambda event: None)
    with pytest.raises(BackendError, match="another adaptor has its device now"):
        async with open_serial(SerialOptions(path=str(link)), request, sysfs.roots):
            pass
    right = link.rename(by_id / "usb-Maker_Thing_A50285BI-if00")
    async with open_serial(SerialOptions(path=str(right)), request, sysfs.roots) as backend:
        assert backend.is_open


def test_an_adaptor_without_a_serial_number_can_not_be_asked_for() -> None:
    with pytest.raises(OptionsError, match="^path=usb: needs the adaptor's serial number"):
        SerialOptions(path="usb:").check()
