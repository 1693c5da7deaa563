"""Where ``--chardev`` does not spell an option like the QMP member, and its special rules.

Everything else is derived from the kinds' options classes; see `trio_chardev.options.grammar`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from trio_chardev.options.members import Scalar, ValueType
from trio_chardev.plain_errors import OptionsError

Given = dict[str, Any]
"""Options by their names in ``-chardev``, with JSON values."""


def _keep(given: Given) -> None:
    """Apply no rules."""


@attrs.frozen(repr=False)
class Spelling:
    """The peculiarities of a kind's options."""

    names: Mapping[str, str] = attrs.field(factory=dict)
    """Option -> path in the data; ``addr:inet.host`` goes through a union's variant. A member that
    such a path begins with gets no option of its own name. If two options set one member, help
    shows the later one."""

    required: Mapping[str, str] = attrs.field(factory=dict)
    """Option -> QEMU's error if it is missing."""

    defaults: Mapping[str, object] = attrs.field(factory=dict)
    """Defaults that differ from QMP's."""

    settle: Callable[[Given], None] = _keep
    """Applies rules about several options, and defaults that depend on other options."""


def _settle_socket(given: Given) -> None:
    addresses = [name for name in _OF_ADDRESS if name in given]
    if len(addresses) > 1:
        raise OptionsError("None or one of 'path', 'fd' or 'host' option required.")
    if "host" in given and "port" not in given:
        raise OptionsError("chardev: socket: no port given")
    if "delay" in given:
        if "nodelay" in given:
            raise OptionsError("'delay' and 'nodelay' are mutually exclusive")
        given["nodelay"] = not given.pop("delay")
    if given["server"]:
        given.setdefault("wait", True)
    if not addresses:
        raise OptionsError("One of 'path', 'fd' or 'host' option required.")
    for address, others in _OF_ADDRESS.items():
        if address not in given:
            for name in others:
                given.pop(name, None)


_OF_ADDRESS: Final = {
    "path": ("abstract", "tight"),
    "host": ("port", "to", "ipv4", "ipv6", "keep-alive"),
    "fd": (),
}


def _settle_udp(given: Given) -> None:
    if not given.get("port"):
        raise OptionsError("chardev: udp: remote port not specified")
    given["host"] = given.get("host") or "localhost"
    local = given.pop("localaddr", ""), given.pop("localport", "")
    if any(local):
        given["localaddr"] = local[0]
        given["localport"] = local[1] or "0"


def _settle_ringbuf(given: Given) -> None:
    if given.get("size") == 0:  # on the command line 0 means the default size
        del given["size"]


_DEVICE: Final = {"path": "device"}
_RINGBUF: Final = Spelling(settle=_settle_ringbuf)

SPELLINGS: Final[Mapping[str, Spelling]] = {
    "file": Spelling(
        {"path": "out", "input-path": "in"}, {"path": "chardev: file: no filename given"}
    ),
    "pipe": Spelling(_DEVICE, {"path": "chardev: pipe: no device path given"}),
    "serial": Spelling(_DEVICE, {"path": "chardev: serial/tty: no device path given"}),
    "parallel": Spelling(_DEVICE, {"path": "chardev: parallel: no device path given"}),
    "ringbuf": _RINGBUF,
    "memory": _RINGBUF,
    "mux": Spelling({}, {"chardev": "chardev: mux: no chardev given"}),
    "hub": Spelling({}, {"chardevs.0": "hub: 'chardevs' list is not defined"}),
    "socket": Spelling(
        {
            "path": "addr:unix.path",
            "abstract": "addr:unix.abstract",
            "tight": "addr:unix.tight",
            "host": "addr:inet.host",
            "port": "addr:inet.port",
            "to": "addr:inet.to",
            "ipv4": "addr:inet.ipv4",
            "ipv6": "addr:inet.ipv6",
            "keep-alive": "addr:inet.keep-alive",
            "fd": "addr:fd.str",
            "delay": "nodelay",
            "nodelay": "nodelay",
        },
        defaults={"server": False},
        settle=_settle_socket,
    ),
    "udp": Spelling(
        {
            "host": "remote:inet.host",
            "port": "remote:inet.port",
            "ipv4": "remote:inet.ipv4",
            "ipv6": "remote:inet.ipv6",
            "localaddr": "local:inet.host",
            "localport": "local:inet.port",
        },
        settle=_settle_udp,
    ),
}

ALIASES: Final = {"tty": "serial", "parport": "parallel"}
"""Names that only the command line had; QEMU removed them in 8.0."""

OF_NO_KIND: Final[Mapping[str, ValueType]] = {
    "backend": Scalar("str"),
    "mux": Scalar("bool"),
    # from QEMU's kinds that serve its guests or its displays
    **dict.fromkeys(("name",), Scalar("str")),
    **dict.fromkeys(("width", "height", "cols", "rows", "debug"), Scalar("int")),
    **dict.fromkeys(("mouse", "clipboard"), Scalar("bool")),
    "encoding": Scalar("str"),
}
REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("width", "height", "cols", "rows"), "size options"),
    "encoding": "encoding option",
}
"""Options that QEMU, since 11.1, refuses for kinds that lack them -> their name in the error."""

SIZES: Final = frozenset({"history", "size", "max-size", "log-max", "log-rotate", "record-max"})
"""Options that take k, M, G; QMP has plain integers."""
