"""The commands with which a client begins and ends."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.version import VERSION


@attrs.frozen(kw_only=True)
class CapabilitiesArguments:
    """Arguments of qmp_capabilities."""

    enable: tuple[Literal["oob"], ...] = ()
    """`oob` allows commands that are sent out of band."""


@attrs.frozen
class VersionTriple:
    """A version of QEMU."""

    major: int
    minor: int
    micro: int


@attrs.frozen
class VersionInfo:
    """What query-version returns."""

    qemu: VersionTriple
    """The version of QEMU whose commands these are."""
    package: str
    """The version of this program."""


def qmp_capabilities(context: Context, arguments: CapabilitiesArguments) -> dict[str, Any]:
    """Leave negotiation mode, with the capabilities in `enable`; before it no other command is known."""
    context.session.negotiate(arguments.enable)
    return {}


def query_version(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Show the version of QEMU whose chardevs these are like, and that of this program."""
    return VERSION


def quit_(context: Context, arguments: NoArguments) -> dict[str, Any]:
    """Stop the service."""
    context.host.quit("host-qmp-quit")
    return {}


SESSION_COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command(CapabilitiesArguments, qmp_capabilities),
    "query-version": Command(NoArguments, query_version, VersionInfo),
    "quit": Command(NoArguments, quit_),
}
"""The rows of this module."""
