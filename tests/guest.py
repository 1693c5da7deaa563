"""A guest of QEMU that does nothing but print numbers on its first serial line.

It is a boot sector, so that no image, kernel or assembler is needed: 8 hexadecimal digits and
a line feed, counting up from 0 for ever, as fast as the UART takes them.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.peers import need

# Real mode, at 0x7c00; all jumps are relative. The UART (a 16550 at 0x3f8) is used as reset
# leaves it: QEMU's ignores the speed.
LISTING = """
    fa          cli
    31c0        xor ax, ax
    8ed0        mov ss, ax
    bc007c      mov sp, 0x7c00      ; the stack is below the code
    6631db      xor ebx, ebx        ; the number
next:
    b90800      mov cx, 8
digit:
    66c1c304    rol ebx, 4          ; the highest digit first; after 8 it is as before
    88d8        mov al, bl
    240f        and al, 15
    0430        add al, '0'
    3c3a        cmp al, '9' + 1
    7202        jb $ + 4
    0427        add al, 'a' - '9' - 1
    e80b00      call put
    e2eb        loop digit
    b00a        mov al, 10
    e80400      call put
    6643        inc ebx
    ebdf        jmp next
put:
    88c4        mov ah, al
    bafd03      mov dx, 0x3fd       ; line status
busy:
    ec          in al, dx
    a820        test al, 0x20       ; is the transmitter empty?
    74fb        jz busy
    88e0        mov al, ah
    baf803      mov dx, 0x3f8       ; the transmitter
    ee          out dx, al
    c3          ret
"""
CODE = b"".join(
    bytes.fromhex(line.split()[0]) for line in LISTING.splitlines() if line.startswith(" ")
)
FLOPPY_SIZE = 1440 << 10  # bytes


def number(i: int) -> bytes:
    """Return the line that the guest prints as number *i*."""
    return b"%08x\n" % i


@asynccontextmanager
async def printing_guest(folder: Path, chardev: str) -> AsyncIterator[trio.Process]:
    """Run the guest, its serial line on QEMU's chardev *chardev*, ``socket,path=...``."""
    floppy = folder / "floppy"
    floppy.write_bytes((CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(FLOPPY_SIZE, b"\0"))
    process = await trio.lowlevel.open_process(
        [
            need("qemu-system-x86_64"),
            *("-machine", "pc", "-accel", "tcg", "-m", "16", "-display", "none"),
            *("-nodefaults", "-no-user-config", "-boot", "a"),
            *("-drive", f"file={floppy},format=raw,if=floppy"),
            *("-chardev", f"{chardev},id=line", "-serial", "chardev:line"),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()
