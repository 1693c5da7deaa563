"""Where a page of metrics may be, in one word."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

import trio_chardev as tc
from trio_chardev.metrics.options import MetricsOptions, check_installed, parse_metrics
from trio_chardev.options.keyval import HelpRequested


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("9101", {"host": "127.0.0.1", "port": "9101"}),
        ("127.0.0.1:9101", {"host": "127.0.0.1", "port": "9101"}),
        ("[::1]:9101,clients=on", {"host": "::1", "port": "9101", "clients": True}),
        ("localhost:0", {"host": "localhost", "port": "0"}),
        ("*:9101,insecure=on", {"host": "", "port": "9101", "insecure": True}),
        ("10.0.0.7:9101,insecure=on", {"host": "10.0.0.7", "port": "9101", "insecure": True}),
        ("unix:/run/m.sock", {"path": "/run/m.sock"}),
        ("/run/m.sock,clients=off", {"path": "/run/m.sock"}),
        ("fd:metrics", {"fd": "metrics"}),
        ("host=127.0.0.1,port=9101", {"host": "127.0.0.1", "port": "9101"}),
    ],
)
def test_an_address_is_one_word(text: str, options: dict[str, Any]) -> None:
    assert parse_metrics(text) == MetricsOptions(**options)


HOW = (
    "PORT listens at 127.0.0.1, *:PORT at all addresses, /PATH at a UNIX socket, fd:NAME at an "
    "inherited one"
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("*:9101", "metrics at '*' need a loopback address, or insecure=on"),
        ("10.0.0.7:9101", "metrics at '10.0.0.7' need a loopback address, or insecure=on"),
        ("board.example:1", "metrics at 'board.example' need a loopback address, or insecure=on"),
        ("host=,port=1", "metrics at '*' need a loopback address, or insecure=on"),
        ("", f"an address is missing: {HOW}"),
        ("clients=on", "one of 'path', 'host' or 'fd' is required"),
        ("a:b:c", f"'a:b:c' is neither HOST:PORT nor a path: {HOW}"),
        ("vsock:3:1", f"'vsock:3:1' is neither HOST:PORT nor a path: {HOW}"),
        ("9101,path=/x", "one of 'path', 'host' or 'fd' is required"),
        ("9101,port=2", "'port' is there twice"),
        ("host=::1", "'host' and 'port' go together"),
        ("9101,clients", "'clients' needs a value: clients=on"),
        ("9101,clients=maybe", "Parameter 'clients' expects 'on' or 'off'"),
        ("9101,colour=on", "Parameter 'colour' is unexpected"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(text: str, error: str) -> None:
    with pytest.raises(tc.OptionsError) as caught:
        parse_metrics(text)
    assert str(caught.value) == error


@pytest.mark.parametrize("text", ["help", "?", "9101,help"])
def test_help_is_asked_for(text: str) -> None:
    with pytest.raises(HelpRequested) as caught:
        parse_metrics(text)
    assert caught.value.option == "metrics"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tc.OptionsError, match=r"install it, or 'trio-chardev\[metrics\]'"):
        check_installed()
