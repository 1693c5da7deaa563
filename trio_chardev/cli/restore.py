"""From a state_file and the command line to what a service begins with (``serve --state``).

The command line counts where it has changed since the state_file was written: what it adds now in
another way, or not any more, is as it says. What can't be restored is told, stays in the
state_file, and is tried again by the next start; meanwhile the command line's is there, if it has
one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from trio_chardev.access.objects import MonitorQmp
from trio_chardev.errors import ChardevError
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure, unstructure
from trio_chardev.qmp.server.state import StateFile, Table

Say = Callable[[str], object]
Make = Callable[[str, Any, bool], Awaitable[None]]
"""Makes, or changes, what has that id, by options; the flag says whether QMP clients made them."""

WHAT: Mapping[Table, str] = {"objects": "object", "chardevs": "chardev", "devices": "device"}


@attrs.frozen
class Wanted:
    """Something to be made."""

    id: str
    options: Any
    """By the command line; None if it does not say."""

    now: Any = None
    """In QMP's form, by the state_file; None if that does not say."""

    @property
    def is_restored(self) -> bool:
        """Is it as clients have made it?"""
        return self.now is not None


def is_monitor(item: Wanted) -> bool:
    """Is it an object that can be made only when its chardev is there?"""
    match item.now:
        case None:
            return isinstance(item.options, MonitorQmp)
        case {"qom-type": "monitor-qmp"}:
            return True
    return False


def plan(
    state_file: StateFile, table: Table, base: Mapping[str, Any], union: TaggedUnion, say: Say
) -> Iterator[Wanted]:
    """What is to be there of *table*, of which the command line has *base*."""
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
    """Make what is *wanted*. Raises what *make* does for what the command line alone wants.

    What can't be restored is tried again at the end, where the command line's stands in for it.
    """
    later: list[Wanted] = []
    for item in wanted:
        if not item.is_restored:
            await make(item.id, item.options, False)
            continue
        try:
            await make(item.id, structure(union, item.now), True)
        except ChardevError:
            later.append(item)  # it may stand on something that is yet to come
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
                await _make_instead(item, make)  # if to try has cost it
            return
        later = [item for item, _ in errors]


async def _make_instead(item: Wanted, make: Make) -> None:
    """What the command line says, as good as it can be."""
    if item.options is None:
        return
    try:
        await make(item.id, item.options, False)
    except ChardevError:
        return  # the error of the state_file's is told in the end
