"""The trace of QMP has no secrets."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.qmp.masking import MASK, MAX_DEPTH, masked, masked_reply


def command(name: str, **arguments: Any) -> dict[str, Any]:
    return {"execute": name, "arguments": arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {"qom-type": "secret", "id": "s", "data": "hunter2"},
        {"qom-type": "secret", "id": "s", "data": 12345},
        {"qom-type": "secret", "id": "s", "dat": "hunter2"},
        {"qom-tpe": "secret", "id": "s", "data": "hunter2"},
        {"qom-type": "secret", "id": "s", "props": {"data": "hunter2"}},
        {"qom-type": "secret", "id": "s", "list": ["x", {"data": "hunter2"}]},
    ],
)
@pytest.mark.parametrize("member", ["execute", "exec-oob"])
def test_an_object_has_no_secret_whatever_is_misspelt(
    member: str, arguments: dict[str, Any]
) -> None:
    shown = masked({member: "object-add", "arguments": arguments, "id": 1})
    assert "hunter2" not in repr(shown)
    assert "12345" not in repr(shown)
    assert MASK in repr(shown)
    assert shown["arguments"]["id"] == "s"


def test_a_password_is_one_anywhere() -> None:
    data = {"addr": {"password": "p", "host": "h"}, "password": None}
    shown = masked(command("chardev-add", id="x", backend={"type": "socket", "data": data}))
    assert shown["arguments"]["backend"]["data"] == {
        "addr": {"password": MASK, "host": "h"},
        "password": MASK,
    }


def test_all_else_is_the_same_object() -> None:
    for message in (
        command("ringbuf-write", device="r", data="text"),
        command("object-add", **{"qom-type": "authz-list", "id": "a", "rules": [{"match": "x"}]}),
        [1, "x", None],
        "text",
    ):
        assert masked(message) is message


def test_what_is_too_deep_is_no_problem() -> None:
    deep: Any = "hunter2"
    for _ in range(1000):
        deep = [deep]
    assert "hunter2" not in repr(masked(deep))
    shallow: Any = "text"
    for _ in range(MAX_DEPTH):
        shallow = [shallow]
    assert masked(shallow) is shallow


def test_an_error_does_not_quote_what_was_no_json() -> None:
    error = {"class": "GenericError", "desc": "JSON parse error, invalid keyword 'hunter2'"}
    shown = masked_reply({"error": error, "id": 1})
    assert shown == {"error": error | {"desc": f"JSON parse error, {MASK}"}, "id": 1}
    reply = {"error": {"class": "GenericError", "desc": "Chardev 'x' not found"}}
    assert masked_reply(reply) is reply
