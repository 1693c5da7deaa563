"""A service that was forked from this process, and strace at it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import attrs

import trio_chardev
from tests.faults.calls import CALLS, Fault
from trio_chardev.backends.table import BACKEND
from trio_chardev.cli import main
from trio_chardev.options.structure import structure

for module in pkgutil.walk_packages(trio_chardev.__path__, "trio_chardev."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)  # so that no service has to
structure(BACKEND, {"type": "null", "data": {}})  # makes what is made at the first use

PATIENCE: Final = 60.0  # seconds, for a machine that is busy: no verdict may depend on it
LOOK_INTERVAL: Final = 0.005  # seconds
MAX_FDS: Final = 256


@attrs.define
class Service:
    """``trio-chardev serve``; its standard output and error are files in *folder*."""

    pid: int
    folder: Path
    status: int | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        *arguments: str,
        stdin: int | None = None,
        before: Callable[[], object] = lambda: None,
        is_held: bool = False,
    ) -> Service:
        """Fork it. With *is_held* it stops before it does anything, until `go_on`.

        *before* is called in it first, for example to break it or to fake a device.
        """
        gc.collect()  # else remains of an earlier trial would be closed in the service
        pid = os.fork()
        if not pid:
            _serve(folder, arguments, stdin, before, is_held)
        service = cls(pid, folder)
        if is_held:
            os.waitpid(pid, os.WUNTRACED)
        return service

    @property
    def path(self) -> Path:
        """The path at which it listens for QMP."""
        return self.folder / "qmp"

    @property
    def said(self) -> str:
        """Return its standard error."""
        return (self.folder / "err").read_text(errors="replace")

    def go_on(self) -> None:
        """End `is_held`."""
        os.kill(self.pid, signal.SIGCONT)

    def has_ended(self) -> bool:
        """Has it ended? Then `status` is known."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self) -> int | None:
        """Wait until it ends; returns its status, or None if it does not end."""
        deadline = time.monotonic() + PATIENCE
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL)
        return self.status

    def signal(self, number: int) -> None:
        """Send it signal *number*, if it is there."""
        if not self.has_ended():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait()

    def descriptors(self) -> Counter[str]:
        """Count what it has open, without numbers that change."""
        found: Counter[str] = Counter()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
                target = target.replace(str(self.folder), "~").removesuffix(" (deleted)")
                found[re.sub(r"\d+", "N", target)] += 1
        return found


def _serve(
    folder: Path,
    arguments: Sequence[str],
    stdin: int | None,
    before: Callable[[], object],
    is_held: bool,
) -> NoReturn:
    """Run the service in the forked process."""
    status = 70
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(fd, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        os.closerange(3, MAX_FDS)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        logging.root.handlers.clear()  # those of a test
        sys.argv = ["trio-chardev", "serve", *arguments]
        before()
        if is_held:
            os.kill(os.getpid(), signal.SIGSTOP)
        main()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: ASYNC103 - as the interpreter does at the end
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(status)


class Tracer:
    """strace attached to a service; its log is the file *log*."""

    def __init__(self, service: Service, log: Path, fault: Fault | None) -> None:
        log.unlink(missing_ok=True)
        calls = CALLS if fault is None else (fault.call,)
        inject = [] if fault is None else ["-e", f"inject={fault}"]
        argv = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={','.join(calls)}", *inject]
        self._process = subprocess.Popen([*argv, "-p", str(service.pid)], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if b"attached" not in said:
            self.stop()
            raise RuntimeError(f"strace: {said.decode()}")

    def stop(self) -> None:
        """Let the service go on without it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE)
