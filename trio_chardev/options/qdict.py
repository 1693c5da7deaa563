"""In which order QEMU meets the members of a JSON object.

It keeps them in a hash table, so of two members that should not be there it names neither
the first nor the smaller. Clients' tests quote such answers; here is how to give the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

_BUCKETS = 512  # of a QDict
_VISITOR_SLOTS = 8  # of a GHashTable until its eighth member
_HASHED = 4096  # bytes of a name; which is told of first is not worth more time


def qdict_order(keys: Iterable[str]) -> list[str]:
    """*keys*, inserted in this order, as a loop over QEMU's QDict meets them."""
    newest_first = list(keys)[::-1]
    return sorted(newest_first, key=lambda key: _tdb_hash(_encode(key)) % _BUCKETS)


def first_unexpected(keys: Iterable[str], known: Container[str]) -> str:
    """The one of *keys* that is not *known* and that QEMU's input visitor complains of.

    Its GLib table is played through for objects of up to seven members; from the eighth on
    that table grows, which is not worth imitating: there it is a QDict's order.
    """
    order = qdict_order(keys)
    if len(order) < _VISITOR_SLOTS:
        order = _visitor_order(order)
    return next(key for key in order if key not in known)


def _visitor_order(keys: list[str]) -> list[str]:
    slots: list[str | None] = [None] * _VISITOR_SLOTS
    for key in keys:
        slot = (_djb_hash(_encode(key)) * 11 & 0xFFFFFFFF) % 7
        step = 0
        while slots[slot] is not None:
            step += 1
            slot = (slot + step) % _VISITOR_SLOTS
        slots[slot] = key
    return [key for key in slots if key is not None]


def _encode(key: str) -> bytes:
    return key[:_HASHED].encode("utf-8", "surrogatepass")


def _tdb_hash(name: bytes) -> int:
    """The hash of Samba's tdb, 32 bits."""
    value = 0x238F13AF * len(name)
    for index, byte in enumerate(name):
        value += byte << (index * 5 % 24)
    return (1103515243 * value + 12345) & 0xFFFFFFFF


def _djb_hash(name: bytes) -> int:
    """Bernstein's hash, of signed characters, 32 bits."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte - ((byte & 0x80) << 1)) & 0xFFFFFFFF
    return value
