"""The options of a console, and what a listener or chardev-attach says of its clients."""

from __future__ import annotations

from typing import Literal

import attrs

from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text_or_none

OnFull = Literal["wait", "refuse", "kick"]
Write = Literal["all", "first", "one"]
Slow = Literal["skip", "kick"]
Role = Literal["write", "read-only"]

BEHIND = 1 << 16
"""Bytes that a client may be behind, even without a history."""
MAX_HISTORY = 1 << 28  # bytes; copied at once, if a console of another size takes over
MAX_CLIENTS = 1024
MAX_TIME = 7 * 86400  # seconds
MAX_LINES = 100_000
PLACEHOLDERS = ("console", "client", "who", "role", "clients", "time", "version")


@attrs.frozen(kw_only=True)
class ConsoleOptions(BackendOptions):
    """Lets many clients, who come by listeners or descriptors, watch and type; has a history."""

    history: int = 0
    """Bytes of the output that are kept, for clients that come later and for chardev-history; what a
    client may be behind, 64k, is kept in any case."""

    history_file: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File that keeps the history as well, to begin with after a crash."""

    replay: str | None = None
    """What of the history a newcomer gets first: on, off, a number of lines, or the name of a mark.
    By default all of it, and nothing without 'history'. A listener may say otherwise."""

    max_clients: int = 64
    """The most clients at the same time."""

    on_full: OnFull = "refuse"
    """When one more comes: make him wait, refuse him, or let the one go who came first."""

    write: Write = "all"
    """Who of those whose role is to write does type: all, the first who came until he leaves, or
    one: who types while nobody has the right has it, and hands it over by chardev-give-write."""

    slow: Slow = "skip"
    """When a client is so far behind that what comes next is gone: skip to the end and tell him how
    much, or let him go."""

    notice: bool = False
    """Tell people who came and went, who has the right to write, and what happens to the device."""

    banner: str | None = None
    r"""Line that people get first. Placeholders: {console}, {client}, {who}, {role}, {clients} (how
    many are there), {time}, {version}."""

    idle_timeout: int = 0
    """Seconds without typing after which a client who may type is let go; 0 is never."""

    dead_timeout: int = 300
    """Seconds in which a client that was sent something acknowledges none of it, after which it is
    let go; 0 is never."""

    @property
    def ring_size(self) -> int:
        """How many bytes are kept."""
        return max(self.history, BEHIND)

    def check(self) -> None:
        """Raise OptionsError for values that make no sense."""
        for name, most in (
            ("history", MAX_HISTORY),
            ("idle_timeout", MAX_TIME),
            ("dead_timeout", MAX_TIME),
        ):
            _check_range(name, getattr(self, name), 0, most)
        _check_range("max_clients", self.max_clients, 1, MAX_CLIENTS)
        if self.history_file is not None and not self.history:
            raise OptionsError("'history-file' needs 'history', its size")
        if self.replay is not None:
            parse_replay(self.replay)
            if not self.history and self.replay != "off":
                raise OptionsError("'replay' needs 'history'")
        if self.banner is not None:
            check_banner(self.banner)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise OptionsError(f"'{name.replace('_', '-')}' must be from {least} to {most}")


@attrs.frozen
class Replay:
    """What of the history a newcomer gets first: *lines* of it, or from *mark* on; else all."""

    lines: int | None = None
    mark: str | None = None


NO_REPLAY = Replay(lines=0)
ALL = Replay()


def parse_replay(text: str) -> Replay:
    """Parse the option replay. Raises OptionsError."""
    match text:
        case "on":
            return ALL
        case "off":
            return NO_REPLAY
        case "":
            raise OptionsError("'replay' is on, off, a number of lines, or a mark")
    if text.isascii() and text.lstrip("-").isdigit():
        _check_range("replay", int(text), 0, MAX_LINES)
        return Replay(lines=int(text))
    return Replay(mark=text)


def check_banner(banner: str) -> None:
    """Raise OptionsError for a banner with unknown placeholders."""
    try:
        banner.format(**dict.fromkeys(PLACEHOLDERS, ""))
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise OptionsError(f"'banner' has {exc}, which is none of {known}") from exc


@attrs.frozen(kw_only=True)
class Manner:
    """How the clients of one listener, or one that was attached, are treated."""

    role: Role = "write"
    replay: str | None = None
    """As for the console; None leaves it to that."""
    since: int | None = None
    """The cursor to begin at, which counts more than `replay`."""
    is_terminal: bool = True
    """May a terminal be there, which answers queries?"""
    is_told: bool = False
    """Is there a person, who is told in lines of text what he would not know otherwise?"""
    is_exact: bool = False
    """Does it count what it gets? Then it gets all that is printed and nothing else: what is for
    people is told by notices, and if it is too slow it is let go, to come again by its count."""
