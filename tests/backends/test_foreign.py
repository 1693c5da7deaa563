"""Kinds that only QEMU has: their options are known, and they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.backends.foreign import FOREIGN
from trio_chardev.backends.table import BACKEND, KINDS
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.options.grammar import FOREIGN_HINT
from trio_chardev.options.structure import structure
from trio_chardev.registry import open_registry

NEEDED = {
    "spicevmc": {"type": "vdagent"},
    "spiceport": {"fqdn": "org.example.port"},
    "dbus": {"name": "org.example"},
}


def options_of(kind: str, data: dict[str, Any]) -> Any:
    return structure(BACKEND, {"type": kind, "data": data}, "backend")


@pytest.mark.parametrize("kind", FOREIGN)
async def test_is_refused_in_qemus_words(kind: str) -> None:
    options = options_of(kind, NEEDED.get(kind, {}))
    async with open_registry() as registry:
        with pytest.raises(BackendError) as caught:
            await registry.add("x", options)
        text = f"Failed to add chardev 'x': '{kind}' is not a valid char driver name"
        assert (str(caught.value), caught.value.__notes__) == (text, [FOREIGN_HINT])
        assert not registry


async def test_a_change_to_it_leaves_the_original() -> None:
    async with open_registry() as registry:
        await registry.add("x", options_of("null", {}))
        registry["x"].attach(be_change=lambda backend: pytest.fail("was asked"))
        with pytest.raises(BackendError, match=r"^'vc' is not a valid char driver name"):
            await registry.change("x", options_of("vc", {"cols": 80}))
        assert registry["x"].backend.filename == "null"


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("console", {"width": 1}, r"^Parameter 'backend.data.width' is unexpected$"),
        ("msmouse", {"x": 1}, r"^Parameter 'backend.data.x' is unexpected$"),
        ("spicevmc", {}, r"^Parameter 'backend.data.type' is missing$"),
        ("spiceport", {}, r"^Parameter 'backend.data.fqdn' is missing$"),
        ("dbus", {}, r"^Parameter 'backend.data.name' is missing$"),
        ("vc", {"width": "1"}, r"'backend.data.width', expected: integer$"),
        ("qemu-vdagent", {"mouse": 1}, r"'backend.data.mouse', expected: boolean\n"),
    ],
)
def test_its_options_are_checked_first(kind: str, data: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        options_of(kind, data)


def test_none_of_them_is_also_ours() -> None:
    assert FOREIGN.keys().isdisjoint(KINDS)
