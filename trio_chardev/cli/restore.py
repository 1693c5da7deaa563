"""What a service starts with, from the state file and the command line (``serve --state``).

Where the command line has changed since the state file was written, it wins: an entry whose
options it has changed, or no longer has, is dropped. What can't be restored is reported, stays in
the state file, and is tried again at the next start; meanwhile the command line's version is used,
if there is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from trio_chardev.access.objects import MonitorQmp
from trio_chardev.errors import ChardevError
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure
from trio_chardev.qmp.server.state import StateFile, Table

Say = Callable[[str], object]
Make = Callable[[str, Any, bool], Awaitable[None]]
"""Makes or changes the item with that id; the flag says whether QMP clients chose the options."""

WHAT: Mapping[Table, str] = {"objects": "object", "chardevs": "chardev", "devices": "device"}


@attrs.frozen
class Wanted:
    """An object, chardev or device to be made."""

    id: str
    options: Any
    """The command line's options; None if it has none."""

    now: Any = None
    """The state file's options, as QMP arguments; None if it has none."""

    @property
    def is_restored(self) -> bool:
        """Does it come from the state file?"""
        return self.now is not None


def is_monitor(item: Wanted) -> bool:
    """Is it an object that can be made only after its chardev?"""
    match item.now:
        case None:
            return isinstance(item.options, MonitorQmp)
        case {"qom-type": "monitor-qmp"}:
            return True
    return False


def plan(
    state_file: StateFile, table: Table, base: Mapping[str, Any], union: TaggedUnion, say: Say
) -> Iterator[Wanted]:
    """Plan what to make of *table*; *base* is what the command line has of it."""
    if not state_file.is_kept:  # so there is nothing to compare with, which would take a few ms
        yield from (Wanted(id, options) for id, options in base.items())
        return
    from trio_chardev.options.unstructure import unstructure

    entries = state_file.entries[table]
    for id in [id for id, entry in entries.items() if entry.was is not None and id not in base]:
        say(f"{WHAT[table]} '{id}' is not restored: the command line has it no more")
        state_file.forget(table, id)
    added = {id: entry.now for id, entry in entries.items() if id not in base}
    for id, options in base.items():
        was = unstructure(options, union)
        state_file.set_base(table, id, was)
        entry = entries.get(id)
        if entry is not None and entry.was != was:
            say(f"{WHAT[table]} '{id}' is not restored: the command line has another now")
            state_file.forget(table, id)
            entry = None
        if entry is None:
            yield Wanted(id, options)
        elif entry.now is not None:
            yield Wanted(id, options, entry.now)
    for id, now in added.items():
        yield Wanted(id, None, now)


async def make_all(
    table: Table, wanted: Iterable[Wanted], union: TaggedUnion, make: Make, say: Say
) -> None:
    """Make all that is *wanted*. Raises what *make* raises for items of the command line.

    What can't be restored is tried again at the end; meanwhile the command line's version is used.
    """
    later: list[Wanted] = []
    for item in wanted:
        if not item.is_restored:
            await make(item.id, item.options, False)
            continue
        try:
            await make(item.id, structure(union, item.now), True)
        except ChardevError:
            later.append(item)  # it may use something that is made later
            await _make_instead(item, make)
    while later:
        errors: list[tuple[Wanted, ChardevError]] = []
        for item in later:
            try:
                await make(item.id, structure(union, item.now), True)
            except ChardevError as exc:
                errors.append((item, exc))
        if len(errors) == len(later):
            for item, error in errors:
                say(f"{WHAT[table]} '{item.id}' is not restored: {error}")
                await _make_instead(item, make)  # the attempt may have removed it
            return
        later = [item for item, _ in errors]


async def _make_instead(item: Wanted, make: Make) -> None:
    """Make the command line's version, if there is one and it works."""
    if item.options is None:
        return
    try:
        await make(item.id, item.options, False)
    except ChardevError:
        return  # the error of the state file's version is reported instead
