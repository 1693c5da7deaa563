"""The escape character of ``trio-chardev attach``, and the menu behind it; without I/O.

After the escape character the next key is a command; the character twice stands for itself. Some
commands ask for a line, which is edited as a terminal would.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import attrs

from trio_chardev.errors import OptionsError

MAX_LINE = 1024  # bytes
_ERASE: Final = b"\b \b"
_END: Final = b"\r\n"
_CONTROL = re.compile(r"\^([@-_a-z?])")


class Action(enum.Enum):
    """What the key after the escape character means: its keys, and its line in the help."""

    DETACH = "d.", "detach; the console goes on"
    BREAK = "b", "send a break"
    WHO = "w", "who is there"
    HISTORY = "h", "show the last screen of the history"
    CHANGE = "c", "change the backend of the device: asks for KIND[,KEY=VALUE...]"
    TAKE = "t", "take the right to write"
    GIVE = "g", "give the right to write: asks for the number of the client"
    HELP = "?", "show this"

    @property
    def keys(self) -> str:
        """The keys, the first of which is shown first."""
        return self.value[0]

    @property
    def help(self) -> str:
        """What it does."""
        return self.value[1]


PROMPTS: Final = {
    Action.CHANGE: "change to KIND[,KEY=VALUE...]: ",
    Action.GIVE: "give the right to write to client: ",
}
_ACTION_OF: Final = {ord(key): action for action in Action for key in action.keys}


@attrs.frozen
class Do:
    """A command was given, with the line that it has asked for."""

    action: Action
    line: str = ""


@attrs.frozen
class Show:
    """What is to be shown to the user: a prompt, or the echo of what he types to it."""

    data: bytes


Item: TypeAlias = bytes | Do | Show
"""What comes out of a menu; bytes are for the device."""


def parse_escape(text: str) -> int | None:
    """Parse the option --escape: ``^X`` or none. Raises OptionsError."""
    if text == "none":
        return None
    match = _CONTROL.fullmatch(text)
    if match is None:
        raise OptionsError(f"the escape character is ^X, such as ^], or none, and not '{text}'")
    return ord(match[1].upper()) ^ 0x40


class Menu:
    """Splits what is typed; it keeps its state between pieces of input."""

    def __init__(self, escape: int | None) -> None:
        """*escape* is the byte before a command; None if there is none."""
        self.escape = escape
        self._is_escaped = False
        self._asks: Action | None = None
        self._line = bytearray()

    @property
    def is_asking(self) -> bool:
        """Is a line typed, which output would disturb?"""
        return self._asks is not None

    @property
    def name(self) -> str:
        """The escape character, as people call it."""
        assert self.escape is not None
        return f"ctrl-{chr(self.escape ^ 0x40).lower()}"

    def feed(self, data: bytes) -> Iterator[Item]:
        """Yield in order what is typed for the device, and what is typed for us."""
        start = 0
        while start < len(data):
            if self._asks is not None:
                yield from self._edit(data[start])
                start += 1
            elif self._is_escaped:
                self._is_escaped = False
                yield from self._command(data[start])
                start += 1
            else:
                end = -1 if self.escape is None else data.find(self.escape, start)
                if end < 0:
                    yield data[start:]
                    return
                if end > start:
                    yield data[start:end]
                self._is_escaped = True
                start = end + 1

    def _command(self, key: int) -> Iterator[Item]:
        if key == self.escape:
            yield bytes([key])
            return
        action = _ACTION_OF.get(key, Action.HELP)
        prompt = PROMPTS.get(action)
        if prompt is None:
            yield Do(action)
        else:
            self._asks = action
            self._line.clear()
            yield Show(_END + prompt.encode())

    def _edit(self, key: int) -> Iterator[Item]:
        assert self._asks is not None
        if key in b"\r\n":
            action, self._asks = self._asks, None
            yield Show(_END)
            if line := self._line.decode(errors="replace").strip():
                yield Do(action, line)
        elif key in b"\x03\x1b" or key == self.escape:
            self._asks = None
            yield Show(_END)
        elif key in b"\b\x7f":
            yield from self._erase()
        elif key == ord("U") ^ 0x40:
            while self._line:
                yield from self._erase()
        elif key >= 0x20 and len(self._line) < MAX_LINE:
            self._line.append(key)
            yield Show(bytes([key]))

    def _erase(self) -> Iterator[Item]:
        """Erase the last character, of one byte or several (UTF-8)."""
        if not self._line:
            return
        while len(self._line) > 1 and self._line[-1] & 0xC0 == 0x80:
            self._line.pop()
        self._line.pop()
        yield Show(_ERASE)

    def help_lines(self) -> list[str]:
        """The lines of the help."""
        rows = [(f"{self.name} {' or '.join(action.keys)}", action.help) for action in Action]
        rows.append((f"{self.name} {self.name}", f"send {self.name} to the device"))
        width = max(len(keys) for keys, _ in rows)
        return [f"{keys:<{width}}  {what}" for keys, what in rows]
