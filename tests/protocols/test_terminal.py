"""Which sequences a terminal answers, and what its answers are, in any pieces."""

from __future__ import annotations

import pytest

from trio_chardev.protocols.terminal import AnswerSplitter, QueryFilter, may_ask

QUERIES = [
    *(b"\x1b[6n", b"\x1b[5n", b"\x1b[?6n", b"\x1b[?996n"),
    *(b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c"),
    *(b"\x1b[18t", b"\x1b[14t", b"\x1b[16t", b"\x1b[19t", b"\x1b[20t", b"\x1b[21t", b"\x1b[14;2t"),
    *(b"\x1b[?2026$p", b"\x1b[4$p", b"\x1b[?u", b"\x1b[>q", b"\x1b[>0q", b"\x1b[0x", b"\x1b[?4m"),
    *(
        b"\x1b]4;1;?\x07",
        b"\x1b]10;?\x07",
        b"\x1b]11;?\x1b\\",
        b"\x1b]12;?\x07",
        b"\x1b]52;c;?\x07",
    ),
    *(b"\x1bP$qm\x1b\\", b"\x1bP+q544e\x1b\\", b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"),
    *(b"\x05", b"\x1bZ", b"\x1b[1$w", b"\x1b[1;1;1;1;2;2*y"),
]
NOT_QUERIES = [
    *(b"\x1b[1;31m", b"\x1b[2J", b"\x1b[?25h", b"\x1b[10;20H", b"\x1b[8;24;80t", b"\x1b[22;0t"),
    *(
        b"\x1b[?17;0;64c",
        b"\x1b[>4;2m",
        b"\x1b[2 q",
        b"\x1b[!p",
        b"\x1b[u",
        b"\x1b[>1u",
        b"\x1b[3S",
    ),
    *(b"\x1b]0;what? why\x07", b"\x1b]8;;http://x/?q\x1b\\", b"\x1b]4;1;rgb:00/00/00\x07"),
    *(b"\x1bPq#0;2;0;0;0\x1b\\", b"\x1bM", b"\x1b(B", b"\x1b7", b"\x1b[>2n"),
]
ANSWERS = [
    *(b"\x1b[56;3R", b"\x1b[?56;3R", b"\x1b[0n", b"\x1b[?1;2c", b"\x1b[>41;354;0c"),
    *(b"\x1b[8;24;80t", b"\x1b[4;600;800t", b"\x1b[?2026;2$y", b"\x1b[?0u"),
    *(b"\x1b]11;rgb:0000/0000/0000\x07", b"\x1bP1$r0m\x1b\\", b"\x1bP>|XTerm(354)\x1b\\"),
]
KEYS = [b"\x1b[A", b"\x1bOP", b"\x1b[R", b"\x1b[1;5C", b"\x1b[15~", b"\x1b[M !!", b"\x1b[<0;1;1M"]


def filtered(*pieces: bytes) -> bytes:
    one = QueryFilter()
    return b"".join(map(one.feed, pieces)) + one.rest()


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_left_out_wherever_it_is_cut(query: bytes) -> None:
    text = b"boot" + query + b"end"
    for cut in range(len(text) + 1):
        assert filtered(text[:cut], text[cut:]) == b"bootend"
    assert filtered(*(bytes([byte]) for byte in text)) == b"bootend"


@pytest.mark.parametrize("other", NOT_QUERIES)
def test_what_a_terminal_does_not_answer_stays(other: bytes) -> None:
    text = b"boot" + other + b"end"
    for cut in range(len(text) + 1):
        assert filtered(text[:cut], text[cut:]) == text


def test_the_queries_that_are_seen_live_are_those_that_are_left_out() -> None:
    for query in QUERIES:
        if b"G" not in query and query not in (b"\x1b[?4m",):
            assert may_ask(b"x" + query + b"y"), query
    assert not may_ask(b"\x1b[1;31m plain text? \x1b[2J\x1b[10;20H")


def test_the_beginning_of_a_sequence_at_the_end_is_given_when_asked_for() -> None:
    one = QueryFilter()
    assert one.feed(b"x\x1b[") == b"x"
    assert one.rest() == b"\x1b["
    assert one.feed(b"6n") == b"6n"


def test_a_string_without_end_is_not_kept_for_ever() -> None:
    picture = b"\x1bPq" + b"#" * 100_000
    assert filtered(*(picture[at : at + 1000] for at in range(0, len(picture), 1000))) == picture


def test_a_long_string_that_may_ask_is_left_out_to_its_end() -> None:
    asked = b"\x1b]4;" + b"1;red;" * 5000 + b"2;?\x1b\\"
    for size in (1000, 8191):
        pieces = [asked[at : at + size] for at in range(0, len(asked), size)]
        assert filtered(b"a", *pieces, b"b") == b"ab"


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_told_from_what_is_typed(answer: bytes) -> None:
    text = b"ls" + answer + b"\r"
    for cut in range(len(text) + 1):
        one = AnswerSplitter()
        given = [*one.feed(text[:cut]), *one.feed(text[cut:])]
        if text[:cut].endswith(b"\x1b"):  # Escape is a key, as far as anybody can tell by then
            continue
        assert b"".join(data for data, is_answer in given if is_answer) == answer
        assert b"".join(data for data, is_answer in given if not is_answer) == b"ls\r"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_no_answer(key: bytes) -> None:
    assert list(AnswerSplitter().feed(key)) == [(key, False)]


def test_escape_alone_is_a_key_and_does_not_wait() -> None:
    assert list(AnswerSplitter().feed(b"\x1b")) == [(b"\x1b", False)]
