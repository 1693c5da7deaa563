"""QMP commands about the line of a chardev: its settings, modem lines and break, its window."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from trio_chardev.core.boot_sequences import SequenceName
from trio_chardev.core.line_change import LineChange, LineState
from trio_chardev.core.line_sequence import LineStep
from trio_chardev.errors import OptionsError
from trio_chardev.events import MAX_COLUMNS, WindowSize
from trio_chardev.options.members import IntRange
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context, IdArguments


@attrs.frozen(kw_only=True)
class SetLineArguments:
    """Arguments of chardev-set-line."""

    id: str
    settings: LineChange


@attrs.frozen(kw_only=True)
class SequenceArguments:
    """Arguments of chardev-line-sequence: the steps, or the name of known ones."""

    id: str
    steps: tuple[LineStep, ...] | None = None
    name: SequenceName | None = None
    """The name of known steps."""


Size16 = Annotated[int, IntRange("uint16_t", 0, MAX_COLUMNS)]


@attrs.frozen(kw_only=True)
class WindowSizeArguments:
    """Arguments of chardev-window-size-changed; 0 and 0: the size is not known."""

    id: str
    cols: Size16
    rows: Size16


async def chardev_get_line(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Show the line of a chardev: its settings, modem lines, and what it lacks."""
    state = await context.host.registry[arguments.id].line.read()
    result: dict[str, Any] = unstructure(state)
    return result


async def chardev_set_line(context: Context, arguments: SetLineArguments) -> dict[str, Any]:
    """Set what is named of the line of a chardev; all of it, or nothing."""
    await context.host.registry[arguments.id].line.change(arguments.settings)
    return {}


async def chardev_line_sequence(context: Context, arguments: SequenceArguments) -> dict[str, Any]:
    """Do steps of DTR, RTS, break and speed at exact times, such as a reset into a boot loader."""
    steps = arguments.steps if arguments.steps is not None else arguments.name
    if steps is None or (arguments.steps is not None and arguments.name is not None):
        raise OptionsError("either 'steps' or 'name' is needed")
    await context.host.registry[arguments.id].line.run_sequence(steps)
    return {}


def chardev_window_size_changed(context: Context, arguments: WindowSizeArguments) -> dict[str, Any]:
    """Tell the user of a chardev the size of the window at its other end."""
    context.host.registry[arguments.id].resized(WindowSize(arguments.cols, arguments.rows))
    return {}


LINE_COMMANDS: dict[str, Command] = {
    "chardev-get-line": Command(IdArguments, chardev_get_line, LineState),
    "chardev-set-line": Command(SetLineArguments, chardev_set_line),
    "chardev-line-sequence": Command(SequenceArguments, chardev_line_sequence),
    "chardev-window-size-changed": Command(WindowSizeArguments, chardev_window_size_changed),
}
