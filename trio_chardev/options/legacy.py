"""The one-string forms of ``-serial``, ``-monitor`` and ``-qmp``, such as ``tcp::4444,server``.

Each form is a regular expression whose named groups are options of ``--chardev``; what
``-chardev`` would say about them is said here too. Host and port have QEMU's limits of 64 and
32 characters, but a host may stand in brackets, so that IPv6 works: ``tcp:[::1]:4444``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from trio_chardev.errors import OptionsError
from trio_chardev.options.grammar import ChardevGrammar, ChardevSpec
from trio_chardev.options.keyval import Item, split_items

_HOST: Final = r"\[[^\]]*\]|[^:]{0,64}"
_TCP: Final = rf"(?P<host>{_HOST}):(?P<port>[^,]{{1,32}})(?:,(?P<options>.*))?"
_UDP: Final = (
    rf"(?P<host>{_HOST}):(?P<port>[^@,]{{1,32}})"
    rf"(?:@(?P<localaddr>{_HOST}):(?P<localport>[^,]{{1,32}}))?"
)

_FORMS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    (r"(?P<backend>null|pty|msmouse|wctablet|braille|testdev|stdio)", {}),
    (r"(?P<backend>vc).*", {}),
    (r"con:", {"backend": "console"}),
    (r"(?P<path>COM.*)", {"backend": "serial"}),
    (r"(?P<backend>file|pipe|pty):(?P<path>.*)", {}),
    (rf"tcp:{_TCP}", {"backend": "socket"}),
    (rf"(?P<protocol>telnet|tn3270|websocket):{_TCP}", {"backend": "socket"}),
    (rf"udp:{_UDP}", {"backend": "udp"}),
    (r"unix:(?P<unix>.*)", {"backend": "socket"}),
    (r"fd:(?P<fd>.+)", {"backend": "socket"}),  # not QEMU's
    (r"(?P<path>/dev/(?:parport|ppi).*)", {"backend": "parallel"}),
    (r"(?P<path>/dev/.*)", {"backend": "serial"}),
)


@attrs.frozen
class LegacyChardev:
    """What a one-string form stands for."""

    id: str
    spec: ChardevSpec | None
    """The chardev to be made; None: a chardev with that id exists (``chardev:ID``)."""

    @property
    def wants_monitor(self) -> bool:
        """Put a human monitor on the mux, beside what the string is for."""
        return self.spec is not None and self.spec.mux


def parse_legacy(grammar: ChardevGrammar, text: str, id: str) -> LegacyChardev | None:
    """Read *text* as a chardev that shall be called *id*; None for ``none``.

    Raises OptionsError.
    """
    if text == "none":
        return None
    if text.startswith("chardev:"):
        return LegacyChardev(text.removeprefix("chardev:"), None)
    muxed = []
    if text.startswith("mon:"):
        text = text.removeprefix("mon:")
        muxed.append(Item("mux", "on"))
        if text == "stdio":  # Ctrl-C is for who is behind the mux
            muxed.append(Item("signal", "off"))
    return LegacyChardev(id, grammar.from_items(id, [*muxed, *_items(text)]))


def _items(text: str) -> Iterator[Item]:
    for pattern, fixed in _FORMS:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return _from_groups({**fixed, **match.groupdict()})
    raise OptionsError(f"'{text}' is not a valid char driver")


def _from_groups(groups: Mapping[str, str | None]) -> Iterator[Item]:
    """In an order in which the later ones win: the protocol cannot be switched off."""
    for key, value in groups.items():
        if value is not None and key not in ("options", "unix", "fd", "protocol"):
            yield Item(key, value.strip("[]") if key in ("host", "localaddr") else value)
    more = [
        *split_items(groups.get("options") or ""),
        *split_items(groups.get("unix") or "", "path"),
        *split_items(groups.get("fd") or "", "fd"),
    ]
    for item in more:
        yield Item(item.key, item.value)  # a bare word is no reason to warn, and `help` no help
    if protocol := groups.get("protocol"):
        yield Item(protocol, "on")
