"""The contenders: this program and what a user would pick instead, if it is installed."""

from __future__ import annotations

import shutil

import attrs


@attrs.frozen
class Contender:
    """One side of a comparison: a program, a setting of it, or code that does without."""

    name: str
    program: str | None = None
    """The program that has to be installed for it, or None."""

    version_option: str = "--version"

    @property
    def is_installed(self) -> bool:
        """Can it be measured here?"""
        return self.program is None or shutil.which(self.program) is not None


OURS = Contender("trio-chardev")
QSD = Contender("qemu-storage-daemon", "qemu-storage-daemon")
QEMU = Contender("qemu-system-x86_64", "qemu-system-x86_64")
SOCAT = Contender("socat", "socat", "-V")
SOCAT_LARGE = Contender("socat -b262144", "socat", "-V")
SER2NET = Contender("ser2net", "ser2net", "-v")
CONSERVER = Contender("conserver", "conserver", "-V")

PEERS = (QSD, QEMU, SOCAT, SOCAT_LARGE, SER2NET, CONSERVER)


def select_peers(text: str) -> frozenset[Contender]:
    """Return the peers that ``--peers`` names: auto, none, or programs with commas between.

    Raises ValueError for an unknown name, or a program that is not installed.
    """
    if text == "none":
        return frozenset()
    if text == "auto":
        return frozenset(peer for peer in PEERS if peer.is_installed)
    programs = set(text.split(","))
    if unknown := programs - {peer.program for peer in PEERS}:
        raise ValueError(f"no such peer: {', '.join(sorted(unknown))}")
    peers = frozenset(peer for peer in PEERS if peer.program in programs)
    if missing := {peer.program for peer in peers if not peer.is_installed}:
        raise ValueError(f"not installed: {', '.join(sorted(map(str, missing)))}")
    return peers
