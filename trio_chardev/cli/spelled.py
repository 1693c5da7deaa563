"""Options as people write them: what QMP says of a backend, spelt as for ``--chardev``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trio_chardev.options.spelling import SIZES, SPELLINGS, Spelling

KIBI = 1024


def spelled(kind: str, data: Mapping[str, Any]) -> str:
    """Spell a backend as in ``change ID KIND,KEY=VALUE``; *data* is that of QMP."""
    spelling = SPELLINGS.get(kind, Spelling())
    names = {member: option for option, member in spelling.names.items()}
    given = {names.get(path, path): value for path, value in _flat(data)}
    for name, default in spelling.defaults.items():  # what QMP leaves out has another meaning here
        given.setdefault(name, not default)
    words = [f"{name.replace(':', '.')}={_value(name, value)}" for name, value in given.items()]
    return ",".join([kind, *words])


def members(value: Mapping[str, Any]) -> str:
    """Spell any object of QMP: ``state=open, to-peer.bytes=5``."""
    return ", ".join(f"{path.replace(':', '.')}={_text(one)}" for path, one in _flat(value))


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield paths as in a `Spelling`: dots nest, and ``addr:unix.path`` goes through a union."""
    for name, member in value.items():
        path = f"{before}{name}"
        if isinstance(member, dict) and member.keys() == {"type", "data"}:
            yield from _flat(member["data"], f"{path}:{member['type']}.")
        elif isinstance(member, dict):
            yield from _flat(member, f"{path}.")
        elif isinstance(member, list) and all(not isinstance(one, dict | list) for one in member):
            for number, one in enumerate(member):
                yield f"{path}.{number}", one
        else:
            yield path, member


def _value(name: str, value: Any) -> str:
    if name in SIZES and isinstance(value, int) and value and value % KIBI == 0:
        return f"{value // KIBI}k"
    return _text(value).replace(",", ",,")


def _text(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case str() | int() | float():
            return str(value)
    return json.dumps(value, ensure_ascii=False)
