"""Backends spelt as for ``--chardev``."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.change import parse_backend
from trio_chardev.cli.spelled import members, spelled
from trio_chardev.options.structure import structure
from trio_chardev.options.unstructure import unstructure


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "socket,path=/x,,y,server=on,wait=off",
        "socket,host=h,port=1,reconnect-ms=500,nodelay=on",
        "serial,path=/dev/ttyUSB0,speed=9600,wait=off",
        "console,history=256k,write=first,logfile=/x",
        "ringbuf,size=128k",
        "udp,host=h,port=1,localaddr=a,localport=2",
        "hub,chardevs.0=a,chardevs.1=b",
        "file,path=/o,input-path=/i",
        "pipe,path=/x",
        "pty,path=/x",
    ],
)
def test_what_is_shown_can_be_given_again(text: str) -> None:
    def backend(spelt: str) -> Any:
        parsed = parse_backend("x", spelt, lambda warning: None)
        return unstructure(structure(BACKEND, parsed), BACKEND)

    given = backend(text)
    again = spelled(given["type"], given["data"])
    assert backend(again) == given
    assert set(text.split(",")) <= set(again.split(","))


def test_an_object_of_qmp() -> None:
    value = {"state": "open", "to-peer": {"bytes": 5}, "tls": False, "rows": [{"a": 1}]}
    assert members(value) == 'state=open, to-peer.bytes=5, tls=off, rows=[{"a": 1}]'
