"""The options of ``trio-chardev bridge``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.options import grammar
from trio_chardev.options.keyval import parse_keyval, typed
from trio_chardev.options.members import type_of
from trio_chardev.plain_errors import OptionsError


def parse_options(text: str, warn: Callable[[str], object]) -> dict[str, Any]:
    """Make arguments of device_add. Raises OptionsError, and HelpRequested."""
    parsed: dict[str, Any] = typed(type_of(BridgeOptions), parse_keyval(text, None, warn))
    for name in ("driver", "chardev", "peer"):
        if name in parsed:
            raise OptionsError(f"Unexpected '{name}' parameter")
    return parsed


def help_text() -> str:
    """List the options."""
    return grammar.help_text("", {"bridge": BridgeOptions}, "bridge")
