"""Processes of the program without the time in which it starts, for all of ``subprocess`` and Trio.

Where a test starts `tests.services.PROGRAM`, and nothing of it needs a Python of its own, the process
comes by fork(2) of one that has imported the program, `tests.forked`. It is a child of the test
process like any other: with the same descriptors, arguments, environment, signals and exit status.
``pytest --exec`` starts each of them anew.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.services import PROGRAM

AT_TERMINAL = ["setsid", "--ctty"]
OF_PYTHON = ("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_")
"""Variables that are read as a process starts: a process for which they differ is started anew."""
PR_SET_CHILD_SUBREAPER = 36

_exec: Any = getattr(subprocess, "_fork_exec", None)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _of_python(environ: dict[bytes, bytes]) -> dict[bytes, bytes]:
    names = tuple(name.encode() for name in OF_PYTHON)
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(names) and name != b"PYTHONUNBUFFERED"
    }


class Forking:
    """Stands in for what ``subprocess`` starts processes by."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._environ, self._cwd = dict(os.environb), os.getcwd()

    def begin(self) -> None:
        if _exec is not None:
            subprocess._fork_exec = self.fork_exec  # type: ignore[attr-defined]

    def end(self) -> None:
        """Start processes as before; the process that waits for jobs ends."""
        if _exec is not None:
            subprocess._fork_exec = _exec  # type: ignore[attr-defined]
        if self._sock is not None:
            self._sock.close()
            self._process.wait()

    def fork_exec(self, *how: Any) -> int:
        """Start a process; the arguments are those of ``_posixsubprocess.fork_exec``."""
        job = self._job(how)
        if job is None:
            return _exec(*how)  # type: ignore[no-any-return]
        fds = [number if fd == -1 else fd for number, fd in enumerate((how[6], how[9], how[11]))]
        return self._ask(job, [*fds, *job["numbers"][3:]])

    def _job(self, how: Sequence[Any]) -> dict[str, Any] | None:
        """What is to be started; None if not by fork."""
        words, (_, _, closes, kept, cwd, environ) = [os.fsdecode(word) for word in how[0]], how[:6]
        restores_signals, new_session, *others = how[14:22]
        controls_terminal = words[:2] == AT_TERMINAL
        del words[: 2 if controls_terminal else 0]
        if words[: len(PROGRAM)] != PROGRAM or not closes or not restores_signals:
            return None
        if others != [-1, None, None, None, -1, None] or (
            cwd is not None and not os.path.isdir(cwd)
        ):
            return None  # another user, group, umask, process group, or code to run before
        variables = dict(os.environb)
        if environ is not None:
            variables = dict(variable.split(b"=", 1) for variable in environ)
        if _of_python(variables) != _of_python(self._environ):
            return None
        return {
            "arguments": words[len(PROGRAM) :],
            "controls_terminal": controls_terminal,
            "cwd": os.path.abspath(os.fsdecode(cwd or ".")),
            "environ": variables,
            "new_session": bool(new_session),
            "numbers": [0, 1, 2, *(fd for fd in kept if fd > 2 and fd != how[13])],
            "umask": _umask(),
        }

    def _ask(self, job: dict[str, Any], fds: Sequence[int]) -> int:
        with self._lock:
            if self._sock is None:
                self._sock = self._start()
            _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._sock, [pickle.dumps(job)], fds)
                return int(self._sock.recv(64))
            finally:
                _prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _start(self) -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("forked.py"))
        with its:
            self._process = subprocess.Popen(
                [sys.executable, script, str(its.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env=self._environ,
                cwd=self._cwd,
            )
        return ours


def _umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
