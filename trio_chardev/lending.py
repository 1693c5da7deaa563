"""Lending: a chardev's device is given away for a while, and its users stay.

Both ways are changes of the backend, with all that a change promises. What stands in for the device
is in `backends.lent`; here is what is lent, and how it comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal, get_args

import attrs
import trio

from trio_chardev.access.sandbox import Sandbox
from trio_chardev.backends.taps.opened import with_taps
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.line import Line
from trio_chardev.errors import BackendError, ChangeRefusedError, ChardevError, OptionsError
from trio_chardev.notices import ChardevLent, ChardevReturned, Notice
from trio_chardev.options.backend import BackendOptions

log = logging.getLogger(__name__)

LendTo = Literal["pty"]
_NO_TAPS: dict[str, Any] = {
    field.name: field.default
    for field in attrs.fields(BackendOptions)
    if field.name.startswith(("log", "record"))
}


@attrs.frozen(eq=False, repr=False)
class _Loan:
    """What it takes to open a device again that is lent."""

    options: BackendOptions
    sandbox: Sandbox


@attrs.define(eq=False, repr=False)
class Lending:
    """Which chardevs of a registry have lent their device."""

    _nursery: trio.Nursery
    _opener: Callable[[BackendOptions, Sandbox], Opener]
    _with_environment: Callable[[Opener, Sandbox], Opener]
    _note_change: Callable[[Chardev], None]
    """Called when a chardev has another backend, before `_tell`."""
    _tell: Callable[[Notice], None]
    _loans: dict[Chardev, _Loan] = attrs.Factory(dict)

    def __contains__(self, chardev: object) -> bool:
        """Is the device of this chardev lent?"""
        return chardev in self._loans

    async def lend(
        self, chardev: Chardev, options: BackendOptions, sandbox: Sandbox, to: str | None
    ) -> None:
        """Lend the device, which has *options*; see `Registry.lend`. Raises as that does."""
        if to is not None and to not in get_args(LendTo):
            raise OptionsError(f"a device can be lent to a 'pty', not to '{to}'")
        loan = _Loan(_check_can_be_lent(chardev, options), sandbox)

        def check() -> None:
            if chardev in self._loans:
                raise ChangeRefusedError(f"Chardev '{chardev.id}' is lent already")

        if to is None:
            from trio_chardev.backends.lent import open_lent

            stand_in = open_lent(chardev.backend.filename)
        else:
            from trio_chardev.backends.lent import open_lent_to_pty

            device = self._opener(_without_taps(loan.options), sandbox)

            async def set_up(line: Line) -> None:
                await chardev.line.kept.set_up(line)

            pty_closed = partial(self._pty_closed, chardev, loan)
            stand_in = open_lent_to_pty(device, set_up, pty_closed)
        opener = self._with_environment(with_taps(stand_in, loan.options), sandbox)
        await chardev.change(checked(check, opener))
        self._loans[chardev] = loan
        self._note_change(chardev)
        self._tell(ChardevLent(chardev.id, chardev.pty))

    async def take_back(self, chardev: Chardev) -> None:
        """Open the device again; see `Registry.take_back`. Raises as that does."""
        if (loan := self._loans.get(chardev)) is None:
            raise ChangeRefusedError(f"Chardev '{chardev.id}' is not lent")
        await self._take_back(chardev, loan, loan.options)

    async def _take_back(self, chardev: Chardev, loan: _Loan, options: BackendOptions) -> None:
        def check() -> None:
            if self._loans.get(chardev) is not loan:
                raise ChangeRefusedError(f"Chardev '{chardev.id}' is not lent any more")

        opener = checked(check, self._opener(options, loan.sandbox))
        await chardev.change(opener, timeout=options.open_timeout)
        self._note_change(chardev)
        self.end(chardev)

    def end(self, chardev: Chardev) -> None:
        """Note that *chardev* has another backend than the one that stood in for its device."""
        if self._loans.pop(chardev, None) is not None:
            self._tell(ChardevReturned(chardev.id))

    def forget(self, chardev: Chardev) -> None:
        """Note that *chardev* is removed."""
        self._loans.pop(chardev, None)

    def _pty_closed(self, chardev: Chardev, loan: _Loan) -> None:
        self._nursery.start_soon(self._take_back_by_itself, chardev, loan)

    async def _take_back_by_itself(self, chardev: Chardev, loan: _Loan) -> None:
        """Nobody hears of an error, so a device that is away for now is waited for, if it may be."""
        try:
            await self._take_back(chardev, loan, loan.options.when_restored())
        except ChardevError as exc:
            if self._loans.get(chardev) is loan and not chardev.is_closed:
                log.warning(
                    "chardev '%s' stays lent to '%s': %s", chardev.id, chardev.backend.pty, exc
                )


def _check_can_be_lent(chardev: Chardev, options: BackendOptions) -> BackendOptions:
    """Return the options to open it with again. Raises ChangeRefusedError."""
    if options.stands_on:
        bases = " or ".join(f"'{base}'" for base in options.stands_on)
        raise ChangeRefusedError(f"Chardev '{chardev.id}' has no device to lend: lend {bases}")
    if (again := options.again) is None:
        raise ChangeRefusedError(
            f"Chardev '{chardev.id}' cannot be lent: its descriptor can't be opened again"
        )
    return again


def _without_taps(options: BackendOptions) -> BackendOptions:
    """Return *options* without a log file and a recording."""
    return attrs.evolve(options, **_NO_TAPS)


def checked(check: Callable[[], None], opener: Opener) -> Opener:
    """Give the opener that first does *check*, once it is its change's turn."""

    def open_it(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        check()
        return opener(request)

    return open_it


def no_fd(name: str) -> int:
    """Refuse to give a descriptor away again."""
    raise BackendError(f"File descriptor named '{name}' has not been found")
