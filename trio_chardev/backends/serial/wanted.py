"""A serial line as a whole: how it was found, and how it is wanted, with its locks."""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import attrs
from trio_serial.linux import LinuxSerialStream

from trio_chardev.backends.serial import driver
from trio_chardev.backends.serial.driver import DriverSetting, Undo
from trio_chardev.backends.serial.holders import name_holders
from trio_chardev.backends.serial.line import (
    Termios2,
    apply_line,
    apply_line_but_speed,
    is_locked_unless_told,
    is_pty,
)
from trio_chardev.backends.serial.modem import (
    NO_SUCH_CONTROL,
    is_hung_up,
    read_modem,
    write_break,
    write_modem,
)
from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.errors import BackendError, backend_errors
from trio_chardev.events import LineSettings, ModemLines

NO_LINES = ModemLines(0)
NOT_ON_A_PTY = frozenset({"modem"})  # as it is known to have none


@attrs.frozen
class Found:
    """The state of a line before it was altered."""

    settings: Termios2
    modem: ModemLines | None

    @classmethod
    def at(cls, fd: int) -> Found:
        """Read the state of *fd*. Raises OSError, with `NO_SUCH_CONTROL` if it is not a line."""
        settings = Termios2.of(fd)
        try:
            return cls(settings, read_modem(fd))
        except OSError:
            return cls(settings, None)

    def restore(self, fd: int) -> None:
        """Restore what differs, unless the line is gone."""
        with suppress(OSError):
            if Termios2.of(fd) != self.settings:
                self.settings.apply(fd)
            if self.modem is not None:
                write_modem(fd, self.modem)


