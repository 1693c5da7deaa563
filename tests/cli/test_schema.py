"""Which words of a command line are strings, as a server's schema has it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calls import Call, wait_for
from tests.peers import need
from trio_chardev.cli.schema import Schema, settle
from trio_chardev.cli.words import parse_arguments
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.schema import qmp_schema
from trio_chardev.qmp.server.events import EVENTS

OURS = Schema(qmp_schema(COMMANDS, EVENTS))


def settled(command: str, *words: str, schema: Schema = OURS) -> dict[str, Any]:
    arguments = parse_arguments(words)
    settle(arguments, schema, command)
    return arguments


def test_a_string_is_a_string_where_the_schema_says_so() -> None:
    words = ["id=5", "backend.type=null"]
    assert settled("chardev-add", *words) == {
        "id": "5",
        "backend": {"type": "null", "data": {}},
    }
    words = ["backend.type=ringbuf", "backend.data.size=64", "backend.data.logfile=true"]
    assert settled("chardev-add", *words)["backend"]["data"] == {"size": 64, "logfile": "true"}


def test_the_variant_is_that_of_the_tag_wherever_it_stands() -> None:
    words = ["peer=1", "chardev=2", "driver=bridge", "pace-line-ms=3"]
    assert settled("device_add", *words) == {
        "peer": "1",
        "chardev": "2",
        "driver": "bridge",
        "pace-line-ms": 3,
    }


@pytest.mark.parametrize("words", [["bogus=5"], ["a.b=5"], ["backend.type=1", "backend.data.x=5"]])
def test_what_the_schema_does_not_have_is_json(words: list[str]) -> None:
    assert "5" not in json.dumps(settled("chardev-add", *words)).split('"')
    assert settled("bogus", "a=5") == {"a": 5}


ALTERNATE = Schema(
    [
        {"name": "x", "meta-type": "command", "arg-type": "0"},
        {"name": "0", "meta-type": "object", "members": [{"name": "a", "type": "1"}]},
        {"name": "1", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "int"}]},
        {"name": "str", "meta-type": "builtin", "json-type": "string"},
        {"name": "int", "meta-type": "builtin", "json-type": "int"},
    ]
)


@pytest.mark.parametrize(("word", "value"), [("a=5", 5), ("a=true", "true"), ("a=[1]", "[1]")])
def test_of_several_types_the_word_is_what_it_looks_like(word: str, value: object) -> None:
    assert settled("x", word, schema=ALTERNATE) == {"a": value}


def test_with_a_service(call: Call) -> None:
    assert call("qmp", "chardev-add", "id=5", "backend.type=null") == (0, "{}\n", "")
    assert call("qmp", "ringbuf-write", "device=5", "data=true")[2].startswith("GenericError: ")
    assert call("qmp", "chardev-remove", "id=5") == (0, "{}\n", "")


def test_with_qemu(call: Call, tmp_path: Path) -> None:
    daemon = need("qemu-storage-daemon")
    monitor = f"socket,id=m,path={tmp_path}/q,server=on,wait=off"
    process = subprocess.Popen([daemon, "--chardev", monitor, "--monitor", "m"])
    try:
        wait_for((tmp_path / "q").exists)
        words = ["id=a5", "backend.type=null"]
        assert call("qmp", "-s", f"{tmp_path}/q", "chardev-add", *words) == (0, "{}\n", "")
        script = (
            "chardev-change id=a5 backend.type=ringbuf backend.data.size=64\nchardev-remove id=a5\n"
        )
        assert run_script(script, "-s", f"{tmp_path}/q").stdout == "{}\n{}\n"
    finally:
        process.kill()
        process.wait()


def run_script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    from tests.services import PROGRAM, TIMEOUT

    return subprocess.run(
        [*PROGRAM, "qmp", *arguments, "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_many_commands_of_standard_input(call: Call, path: Path) -> None:
    script = """\
    # comment
    chardev-add id=7 backend.type=null

    {"execute": "query-chardev-stats", "arguments": {"id": "7"}}
    chardev-remove id=7"""
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    added, stats, removed = map(json.loads, done.stdout.splitlines())
    assert (added, removed) == ({}, {})
    assert stats["chardevs"][0]["id"] == "7"


@pytest.mark.parametrize(
    ("script", "out", "text"),
    [
        ("query-version\n'\n", 1, "trio-chardev: line 2: No closing quotation\n"),
        ("x\nquery-version\n", 0, "CommandNotFound: line 1: The command x has not been found\n"),
    ],
)
def test_the_first_that_fails_ends_it(
    call: Call, path: Path, script: str, out: int, text: str
) -> None:
    done = run_script(script)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, out, text)


def test_a_dash_takes_no_words(call: Call) -> None:
    assert call("qmp", "-", "x=1")[0] == 2
