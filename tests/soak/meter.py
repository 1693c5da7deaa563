"""The service's process, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from tests.soak.served import ANSWERS, MEMORY, STALLS

PROGRAM: Final = [sys.executable, "-m", "tests.soak.served", "serve"]
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class InUse:
    """How much memory the service uses."""

    blocks: int
    """Python's blocks: objects, and their memory."""

    malloced: int
    """malloc's bytes: what is too large for Python's blocks, and the libraries' memory."""


@attrs.define
class Service:
    """``trio-chardev serve`` with a listener for QMP at *path*."""

    process: subprocess.Popen[bytes]
    path: Path
    answers: BinaryIO
    """The answers of `tests.soak.served`."""

    @classmethod
    def start(cls, folder: Path, *arguments: str, prefix: Sequence[str] = ()) -> Service:
        """Start it, by the command *prefix*, and wait until it listens.

        Its log goes into a file in *folder*.
        """
        path = folder / "qmp.sock"
        path.unlink(missing_ok=True)
        source, answers = os.pipe()
        with (folder / "service.log").open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *PROGRAM, "--qmp", f"unix:{path},server=on,wait=off", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, ANSWERS: str(answers)},
                pass_fds=[answers],
            )
        os.close(answers)
        deadline = time.monotonic() + 120  # for a machine that is busy
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "service.log").read_text())
            time.sleep(0.01)
        return cls(process, path, open(source, "rb", buffering=0))

    def measure(self) -> InUse:
        """Ask how much memory is in use."""
        return InUse(*map(int, self._ask(MEMORY).split()))

    def stalls(self) -> dict[str, Any]:
        """Ask how many steps there were, how long they took, and which were the longest."""
        answer: dict[str, Any] = json.loads(self._ask(STALLS))
        return answer

    def _ask(self, question: bytes) -> bytes:
        assert self.process.stdin is not None
        self.process.stdin.write(question)
        self.process.stdin.flush()
        return self.answers.readline()

    @property
    def memory(self) -> int:
        """Return how many bytes are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def lasting_descriptors(self) -> int:
        """Return how many are open but for inotify's, which the first serial line opens for all."""
        folder = f"/proc/{self.process.pid}/fd"
        links = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
        return sum(link != "anon_inode:inotify" for link in links)

    @property
    def seconds(self) -> float:
        """Return its processor time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Send SIGKILL, so that it can't clean up."""
        self.process.kill()
        self.process.wait()
        self.answers.close()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
