"""What the trace of QMP does not have: secrets."""

from __future__ import annotations

from typing import Any, Final

from trio_chardev.access.authz import AuthzListRule
from trio_chardev.access.table import OBJECT
from trio_chardev.options.members import describe

MASK: Final = "***"
SECRETS: Final = frozenset({"password", "passwd", "passphrase", "secret", "key"})
"""Members that are taken for secrets wherever they are."""
TOLD_OF_OBJECTS: Final = frozenset(
    {m.name for cls in (*OBJECT.variants.values(), AuthzListRule) for m in describe(cls)}
    | {"execute", "exec-oob", OBJECT.tag, "chardev"}
) - {"data"}
"""Members of object-add that are none; what is misspelt may be one."""
MAX_DEPTH: Final = 32
"""What is deeper is masked: no command has that, and Python's stack is finite."""
_QUOTING: Final = "JSON parse error"
"""How errors begin that quote what a client has sent."""


def masked(message: Any) -> Any:
    """*message*, which a client has sent, with `MASK` for secrets, if it has any."""
    is_object = isinstance(message, dict) and "object-add" in (
        message.get("execute"),
        message.get("exec-oob"),
    )
    return _masked(message, MAX_DEPTH, is_object=is_object)


def masked_reply(message: dict[str, Any]) -> dict[str, Any]:
    """*message*, for a client, without what it quotes of text that is no JSON."""
    error = message.get("error")
    if isinstance(error, dict) and str(error.get("desc")).startswith(_QUOTING):
        return message | {"error": error | {"desc": f"{_QUOTING}, {MASK}"}}
    return message


def _masked(value: Any, depth: int, *, is_object: bool) -> Any:
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return MASK
    if isinstance(value, list):
        items = [_masked(item, depth - 1, is_object=is_object) for item in value]
        is_same = all(new is old for new, old in zip(items, value, strict=True))
        return value if is_same else items
    changed = {}
    for name, old in value.items():
        is_secret = name in SECRETS or (is_object and name not in TOLD_OF_OBJECTS)
        if is_secret and not isinstance(old, dict | list):
            changed[name] = MASK
        elif (new := _masked(old, depth - 1, is_object=is_object)) is not old:
            changed[name] = new
    return value | changed if changed else value
