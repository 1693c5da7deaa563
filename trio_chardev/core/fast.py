"""Whether there are fast ways beside the plain one: spliced, direct, and polled.

They save time and nothing else: with `ways` off all is as before, and slower. A run of the tests
does that (`pytest --plain`), and so who looks for a fault can find out whether it is one of theirs.
"""

from __future__ import annotations

import attrs


@attrs.define
class Ways:
    """The one switch."""

    are_taken: bool = True


ways = Ways()
