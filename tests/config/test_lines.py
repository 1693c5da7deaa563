"""Each table, key and item of a TOML text has its line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_chardev.config.lines import KeyPath, find_lines

TEXT = '''\
# a comment [no.table]
qmp = ["unix:/run/a", # a comment ]
       "unix:/run/b"]

[chardev.board]   # [chardev.other]
kind = "serial"
"path" = '/dev/ttyUSB0 # no comment'
long = """
[no.table]
a = 1 \\""" b
"""
speed = 115200

[console."a.b"]
listen = [
    "4001",

    "/run/x,y=z",
]
log = { file = "x", rotate = "1M" }
bridge.notice = true
empty = {}
last = 'x'
nested = [[1,
  2], {a = [3,
  4]}]

[[rule]]
match = "a"
[[rule]]
match = "b"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("qmp",), 2),
        (("qmp", 0), 2),
        (("qmp", 1), 3),
        (("chardev",), 5),
        (("chardev", "board"), 5),
        (("chardev", "board", "kind"), 6),
        (("chardev", "board", "path"), 7),
        (("chardev", "board", "long"), 8),
        (("chardev", "board", "speed"), 12),
        (("console", "a.b"), 14),
        (("console", "a.b", "listen"), 15),
        (("console", "a.b", "listen", 0), 16),
        (("console", "a.b", "listen", 1), 18),
        (("console", "a.b", "log"), 20),
        (("console", "a.b", "log", "file"), 20),
        (("console", "a.b", "log", "rotate"), 20),
        (("console", "a.b", "bridge", "notice"), 21),
        (("console", "a.b", "empty"), 22),
        (("console", "a.b", "last"), 23),
        (("console", "a.b", "nested", 0, 1), 25),
        (("console", "a.b", "nested", 1, "a", 1), 26),
        (("rule", 0, "match"), 29),
        (("rule", 1, "match"), 31),
    ],
    ids=str,
)
def test_lines(path: KeyPath, line: int) -> None:
    assert find_lines(TEXT)[path] == line


def paths_of(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """The paths of all that is in *value*."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += paths_of(item, (*path, index))
    return found


def test_all_that_is_there_has_a_line_and_nothing_else_has() -> None:
    assert set(find_lines(TEXT)) == set(paths_of(tomllib.loads(TEXT)))


def test_a_table_that_comes_after_one_below_it_has_its_own_line() -> None:
    assert find_lines("[a.b]\n[a]\n")[("a",)] == 2


def test_quotes_in_long_strings_end_nothing() -> None:
    text = "a = '''x'''''\nb = \"\"\"\"x\"\"\"\nc = 1\n"
    assert find_lines(text) == {("a",): 1, ("b",): 2, ("c",): 3}


VALUES = st.recursive(
    st.sampled_from(["1", '"x"', "'#'", '"""\n"\n"""', "'''\n]'''", "1979-05-27 07:32:00", "-1.5"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n # ,\n".join(items) + "]"),
        st.lists(inner, max_size=3).map(
            lambda items: (
                "{" + ", ".join(f"k{n}.'x' = {item}" for n, item in enumerate(items)) + "}"
            )
        ),
    ),
    max_leaves=6,
)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_any_value_is_passed_over(values: list[str]) -> None:
    text = "".join(f"v{n} = {value} # '\n" for n, value in enumerate(values))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a long string in an inline table
        return
    lines = find_lines(text)
    assert set(lines) == set(paths_of(document))
    for number in range(len(values)):
        assert text.splitlines()[lines[f"v{number}",] - 1].startswith(f"v{number} =")
