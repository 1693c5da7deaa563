"""The QMP command about peers that today's access rules would no longer let in."""

from __future__ import annotations

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context


@attrs.frozen(kw_only=True)
class RecheckArguments:
    """Arguments of chardev-recheck-peers."""

    id: str | None = None
    """The chardev; without it, all chardevs and the clients of QMP listeners."""

    dry_run: bool = False
    """Name the peers, but do not disconnect them."""


@attrs.frozen
class RefusedPeer:
    """A peer that would not be let in if it connected now."""

    id: str
    """The id of the chardev, or the name of the QMP client."""
    peer: str
    """The peer, as query-chardev names it."""
    reason: str


async def chardev_recheck_peers(
    context: Context, arguments: RecheckArguments
) -> list[dict[str, str]]:
    """Disconnect peers that would be refused now, the client itself last. Cancelled stops it."""
    registry = context.host.registry
    if arguments.id is not None:
        chardevs = [registry[arguments.id]]
    else:
        chardevs = [*registry.values(), *context.host.client_chardevs()]
        chardevs.sort(key=lambda chardev: chardev is context.chardev)
    refused: list[dict[str, str]] = []
    for chardev in chardevs:
        await trio.lowlevel.checkpoint()  # each check takes a millisecond
        refused += [unstructure(one) for one in _recheck(chardev, drop=not arguments.dry_run)]
    return refused


def _recheck(chardev: Chardev, *, drop: bool) -> list[RefusedPeer]:
    if chardev.is_closed or not chardev.is_started:
        return []
    return [RefusedPeer(chardev.id, *who) for who in chardev.backend.peer.recheck(drop=drop)]


PEER_COMMANDS: dict[str, Command] = {
    "chardev-recheck-peers": Command(
        RecheckArguments, chardev_recheck_peers, tuple[RefusedPeer, ...]
    ),
}
