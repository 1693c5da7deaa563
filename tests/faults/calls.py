"""System calls as strace logs them, and the errors with which a kernel may let each fail."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

SOCKET: Final = r"\d+<socket:"
MASTER: Final = r"\d+</dev/ptmx>"
TTY: Final = r"\d+</dev/(pts/|tty)"
PIPE: Final = r"\d+<(pipe:|[^>]*\.(in|out)>)"
FILE: Final = r"\d+</(?!dev/)(?![^>]*\.(in|out)>)"
NO_DESCRIPTOR: Final = "EMFILE ENFILE ENOMEM"
RULES: Final = tuple(
    (frozenset(names.split()), re.compile(arguments), tuple(errors.split()))
    for names, arguments, errors in (
        ("openat", r".*O_CREAT", f"ENOSPC EIO {NO_DESCRIPTOR}"),
        ("openat", r"", f"EIO {NO_DESCRIPTOR}"),
        ("read pread64 readv", FILE, "EIO"),
        ("write pwrite64 writev", FILE, "ENOSPC EIO EDQUOT"),
        ("write writev", TTY, "EIO ENOMEM"),
        ("write writev", MASTER, "ENOMEM"),
        ("write writev", PIPE, "ENOMEM"),
        ("sendto", r'\d+<socket:\[\d+\]>, "\\0", 1, 0,', ""),  # Trio wakes itself
        (
            "write",
            r'\d+<socket:\[\d+\]>, "\\\d+", 1\)',
            "",
        ),  # Python's signal handler wakes Trio
        ("write writev sendto sendmsg", SOCKET, "ENOBUFS ENOMEM"),
        ("recvmsg", SOCKET, "ENOMEM"),
        ("splice", r"", "ENOMEM"),
        ("fcntl", r"\d+<[^>]*>, F_DUPFD", "EMFILE"),
        ("fcntl", r"\d+<[^>]*>, F_SETPIPE_SZ", "EPERM ENOMEM"),
        ("fcntl", r"\d+<[^>]*>, F_SETLK|\d+<[^>]*>, F_OFD_SETLK", "ENOLCK EINTR"),
        ("flock", r"", "ENOLCK EINTR"),
        ("ioctl", r"\d+</dev/ptmx>, TIOCGPTPEER", "EMFILE ENFILE"),
        ("ioctl", r"\d+</dev/(pts/|tty)[^>]*>, (TC|TIOC|FIONREAD)", "EIO"),
        ("fstat newfstatat", r"\d+<(socket|pipe|anon_inode):", ""),
        ("fstat newfstatat statx readlink readlinkat access faccessat2", r".*", "EIO ENOMEM"),
        ("getdents64", r"", "EIO"),
        ("lseek", FILE, "EIO"),
        ("bind", r".*sun_path=\"", "ENOSPC EROFS EADDRINUSE"),
        ("bind", r"", "EADDRINUSE ENOMEM"),
        ("listen", r"", "EADDRINUSE ENOBUFS"),
        ("accept4 accept", r"", f"ENOBUFS ECONNABORTED {NO_DESCRIPTOR}"),
        ("connect", r".*AF_UNIX", "EAGAIN ECONNREFUSED ENOMEM"),
        ("connect", r"", "ECONNREFUSED ENOBUFS EADDRNOTAVAIL"),
        ("socket socketpair", r"", f"ENOBUFS {NO_DESCRIPTOR}"),
        ("getsockname getpeername", r"", "ENOBUFS"),
        ("epoll_create1 eventfd2 pipe2 inotify_init1", r"", NO_DESCRIPTOR),
        ("epoll_ctl", r".*EPOLL_CTL_ADD", "ENOSPC ENOMEM"),
        ("poll ppoll", r"", "EINTR"),
        ("inotify_add_watch", r"", "ENOSPC ENOMEM"),
        ("link linkat symlink symlinkat", r"", "ENOSPC EIO EDQUOT"),
        ("rename renameat renameat2", r"", "ENOSPC EIO EDQUOT"),
        ("unlink unlinkat", r"", "EIO EROFS"),
        ("fsync fdatasync", r"", "EIO ENOSPC"),
        ("ftruncate", r"", "EIO"),
        ("mkdir mkdirat mknodat", r"", "ENOSPC EIO"),
        ("mmap", r".*MAP_STACK", "ENOMEM"),
        ("clone3 clone", r".*CLONE_THREAD", "EAGAIN"),
        ("dup dup2 dup3", r"", "EMFILE"),
        ("close", FILE, "EIO ENOSPC EINTR"),
    )
)
"""Calls, their arguments, and their errors; the first rule that matches counts.

EIO of a PTY's master means that nobody has the slave open, and EIO of a terminal that is read that
it is hung up (n_tty.c): either that is so, and stays so, or it is not. EAGAIN is a fault only where
it means that there is no thread, or no place in a UNIX socket's queue. EPOLL_CTL_MOD and DEL,
epoll_wait (whose EINTR Python handles), F_SETFL, reading from a pipe, setsockopt and
the like can't fail for want of anything. Memory that is asked for by mmap without MAP_STACK is
Python's own affair.
"""

CALLS: Final = tuple(sorted(set().union(*(names for names, _, _ in RULES))))
LINE: Final = re.compile(r"(\d+) +(\w+)\((.*)")


@attrs.frozen
class Fault:
    """What is made to fail: the *when*-th of these calls of each thread."""

    call: str
    error: str
    when: int

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse what `str` returns."""
        call, error, when = text.split(":")
        return cls(call, error.removeprefix("error="), int(when.removeprefix("when=")))

    def __str__(self) -> str:
        return f"{self.call}:error={self.error}:when={self.when}"


def errors_of(call: str, arguments: str) -> tuple[str, ...]:
    """Return the errors with which a kernel may let this call fail."""
    for names, pattern, errors in RULES:
        if call in names and pattern.match(arguments):
            return errors
    return ()


def text_of(log: Path) -> str:
    """Return strace's log; empty if there is none."""
    return log.read_text(errors="replace") if log.exists() else ""


def lines_of(log: Path) -> Iterator[tuple[str, str, str]]:
    """Split strace's log into thread, call and the rest of each line."""
    for line in text_of(log).splitlines():
        if match := LINE.match(line):
            yield match[1], match[2], match[3]


def faults_of(log: Path) -> list[Fault]:
    """Return what can be made to fail, from the log of a run without faults."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[Fault, None] = {}
    for thread, call, arguments in lines_of(log):
        counts[thread, call] += 1
        for error in errors_of(call, arguments):
            found[Fault(call, error, counts[thread, call])] = None
    return list(found)


def injected_in(log: Path) -> list[str]:
    """Return what was made to fail; nothing if some of it is an error that no kernel gives.

    For another thread the same number is another call.
    """
    found = [it for it in lines_of(log) if "(INJECTED)" in it[2]]
    if not all(errors_of(call, arguments) for _, call, arguments in found):
        return []
    return [f"{call}({arguments}" for _, call, arguments in found]


def is_cut(log: Path, call: str) -> bool:
    """Was strace stopped during *call*? If that was made to fail, it had yet another error then."""
    return re.search(rf"^\d+ +{call}\(.*<detached", text_of(log), re.MULTILINE) is not None
