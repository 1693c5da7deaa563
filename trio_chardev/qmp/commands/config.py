"""The QMP command about configuration files."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.errors import OptionsError
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.server.session import QmpError


@attrs.frozen(kw_only=True)
class Reloaded:
    """What config-reload returns: the ids of objects, chardevs and devices that it has made other.

    The pages of metrics, which have no ids, are `metrics` in `changed`.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def text(self) -> str:
        """The same in one line."""
        parts = [
            f"{len(ids)} {what}"
            for what, ids in (
                ("added", self.added),
                ("changed", self.changed),
                ("removed", self.removed),
            )
            if ids
        ]
        return ", ".join(parts) or "nothing has changed"


async def config_reload(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Read the configuration again, and apply what has changed; all of it, or nothing."""
    reload = context.host.reload
    if reload is None:
        raise QmpError("There is no configuration to reload")
    try:
        result: dict[str, Any] = unstructure(await reload())
    except OptionsError as exc:  # a ConfigError has what else is wrong in its notes
        raise QmpError("\n".join([str(exc), *getattr(exc, "__notes__", ())])) from exc
    return result


CONFIG_COMMANDS: dict[str, Command] = {
    "config-reload": Command(NoArguments, config_reload, Reloaded),
}