@attrs.define(eq=False, repr=False)
class WantedLine:
    """The wanted state of a line, with methods that put a line into it."""

    device: str
    settings: LineSettings
    exclusive: bool | None = None
    """Is it to be locked? None leaves that to the kind of device."""
    hupcl: bool = True
    driver: tuple[DriverSetting, ...] = ()
    modem: ModemLines = NO_LINES
    driven: ModemLines = NO_LINES
    """The outputs that are to be as in `modem`; the others are left as they are."""
    is_break: bool = False
    """Is the break on? The kernel can't be asked."""
    is_locked: bool = False
    missing: frozenset[str] = frozenset()
    """What the driver has refused, see `Line.missing`."""
    _is_known: bool = False
    """Has a line been set up? Then what it did not refuse then must not fail any more."""
    _speed: int | None = None
    """The speed in force, if the device does not do that of `settings`."""
    _no_wonder: frozenset[str] = frozenset()
    """What of `missing` deserves no warning: a PTY has no modem lines."""
    _undos: list[Undo] = attrs.Factory(list)

    @classmethod
    def of(cls, options: SerialOptions) -> WantedLine:
        """What *options* want."""
        modem = driven = NO_LINES
        for output, state in (ModemLines.DTR, options.dtr), (ModemLines.RTS, options.rts):
            if state != "keep":
                driven |= output
                modem |= output if state == "on" else NO_LINES
        return cls(
            device=options.path,
            settings=options.line,
            exclusive=options.exclusive,
            hupcl=options.hupcl,
            driver=tuple(driver.settings_of(options)),
            modem=modem,
            driven=driven,
        )

    @property
    def in_force(self) -> LineSettings:
        """The settings that the line has, or will have when it is there."""
        if self._speed is None:
            return self.settings
        return attrs.evolve(self.settings, speed=self._speed)

    def note_set(self, settings: LineSettings) -> None:
        """Note that *settings* are in force now, or wanted."""
        self.settings = settings
        self._speed = None
        self.missing -= {"speed"}

    @property
    def refused(self) -> frozenset[str]:
        """What of `missing` deserves a warning."""
        return self.missing - self._no_wonder

    def words_for_refused(self) -> Iterator[str]:
        """Name what is `refused`."""
        words = {
            "modem": "modem lines",
            "speed": f"{self.settings.speed} baud (it has {self._speed})",
        }
        return (words.get(name, name) for name in sorted(self.refused))

    # ------------------------------------------------------------ putting a line into this state

    async def set_up(self, fd: int) -> None:
        """Set up a line that was just opened. Raises BackendError, perhaps half way."""
        with backend_errors(f"Could not set up '{self.device}'"):
            locks = self._locks(fd)
            if locks:
                try:
                    self._lock(fd)
                except BlockingIOError as exc:
                    raise self._held(await name_holders(self.device)) from exc
            # It opens the line again, and leaves it raw when it closes that. It is given our
            # descriptor, as the name may be on a disk that hangs, or lead elsewhere by now.
            async with LinuxSerialStream(f"/proc/self/fd/{fd}"):
                pass
            self._apply(fd)
            if locks:
                self._refuse_opens(fd)

    def take_over(self, fd: int, before: WantedLine) -> None:
        """Set up a line that is as *before* says. Raises BackendError, and then restores it."""
        self.missing, self._is_known, self._speed = before.missing, True, before._speed
        with backend_errors(f"Could not take over '{self.device}'"):
            locks = self._locks(fd)
            is_new_lock = locks and not before.is_locked
            found = Found.at(fd)
            try:
                if is_new_lock:
                    self._lock(fd)
                self._apply(fd, before)
                if is_new_lock:
                    self._refuse_opens(fd)
            except BlockingIOError as exc:
                raise self._held("another program has it") from exc
            except BaseException:
                self.restore(fd, found, is_break=before.is_break)
                if is_new_lock:  # closing would not undo it: the descriptor shares its description
                    fcntl.flock(fd, fcntl.LOCK_UN)
                raise
        if before.is_locked and not locks:
            before.unlock(fd)
        self.is_locked = locks

    def restore(self, fd: int, found: Found, *, is_break: bool = False) -> None:
        """Undo what was done to a line that was as *found*, as far as it is still there."""
        found.restore(fd)
        for undo in reversed(self._undos):
            with suppress(OSError):
                undo(fd)
        self._undos.clear()
        if self.is_break != is_break:
            with suppress(OSError):
                write_break(fd, is_break)

    def _apply(self, fd: int, before: WantedLine | None = None) -> None:
        """Do all but the locks, and note what the driver refuses. Raises BackendError, OSError."""
        missing: set[str] = set()
        if self._may_miss("speed"):
            speed = apply_line_but_speed(fd, self.device, self.settings, hupcl=self.hupcl)
        else:
            apply_line(fd, self.device, self.settings, hupcl=self.hupcl)
            speed = self.settings.speed
        self._speed = None
        if speed != self.settings.speed:
            self._speed = speed
            missing.add("speed")
        for name, do in self._controls(fd, before):
            try:
                do()
            except OSError as exc:
                if is_hung_up(fd):
                    raise
                if exc.errno not in NO_SUCH_CONTROL and not self._may_miss(name):
                    raise
                missing.add(name)
        if before is not None:
            missing |= before.missing & {"break"}  # it was not asked again
        self.missing, self._is_known = frozenset(missing), True
        self._no_wonder = NOT_ON_A_PTY if is_pty(fd) and not self.driven else frozenset()

    def _may_miss(self, name: str) -> bool:
        return not self._is_known or name in self.missing

    def _controls(
        self, fd: int, before: WantedLine | None
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """What the driver may refuse, by its name in `missing`."""
        yield "modem", partial(write_modem, fd, self.modem, self.driven)
        if before is None or self.is_break != before.is_break:
            # Turning it off, as another program may have left it on, shows whether there is any.
            yield "break", partial(write_break, fd, self.is_break)
        for setting in self.driver:
            yield setting.name, partial(self._apply_driver, fd, setting)

    def _apply_driver(self, fd: int, setting: DriverSetting) -> None:
        if undo := driver.apply(fd, setting):
            self._undos.append(undo)

    # ------------------------------------------------------------ locks

    def unlock(self, fd: int) -> None:
        """Undo the locks; TIOCEXCL would hold for as long as anybody has the line open."""
        if self.is_locked:
            self.is_locked = False
            with suppress(OSError):  # hung up, which undoes the locks
                fcntl.ioctl(fd, termios.TIOCNXCL)
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _locks(self, fd: int) -> bool:
        return is_locked_unless_told(os.fstat(fd)) if self.exclusive is None else self.exclusive

    def _lock(self, fd: int) -> None:
        """Take the lock that terminal programs look at; other programs heed TIOCEXCL only.

        Raises BlockingIOError if it is taken, BackendError if the file system has no locks.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as exc:
            raise BackendError.from_os_error(f"Could not lock '{self.device}'", exc) from exc

    def _held(self, by: str) -> BackendError:
        return BackendError(f"Could not lock '{self.device}': {by}")

    def _refuse_opens(self, fd: int) -> None:
        self.is_locked = True
        try:
            fcntl.ioctl(fd, termios.TIOCEXCL)
        except OSError:
            if is_hung_up(fd):
                raise
            self.missing |= {"exclusive"}  # those that look at the other lock are kept out
