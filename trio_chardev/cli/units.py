"""``trio-chardev install-units``: what systemd, its tools and logrotate need, with this program's path."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from trio_chardev.cli.output import complain, say
from trio_chardev.errors import OptionsError, strerror

SYSTEM: Final[Mapping[str, str]] = {
    "trio-chardev.service": "/etc/systemd/system/trio-chardev.service",
    "trio-chardev.socket": "/etc/systemd/system/trio-chardev.socket",
    "sysusers.conf": "/etc/sysusers.d/trio-chardev.conf",
    "tmpfiles.conf": "/etc/tmpfiles.d/trio-chardev.conf",
    "logrotate.conf": "/etc/logrotate.d/trio-chardev",
}
"""Files of the package -> where they go."""

NEXT: Final = """\
then:
  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
  systemctl enable --now trio-chardev"""
NEXT_OF_USER: Final = """\
then:
  systemctl --user daemon-reload && systemctl --user enable --now trio-chardev"""

HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
"""Where the system's service can't see the program (ProtectHome=, PrivateTmp=)."""


def install_units(root: str, *, for_user: bool, force: bool) -> None:
    """Write the files below *root*, and print where they are. Raises OptionsError.

    Those that differ from what is there already are written only with *force*.
    """
    program = find_program()
    folder = resources.files("trio_chardev.cli") / "units"
    files = {"user.service": _user_unit()} if for_user else SYSTEM
    texts = {
        Path(root + path): (folder / name).read_text().replace("@PROGRAM@", program)
        for name, path in files.items()
    }
    altered = [path for path, text in texts.items() if _is_other(path, text)]
    if altered and not force:
        raise OptionsError(
            f"'{altered[0]}' is there already, and differs: --force writes it all the same"
        )
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as exc:
            raise OptionsError(f"Could not write '{path}': {strerror(exc)}") from exc
        say(str(path))
    if not for_user and program.strip('"').startswith(HIDDEN):
        complain(
            f"trio-chardev: warning: {program} is where the service can't run it: install it for "
            "all users, below /opt or /usr/local"
        )
    if not root:
        say(NEXT_OF_USER if for_user else NEXT)


def find_program() -> str:
    """How a unit runs this program: the script of this installation, quoted if need be."""
    script = Path(sysconfig.get_path("scripts"), "trio-chardev")
    if script.exists():
        return _quoted(str(script))
    return f"{_quoted(sys.executable)} -P -m trio_chardev"


def _user_unit() -> str:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{folder}/systemd/user/trio-chardev.service"


def _is_other(path: Path, text: str) -> bool:
    try:
        return path.read_text() != text
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def _quoted(path: str) -> str:
    """Quote *path* for ``ExecStart=``, see systemd.service(5)."""
    if re.fullmatch(r"[\w/.+@-]+", path, re.ASCII):
        return path
    text = re.sub(r'(["\\])', r"\\\1", path).replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
