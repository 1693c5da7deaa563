"""The order in which QEMU iterates over the members of a JSON object.

It keeps them in a hash table, so of two unexpected members its error names neither the first nor
the smaller one. Clients' tests quote such errors, so this imitates the order.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

_BUCKETS = 512  # in a QDict
_VISITOR_SLOTS = 8  # in a GHashTable of up to seven members
_HASHED = 4096  # bytes of a name; the order is not worth more time


def qdict_order(keys: Iterable[str]) -> list[str]:
    """Sort *keys*, inserted in this order, as iterating over QEMU's QDict gives them."""
    newest_first = list(keys)[::-1]
    return sorted(newest_first, key=lambda key: _tdb_hash(_encode(key)) % _BUCKETS)


def first_unexpected(keys: Iterable[str], known: Container[str]) -> str:
    """Find the one of *keys*, not in *known*, that QEMU's input visitor reports.

    Its GLib hash table is imitated for objects of up to seven members. With the eighth that table
    grows, which is not imitated: the order is then a QDict's.
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
    """The hash of Samba's tdb, in 32 bits."""
    value = 0x238F13AF * len(name)
    for index, byte in enumerate(name):
        value += byte << (index * 5 % 24)
    return (1103515243 * value + 12345) & 0xFFFFFFFF


def _djb_hash(name: bytes) -> int:
    """Bernstein's hash over signed characters, in 32 bits."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte - ((byte & 0x80) << 1)) & 0xFFFFFFFF
    return value
