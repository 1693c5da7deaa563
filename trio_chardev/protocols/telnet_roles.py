"""Telnet's commands and options, and the roles of its parties: what each offers and agrees to."""

from __future__ import annotations

import attrs

EOR, SE, NOP, BREAK, IP, AYT, SB = 239, 240, 241, 243, 244, 246, 250  # RFC 854; EOR: RFC 885
WILL, WONT, DO, DONT, IAC = 251, 252, 253, 254, 255

BINARY, ECHO, SUPPRESS_GO_AHEAD, TERMINAL_TYPE, END_OF_RECORD = 0, 1, 3, 24, 25
WINDOW_SIZE = 31  # RFC 1073, which calls it NAWS
COM_PORT = 44  # RFC 2217


@attrs.frozen(kw_only=True)
class Role:
    """What a party offers, and what it agrees to."""

    ours: frozenset[int] = frozenset()
    """Options that we may use (WILL)."""
    theirs: frozenset[int] = frozenset()
    """Options that the peer may use (DO)."""
    offers: tuple[tuple[int, int], ...] = ()
    """Verbs and options to send first."""
    opening: bytes = b""
    """Bytes to send after the offers."""
    passes: frozenset[int] = frozenset()
    """Commands that are passed on as data."""
    has_records: bool = False
    """Does the user encode commands and records itself, so that data is sent as it is?"""


SERVER = Role(
    ours=frozenset({BINARY, ECHO, SUPPRESS_GO_AHEAD}),
    theirs=frozenset({BINARY, SUPPRESS_GO_AHEAD, WINDOW_SIZE}),
    offers=(
        *((WILL, ECHO), (WILL, SUPPRESS_GO_AHEAD), (WILL, BINARY), (DO, BINARY)),
        (DO, WINDOW_SIZE),
    ),
)
"""Makes the client send each key at once and echo none, and asks for the size of its window; begins with
QEMU's bytes."""

CLIENT = Role(
    ours=frozenset({BINARY, SUPPRESS_GO_AHEAD, WINDOW_SIZE}),
    theirs=frozenset({BINARY, ECHO, SUPPRESS_GO_AHEAD}),
)
"""Leaves the choice to the server, but offers to tell the size of the window once it is known."""

COM_PORT_SERVER = attrs.evolve(
    SERVER,
    ours=SERVER.ours | {COM_PORT},
    theirs=SERVER.theirs | {COM_PORT},
    offers=(*SERVER.offers, (DO, COM_PORT)),
)
"""Has a serial line (RFC 2217). A plain client refuses the last offer, and is one of telnet."""

COM_PORT_CLIENT = Role(
    ours=CLIENT.ours | {COM_PORT},
    theirs=CLIENT.theirs | {COM_PORT},
    offers=(
        *((WILL, BINARY), (DO, BINARY), (WILL, SUPPRESS_GO_AHEAD), (DO, SUPPRESS_GO_AHEAD)),
        (WILL, COM_PORT),
    ),
)
"""Uses the serial line of a server, whose bytes are binary both ways from the first on."""

TN3270_SERVER = Role(
    ours=frozenset({BINARY, END_OF_RECORD}),
    theirs=frozenset({BINARY, END_OF_RECORD, TERMINAL_TYPE}),
    offers=(
        (DO, END_OF_RECORD),
        (WILL, END_OF_RECORD),
        (DO, BINARY),
        (WILL, BINARY),
        (DO, TERMINAL_TYPE),
    ),
    opening=bytes([IAC, SB, TERMINAL_TYPE, 1, IAC, SE]),  # 1: SEND (RFC 1091)
    passes=frozenset({EOR, SB, SE}),
    has_records=True,
)
"""For a user that speaks 3270 (RFC 1576) and, like QEMU's, makes and parses the records itself: it
gets the commands around them, and its own commands are sent as they are."""

TN3270_CLIENT = Role(
    ours=TN3270_SERVER.theirs,
    theirs=TN3270_SERVER.ours,
    passes=TN3270_SERVER.passes,
    has_records=True,
)
"""The other end of `TN3270_SERVER`; the user answers when it is asked for its terminal type."""
