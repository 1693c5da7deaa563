"""Peers that are there, and would not be let in if they came now."""

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
    """Name those of chardev *label*'s *links* that *refusal_of* has a reason for, and the reasons.

    The log has them, too, and *end* is called with each.
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
