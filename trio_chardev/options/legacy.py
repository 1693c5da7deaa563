"""The one-string forms of ``-serial``, ``-monitor`` and ``-qmp``, such as ``tcp::4444,server``.

Each form is a regular expression whose named groups are options of ``--chardev``, plus the options
that the form implies. Host and port have QEMU's limits of 64 and 32 characters, but a host may be
in brackets, so that IPv6 works: ``tcp:[::1]:4444``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from trio_chardev.options.grammar import ChardevGrammar, ChardevSpec
from trio_chardev.options.keyval import Item, split_items
from trio_chardev.plain_errors import OptionsError

_HOST: Final = r"\[[^\]]*\]|[^:]{0,64}"
_TCP: Final = rf"(?P<host>{_HOST}):(?P<port>[^,]{{1,32}})(?:,(?P<options>.*))?"
_UDP: Final = (
    rf"(?P<host>{_HOST}):(?P<port>[^@,]{{1,32}})"
    rf"(?:@(?P<localaddr>{_HOST}):(?P<localport>[^,]{{1,32}}))?"
)

_FORMS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    (r"(?P<backend>null|pty|msmouse|wctablet|braille|testdev|stdio)", {}),
    (r"(?P<backend>vc).*", {}),
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
    """The chardev that a one-string form stands for."""

    id: str
    spec: ChardevSpec | None
    """The chardev to make; None if one with that id exists (``chardev:ID``)."""

    @property
    def wants_monitor(self) -> bool:
        """Does QEMU put a human monitor on the mux as well?"""
        return self.spec is not None and self.spec.mux


def parse_legacy(grammar: ChardevGrammar, text: str, id: str) -> LegacyChardev | None:
    """Parse *text* as a chardev to be called *id*; return None for ``none``.

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
        if text == "stdio":  # Ctrl-C goes to the users of the mux
            muxed.append(Item("signal", "off"))
    return LegacyChardev(id, grammar.from_items(id, [*muxed, *_items(text)]))


def _items(text: str) -> Iterator[Item]:
    for pattern, fixed in _FORMS:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return _from_groups({**fixed, **match.groupdict()})
    raise OptionsError(f"'{text}' is not a valid char driver")


def _from_groups(groups: Mapping[str, str | None]) -> Iterator[Item]:
    """Yield the items; the last of a key wins, so the protocol comes last and can't be unset."""
    for key, value in groups.items():
        if value is not None and key not in ("options", "unix", "fd", "protocol"):
            yield Item(key, value.strip("[]") if key in ("host", "localaddr") else value)
    more = [
        *split_items(groups.get("options") or ""),
        *split_items(groups.get("unix") or "", "path"),
        *split_items(groups.get("fd") or "", "fd"),
    ]
    for item in more:
        yield Item(item.key, item.value)  # as in QEMU, bare words give no warning and no help
    if protocol := groups.get("protocol"):
        yield Item(protocol, "on")
