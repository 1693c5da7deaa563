"""Which web pages may connect to a WebSocket."""

from __future__ import annotations

import pytest

from trio_chardev.protocols.origin import can_be_allowed, is_path, may_connect


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://192.0.2.1:8000", "192.0.2.1:5700"),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:5700"),
        ("http://localhost:8000", "127.0.0.1:5700"),
        ("http://127.0.0.1", "[::1]:5700"),
    ],
)
def test_pages_of_the_same_host_may(origin: str, host: str) -> None:
    assert may_connect(origin, host, [])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://console.example", "console.example:5700"),
        ("https://console.example:8443", "Console.Example:5700"),
    ],
)
def test_a_name_that_anybody_can_have_lead_here_counts_only_if_it_is_known(
    origin: str, host: str
) -> None:
    """DNS rebinding: the page's own name leads here by now."""
    assert not may_connect(origin, host, [])
    assert not may_connect(origin, host, [], {"box", "box.example"})
    assert may_connect(origin, host, [], {"box", "console.example"})
    assert not may_connect("http://evil.example", host, [], {"box", "console.example"})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:5700"),
        ("http://evil.example", "console.example:5700"),
        ("http://console.example.evil.example", "console.example:5700"),
        ("http://localhost.evil.example", "localhost:5700"),
        ("http://127.0.0.1", "192.0.2.1:5700"),
        ("null", "localhost:5700"),  # a file, or a frame that has no rights
        ("null", "null"),
        ("", ""),
        ("http://[::1", "[::1"),
    ],
)
def test_other_pages_may_not(origin: str, host: str) -> None:
    assert not may_connect(origin, host, [])


def test_a_list_says_it_instead_of_the_host() -> None:
    allowed = ["https://Console.example/", "http://other.example:8000"]
    assert may_connect("https://console.example", "x", allowed)
    assert may_connect("http://other.example:8000", "x", allowed)
    assert not may_connect("http://console.example", "console.example", allowed)
    assert not may_connect("http://other.example", "other.example", allowed)
    assert not may_connect("null", "x", allowed)


def test_the_port_of_an_origin_can_be_left_open() -> None:
    for entry in ("https://console.example:*", "HTTPS://Console.example:*/"):
        for origin in ("https://console.example", "https://console.example:8443"):
            assert may_connect(origin, "x", [entry])
        for origin in (
            "http://console.example:8443",
            "https://console.example.evil.example",
            "https://console.example.evil.example:443",
            "https://console.example:8443.evil.example",
            "https://console.example:8443:1",
            "https://evil.example",
            "null",
        ):
            assert not may_connect(origin, "x", [entry])
    assert may_connect("http://[::1]:5", "x", ["http://[::1]:*"])
    assert may_connect("http://[::1]", "x", ["http://[::1]:*"])
    assert not may_connect("http://[::1]:5", "x", ["http://[::1]"])


def test_the_port_that_browsers_leave_out_is_the_same_origin() -> None:
    assert may_connect("https://console.example", "x", ["https://console.example:443"])
    assert may_connect("http://console.example", "x", ["http://console.example:80/"])
    assert not may_connect("http://console.example", "x", ["http://console.example:443"])


def test_pages_without_an_origin_can_be_listed_and_so_can_all() -> None:
    assert may_connect("null", "x", ["null"])
    assert may_connect("http://anybody.example", "x", ["*"])
    assert may_connect("null", "x", ["https://console.example", "*"])


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "https://console.example",
        "https://console.example:*",
        "https://console.example:8443",
        "HTTP://[::1]:80/",
        "http://[::1]:*",
        "chrome-extension://abcdef",
    ],
)
def test_these_are_origins(text: str) -> None:
    assert can_be_allowed(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "console.example",
        "https://",
        "https://x/page",
        "https://me@x",
        "//x",
        "https://a b",
        "**",
        "https://*.console.example",
        "https://*",
        "https://*:*",
        "https://console.example:8*",
        "https://console.example:",
    ],
)
def test_these_would_allow_nobody(text: str) -> None:
    assert not can_be_allowed(text)


@pytest.mark.parametrize(
    "text", ["", "websockify", "/a b", "/a#b", "/\r\nX: y", "/é", "/\x7f", "?x"]
)
def test_what_is_no_path(text: str) -> None:
    assert not is_path(text, with_query=True)


def test_only_a_client_has_a_query() -> None:
    assert is_path("/a?b=c/%20~!", with_query=True)
    assert not is_path("/a?b", with_query=False)
    assert is_path("/a", with_query=False)
