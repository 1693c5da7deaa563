"""What QMP clients have added, changed and removed, kept in a file (``serve --state``).

The file is JSON. For each id it has the state now (null: removed), and that of the command line, if
the command line has that id. The file is always replaced whole: a new one is written in the same
folder, synced and renamed, and the folder synced, so a crash leaves the old one or the new one.
Only one thread writes at a time; changes made meanwhile go into the next file. A command is
answered when its change is in the file. If the disk fails, that is logged and tried again until it
works, and commands are answered all the same.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, get_args

import attrs
import trio

from trio_chardev.errors import OptionsError, strerror
from trio_chardev.files import check_own, read_file
from trio_chardev.workers import run_in_worker

log = logging.getLogger(__name__)

Table = Literal["objects", "chardevs", "devices"]
TABLES: Final[tuple[Table, ...]] = get_args(Table)  # in the order in which to restore them
VERSION: Final = 1
MAX_SIZE: Final = 1 << 30  # bytes
RETRY_INTERVAL = 5.0  # seconds after a failure
SAY_AGAIN_INTERVAL = 60.0  # seconds until a failure that lasts is logged again
_NAME: Final = "trio-chardev"


@attrs.frozen
class Entry:
    """What clients have made of an id."""

    now: Any
    """The arguments that QMP adds it with; None if it was removed."""

    was: Any = None
    """What the command line adds under that id; None if nothing."""


@attrs.define(eq=False, repr=False)
class StateFile:
    """What clients have set up; kept nowhere unless `open_state_file` has made it."""

    path: str | None = None
    entries: dict[Table, dict[str, Entry]] = attrs.field(init=False)
    _base: dict[Table, dict[str, Any]] = attrs.field(init=False)
    _rows: dict[tuple[Table, str], str] = attrs.field(factory=dict, init=False)
    _version: int = attrs.field(default=0, init=False)
    _tried: int = attrs.field(default=0, init=False)
    _is_failing: bool = attrs.field(default=False, init=False)
    _say_again: float = attrs.field(default=0.0, init=False)
    _wake: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _written: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self.entries = {table: {} for table in TABLES}
        self._base = {table: {} for table in TABLES}

    @property
    def is_kept(self) -> bool:
        """Is there a file?"""
        return self.path is not None

    def set_base(self, table: Table, id: str, was: Any) -> None:
        """Note that the command line adds *id* as *was*."""
        self._base[table][id] = was

    def note(self, table: Table, id: str, now: Any) -> None:
        """Note that *id* is *now*, in the form in which QMP adds it; None means removed."""
        if self.path is None:
            return
        was = self._base[table].get(id)
        if now == was:
            self.forget(table, id)
            return
        self.entries[table][id] = entry = Entry(now, was)
        row = {"id": id, "now": entry.now} | ({} if was is None else {"was": was})
        self._rows[table, id] = json.dumps(row)
        self._note_change()

    def forget(self, table: Table, id: str) -> None:
        """Note that *id* is as the command line says, or does not exist."""
        if self.entries[table].pop(id, None) is not None:
            del self._rows[table, id]
            self._note_change()

    def _note_change(self) -> None:
        self._version += 1
        self._wake.unpark_all()

    async def flush(self) -> None:
        """Wait until what was noted is in the file, or could not be written."""
        version = self._version
        while self.path is not None and self._tried < version:
            await self._written.park()

    async def keep(self, table: Table, id: str, now: Any) -> None:
        """Do `note` and `flush`."""
        self.note(table, id, now)
        await self.flush()

    # ------------------------------------------------------------ the file

    async def run(self) -> None:
        """Write what is noted to the file, until cancelled."""
        if self.path is None:
            return
        saved = 0
        limiter = trio.CapacityLimiter(1)  # so an abandoned write ends before the next begins
        while True:
            if saved == self._version:
                await self._wake.park()
            version, text = self._version, self._text()
            try:
                await run_in_worker(_replace, self.path, text, limiter=limiter)
            except OSError as exc:
                self._note_failure(exc)
            else:
                saved = version
                if self._is_failing:
                    log.warning("'%s' is written again", self.path)
                self._is_failing = False
            self._tried = version
            self._written.unpark_all()
            if self._is_failing:
                with trio.move_on_after(RETRY_INTERVAL):
                    await self._wake.park()

    def _note_failure(self, error: OSError) -> None:
        """Log *error*, and again now and then: the log may be on the same disk, or read later."""
        now = trio.current_time()
        if not self._is_failing or now >= self._say_again:
            log.error("Could not write '%s': %s", self.path, strerror(error))
            self._say_again = now + SAY_AGAIN_INTERVAL
        self._is_failing = True

    def _text(self) -> str:
        parts = [f'{{"{_NAME}": {VERSION}']
        for table in TABLES:
            rows = [row for (of, _), row in self._rows.items() if of == table]
            parts.append(f'"{table}": [\n' + ",\n".join(rows) + "\n]")
        return ",\n".join(parts) + "}\n"

    def read(self) -> None:
        """Read the file, if it exists. Raises OptionsError."""
        assert self.path is not None
        try:
            text = read_file(self.path, MAX_SIZE, _open_own).decode()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise OptionsError(f"Could not open '{self.path}': {strerror(exc)}") from exc
        except ValueError as exc:
            raise self._alien(str(exc)) from exc
        if not text.strip():  # an empty file, made by mktemp(1) or touch(1)
            return
        try:
            self._load(json.loads(text))
        except (ValueError, RecursionError) as exc:
            raise self._alien(str(exc)) from exc

    def _load(self, document: Any) -> None:
        """Take over what *document* says. Raises ValueError if it is not a state file."""
        if not isinstance(document, dict) or _NAME not in document:
            raise ValueError("it does not begin as one")
        tables = dict(document)
        if (version := tables.pop(_NAME)) != VERSION:
            known = f"this program knows version {VERSION}"
            raise ValueError(
                f"it is of version {version}, and {known}" if type(version) is int else known
            )
        for table in TABLES:
            rows = tables.pop(table, [])
            if not isinstance(rows, list):
                raise ValueError(f"'{table}' is no list")
            for number, row in enumerate(rows, 1):
                match row:
                    case {"id": str(id), "now": now, **more} if more.keys() <= {"was"}:
                        self._base[table] = {id: more.get("was")}
                        self.note(table, id, now)
                    case _:
                        # The row is not quoted: it may have a secret.
                        raise ValueError(f"row {number} of '{table}' is damaged")
            self._base[table] = {}
        if tables:
            raise ValueError(f"it has '{next(iter(tables))}'")
        self._version = 0

    def _alien(self, why: str) -> OptionsError:
        return OptionsError(f"'{self.path}' is not a state file of trio-chardev: {why}")


@contextmanager
def open_state_file(path: str) -> Iterator[StateFile]:
    """Open the state file *path*, locked against other services; make it if it is missing.

    Raises OptionsError, and leaves an existing file as it is.
    """
    path = os.path.realpath(path)
    lock = f"{path}.lock"
    try:
        fd = _open_own(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as exc:
        raise OptionsError(f"Could not open '{lock}': {strerror(exc)}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise OptionsError(f"'{path}' is the state of another service") from exc
        except OSError as exc:
            raise OptionsError(f"Could not lock '{lock}': {strerror(exc)}") from exc
        state_file = StateFile(path)
        state_file.read()
        yield state_file
    finally:
        with suppress(OSError):  # it is closed even then, see close(2)
            os.close(fd)


def _open_own(path: str, flags: int) -> int:
    """Open a file that is not another user's; a new one gets 0600. Raises OSError, ValueError."""
    fd = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        check_own(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _replace(path: str, text: str) -> None:
    """Replace the file *path* with one that contains *text*, atomically. Raises OSError."""
    beside = f"{path}.tmp"
    fd = _create(beside)
    try:
        os.fchmod(fd, 0o600)
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
        os.rename(beside, path)
        if not os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
            raise OSError("Somebody else has put his own file there")
    finally:
        os.close(fd)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _create(path: str) -> int:
    """Create a file and open it for writing. Raises OSError.

    An existing one is deleted first. No other service writes there, see `open_state_file`, so it
    was left by a crash, or put there by somebody who wants to read what is written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
    return os.open(path, flags, 0o600)
