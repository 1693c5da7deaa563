"""What QEMU takes for a character."""

from __future__ import annotations

import pytest

from trio_chardev.qmp.utf8 import decode, decode_replacing


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"plain \x7f", "plain \x7f"),
        (b"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\u00e9\u20ac\U0001f600"),
        (b"a\xc0\x80b", "a\0b"),
    ],
)
def test_valid(raw: bytes, text: str) -> None:
    assert decode(raw) == decode_replacing(raw) == text


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\x80", b"\xbf", b"\xfe", b"\xff"),  # begins nothing
        *(b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf8\x80\x80", b"\xfc\x80"),  # too short
        *(b"\xc1\x81", b"\xc0\x81", b"\xe0\x80\x80", b"\xf0\x80\x80\x80"),  # overlong
        *(b"\xed\xa0\x80", b"\xed\xbf\xbf"),  # surrogates
        *(b"\xef\xb7\x90", b"\xef\xbf\xbe", b"\xf0\x9f\xbf\xbf", b"\xf4\x8f\xbf\xbe"),
        *(b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf"),  # beyond U+10FFFF
        *(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    ],
)
def test_an_invalid_sequence_is_one_replacement(raw: bytes) -> None:
    assert decode(raw) is None
    assert decode_replacing(b"a" + raw + b"b\xc3\xa9") == "a\ufffdb\u00e9"


def test_invalid_sequences_one_after_another() -> None:
    assert (
        decode_replacing(b"\x80\xbf\xc3\xc3\xa9\xff\xc0\x80") == "\ufffd\ufffd\ufffd\u00e9\ufffd\0"
    )


def test_replacing_ends_at_nul() -> None:
    assert decode_replacing(b"a\0b") == "a"
