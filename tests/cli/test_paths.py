"""Relative paths of options that are sent to a service."""

from __future__ import annotations

import os
from typing import Any

import pytest

from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.change import parse_backend
from trio_chardev.cli.paths import with_absolute_paths


def parsed(text: str) -> Any:
    return with_absolute_paths(BACKEND, parse_backend("x", text, lambda text: None))["data"]


def test_they_are_those_of_the_caller() -> None:
    here = os.getcwd()
    assert parsed("file,path=a,input-path=../b,logfile=c") == {
        "out": f"{here}/a",
        "in": os.path.abspath("../b"),
        "logfile": f"{here}/c",
    }
    assert parsed("socket,path=s,server=on")["addr"]["data"] == {"path": f"{here}/s"}
    assert parsed("console,history=1k,history-file=h")["history-file"] == f"{here}/h"
    assert parsed("pty,path=p") == {"path": f"{here}/p"}


@pytest.mark.parametrize(
    ("text", "member", "value"),
    [
        ("serial,path=usb:A50285BI", "device", "usb:A50285BI"),
        ("serial,path=rfc2217://h:1", "device", "rfc2217://h:1"),
        ("serial,path=/dev/ttyS0", "device", "/dev/ttyS0"),
        ("null", "path", None),
    ],
)
def test_other_names_stay(text: str, member: str, value: str | None) -> None:
    assert parsed(text).get(member) == value


def test_an_abstract_name_is_no_path() -> None:
    assert parsed("socket,path=s,abstract=on,server=on")["addr"]["data"]["path"] == "s"


@pytest.mark.parametrize("value", [5, None, {"type": "bogus", "data": {}}, {"type": "file"}])
def test_what_is_wrong_is_left_for_the_service(value: object) -> None:
    assert with_absolute_paths(BACKEND, value) == value
