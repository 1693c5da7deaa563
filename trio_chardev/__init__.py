"""QEMU-style character devices whose backend can be changed while in use, on Trio.

A program begins with `open_registry`, or with `open_service` if it serves QMP. A `Registry` holds
chardevs, which are added with the options of a kind, such as `PtyOptions`; `Chardev.attach` gives a
`Frontend`, which is a Trio stream. docs/python.md has example programs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from trio_chardev.version import __version__ as __version__

if TYPE_CHECKING:
    from trio_chardev.api import *  # noqa: F403 - a checker of types sees what __getattr__ gives
    from trio_chardev.api import __all__ as __all__


# The command line imports what it needs from the modules themselves. All of the package would be most of
# the time in which a small command starts, so that it is imported when one of its names is used.
def __getattr__(name: str) -> object:
    """Give a public name, with all of the package imported first (PEP 562)."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = import_module("trio_chardev.api")
    if name == "__all__":
        return [*api.__all__, "__version__"]
    if name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("trio_chardev.api").__all__})
