"""The input of a mux: bytes for the frontend that has the focus, and commands.

A command is the escape character and one more; the escape character twice stands for itself. As in
QEMU, an unknown command is dropped together with its escape character.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator


class Command(enum.Enum):
    """What the key after the escape character means."""

    HELP = b"h?"
    QUIT = b"x"
    BREAK = b"b"
    SWITCH = b"c"
    TIMESTAMPS = b"t"


_COMMAND_OF = {key: command for command in Command for key in command.value}


class EscapeParser:
    """Splits the input of one terminal; it keeps its state between pieces of input."""

    def __init__(self, escape: int = 0x01) -> None:
        """*escape* is the byte before a command; the default, C-a, is QEMU's."""
        self.character = escape
        self._is_escaped = False

    @property
    def is_escaped(self) -> bool:
        """Is the next byte a command?"""
        return self._is_escaped

    def feed(self, data: bytes) -> Iterator[bytes | Command]:
        """Yield the pieces of *data* in order; bytes are never empty."""
        start = 0
        while start < len(data):
            if self._is_escaped:
                self._is_escaped = False
                key = data[start]
                if key == self.character:
                    yield bytes([key])
                elif command := _COMMAND_OF.get(key):
                    yield command
                start += 1
                continue
            end = data.find(self.character, start)
            if end < 0:
                yield data[start:]
                return
            if end > start:
                yield data[start:end]
            self._is_escaped = True
            start = end + 1

    def help_text(self, *, may_quit: bool) -> bytes:
        """Make the text for HELP, with CR LF line ends; it has QUIT only if *may_quit*."""
        name = (
            f"C-{chr(self.character + 96)}"
            if 0 < self.character < 27
            else f"0x{self.character:02x}"
        )
        rows = [
            (f"{name} h", "print this help"),
            *([(f"{name} x", "stop the service")] if may_quit else []),
            (f"{name} b", "send a break"),
            (f"{name} c", "switch to the next user of this mux"),
            (f"{name} t", "toggle timestamps"),
            (f"{name} {name}", f"send {name}"),
        ]
        return b"\r\n" + b"".join(f"{key:<12}{what}\r\n".encode() for key, what in rows)
