"""What the commands for people say of chardevs."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.cli.facts import Facts

ADDRESS = {"type": "unix", "data": {"path": "/x"}}


def facts(kind: str, filename: str, data: dict[str, Any], **more: Any) -> Facts:
    chardev = {"filename": filename, "backend": {"type": kind, "data": data}, "others-wait": False}
    stats = {"kind": kind, "state": "open"}
    return Facts(
        chardevs={"a": chardev | more},
        stats={"a": stats | more},
        consoles={},
        devices=[],
        clients=[],
        lines={"a": more["line"]} if "line" in more else {},
    )


@pytest.mark.parametrize(
    ("kind", "filename", "data", "text"),
    [
        ("socket", "unix:/x,server=on", {"addr": ADDRESS}, "unix:/x"),
        ("socket", "disconnected:unix:/x", {"addr": ADDRESS, "tls-creds": "t"}, "tls unix:/x"),
        ("socket", "fd", {"addr": ADDRESS}, "socket fd"),
        ("null", "null", {}, "null"),
        ("pty", "pty:/dev/pts/3", {}, "pty /dev/pts/3"),
    ],
)
def test_what_a_chardev_leads_to(kind: str, filename: str, data: dict[str, Any], text: str) -> None:
    assert facts(kind, filename, data).device_text("a") == text


def test_the_speed_of_a_line() -> None:
    line = {"speed": 9600, "data-bits": 7, "parity": "E", "stop-bits": 1}
    shown = facts("serial", "serial", {"device": "/dev/ttyS0"}, line=line).device_text("a")
    assert shown == "serial /dev/ttyS0 9600 7E1"


@pytest.mark.parametrize(
    ("stats", "state"),
    [
        ({"state": "waiting"}, "waiting"),
        ({"state": "waiting", "next-try": 39.2}, "waiting 40 s"),
        ({"state": "waiting", "next-try": 0.0}, "waiting 0 s"),
        ({"state": "failed", "last-error": "it went away"}, "failed"),
        ({"state": "open", "others-wait": True}, "open, more wait"),
    ],
)
def test_whether_somebody_is_there_or_when_it_is_tried_again(
    stats: dict[str, Any], state: str
) -> None:
    assert facts("null", "null", {}, **stats).state_text("a") == state
