"""Finds connected peers that would not be let in if they came now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from trio_chardev.backends.socket.link import Link

log = logging.getLogger(__name__)


def recheck(
    label: str,
    links: Iterable[Link],
    refusal_of: Callable[[Link], str | None],
    end: Callable[[Link], None] | None,
) -> list[tuple[str, str]]:
    """Return the names of the peers on *links* that would be refused, with the reasons.

    *refusal_of* gives the reason, or None. Each is logged for chardev *label*, and *end* is called
    with it.
    """
    refused = [(link, why) for link in links if (why := refusal_of(link)) is not None]
    for link, why in refused:
        what = "stays" if end is None else "is let go"
        log.warning(
            "chardev '%s': %s would not be let in now: %s; it %s", label, link.name, why, what
        )
        if end is not None:
            end(link)
    return [(link.name, why) for link, why in refused]
