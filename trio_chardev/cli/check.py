"""``trio-chardev check``: is a configuration right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_chardev.cli.inherited import Inherited
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.output import say, warn
from trio_chardev.config.configuration import read_configuration
from trio_chardev.config.files import NoSuchFileError, default_folders

STATUS_OF_NO_FILE: Final = 66  # EX_NOINPUT


def check(given: Sequence[str], inherited: Inherited) -> None:
    """Check the configuration in the files *given*, or the default's, without opening anything.

    Raises NoSuchFileError if there is none, and OptionsError.
    """
    configuration = read_configuration(given)
    if not configuration.files and not given:
        folders = " or ".join(f"'{folder}'" for folder in default_folders())
        raise NoSuchFileError(f"there is no configuration in {folders}")
    options = ServeOptions.parse(
        [], [], [], None, warn, inherited=inherited, configuration=configuration
    )
    counts = ", ".join(
        f"{len(table)} {what}{'' if len(table) == 1 else 's'}"
        for what, table in (
            ("chardev", options.chardevs),
            ("device", options.devices),
            ("object", options.objects),
        )
    )
    say(f"right: {counts}")
