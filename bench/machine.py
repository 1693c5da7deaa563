"""The machine: what it is, and whether anything else was busy on it during a run."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import attrs
import trio

from bench.contenders import PEERS, Contender
from trio_chardev.version import __version__

REST = 0.5  # seconds in which we do nothing, to see what others do
MAX_BUSY = 0.05  # of a processor, used by others while we rest
MAX_STEAL = 0.02  # of the time of all processors, taken by the hypervisor


def versions(peers: Iterable[Contender] = PEERS) -> dict[str, str]:
    """Return the version of everything that has a part in the figures."""
    found = {
        "trio-chardev": __version__,
        "Python": platform.python_version(),
        "Trio": trio.__version__,
        "Linux": platform.release(),
    }
    for peer in peers:
        if peer.program is not None and peer.is_installed:
            found[peer.program] = peer_version(peer.program, peer.version_option)
    return found


def peer_version(program: str, option: str) -> str:
    """Ask *program* for its version; a question mark if the answer is not understood."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(
            [program, option], capture_output=True, text=True, timeout=10, check=False
        )
        return find_version(said.stdout + said.stderr)
    return "?"


def find_version(text: str) -> str:
    """Return the number after the word version."""
    match = re.search(r"version (\d[\w.]*)", text)
    return match[1] if match else "?"


def describe() -> str:
    """Describe processors and memory."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} x {name}, {memory:.0f} GiB"


@attrs.frozen
class CpuTimes:
    """The first line of /proc/stat (proc(5)), in ticks of all processors."""

    total: int
    idle: int
    steal: int

    @classmethod
    def parse(cls, text: str) -> CpuTimes:
        """Parse the text of /proc/stat."""
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, text.split()[1:9])
        total = user + nice + system + idle + iowait + irq + softirq + steal
        return cls(total, idle + iowait, steal)

    @classmethod
    def now(cls) -> CpuTimes:
        """Read the times since the machine started."""
        return cls.parse(Path("/proc/stat").read_text())

    def busy_since(self, before: CpuTimes) -> float:
        """Return how many processors worked since *before*, on average."""
        total = max(1, self.total - before.total)
        return (1 - (self.idle - before.idle) / total) * (os.cpu_count() or 1)

    def stolen_since(self, before: CpuTimes) -> float:
        """Return the fraction of the time that the hypervisor gave to others."""
        return (self.steal - before.steal) / max(1, self.total - before.total)


def busy_at_rest() -> float:
    """Measure how many processors others keep busy, while we sleep."""
    before = CpuTimes.now()
    time.sleep(REST)
    return CpuTimes.now().busy_since(before)


@attrs.frozen
class Noise:
    """How busy others were during a run."""

    busy_before: float
    busy_after: float
    steal: float

    @property
    def warnings(self) -> list[str]:
        """The reasons to doubt the figures."""
        found = []
        if (busy := max(self.busy_before, self.busy_after)) > MAX_BUSY:
            found.append(f"other programs kept {busy:.2f} of a processor busy")
        if self.steal > MAX_STEAL:
            found.append(f"the hypervisor took {self.steal:.0%} of the time")
        return found


@attrs.define
class NoiseWatch:
    """Measures the machine before and after a run."""

    _busy: float = attrs.Factory(busy_at_rest)
    _begin: CpuTimes = attrs.Factory(CpuTimes.now)

    def end(self) -> Noise:
        """Return the noise of the whole run."""
        steal = CpuTimes.now().stolen_since(self._begin)
        return Noise(self._busy, busy_at_rest(), steal)
