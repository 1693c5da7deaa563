"""What a command imports before it does anything: that is most of the time in which it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MOST = 184
"""Modules of ours that a service with one chardev imports; a new one needs a reason."""

PROGRAM = """
import gc, sys
from trio_chardev.cli import main

try:
    main()
except SystemExit:
    print(*sys.modules, file=sys.__stdout__)
"""

SERVE = ["serve", "--chardev", "null,id=a", "--qmp", "unix:/nonexistent/qmp,server=on,wait=off"]

ONLY_WHEN_USED = [
    *("h11", "wsproto", "tomllib", "importlib.metadata", "email", "fractions", "cattrs"),
    *("trio_chardev.config.configuration", "trio_chardev.cli.reload", "trio_chardev.cli.client"),
    *("trio_chardev.access.credentials", "trio_chardev.qmp.schema", "trio_chardev.qmp.client"),
    *("trio_chardev.backends.console", "trio_chardev.backends.pty", "trio_chardev.backends.serial"),
    *("trio_chardev.backends.stacked", "trio_chardev.backends.udp", "trio_chardev.backends.replay"),
    *("trio_chardev.backends.file", "trio_chardev.backends.taps.log_file", "trio_serial"),
    *("trio_chardev.backends.socket.tls", "trio_chardev.protocols.websocket"),
    *(
        "trio_chardev.config.absent",
        "trio_chardev.metrics.options",
        "trio_chardev.protocols.telnet",
    ),
    *("trio_chardev.devices.bridge", "trio_chardev.devices.listener"),
    *("trio_chardev.qmp.commands.console", "trio_chardev.qmp.server.trace"),
]


def modules_of(*words: str) -> set[str]:
    """What is imported when that command ends, which here fails at its first deed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_a_service_imports_what_it_uses() -> None:
    modules = modules_of(*SERVE)
    assert "trio_chardev.backends.null" in modules
    assert modules.isdisjoint(ONLY_WHEN_USED)
    assert len([name for name in modules if name.startswith("trio_chardev")]) <= MOST


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["serve", "--help"]], ids=" ".join)
def test_what_is_only_printed_needs_no_runtime(words: list[str]) -> None:
    modules = modules_of(*words)
    assert "click" in modules
    assert modules.isdisjoint({"trio", "attrs", "asyncio", "ssl"})


MOST_TO_ASK = 47
"""Modules of ours that a command imports which asks and prints."""

ASKING = [
    *(["list"], ["clients"], ["show", "n"], ["remove", "n"], ["bridge", "a", "b"], ["retry", "n"]),
    *(["lend", "n"], ["return", "n"], ["break", "n"], ["mark", "n", "m"], ["kick", "n", "1"]),
    *(["give", "n", "1"], ["history", "n", "-f"], ["logs", "n"], ["reload"], ["reopen-logs"]),
    *(["version"], ["qmp", "query-version"], ["qmp", "stop", "a=1"]),
]


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_a_command_that_asks_needs_no_event_loop(words: list[str]) -> None:
    modules = modules_of(*words, "--socket", "/nonexistent/qmp")
    assert "trio_chardev.qmp.client.plain" in modules
    assert modules.isdisjoint({"trio", "asyncio", "ssl", "cattrs", "trio_chardev.service"})
    assert len([name for name in modules if name.startswith("trio_chardev")]) <= MOST_TO_ASK


def test_completion_needs_no_event_loop() -> None:
    program = PROGRAM.replace("except SystemExit", "except BaseException")
    words = {"COMP_WORDS": "trio-chardev show -s /nonexistent/q ", "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **words, "_TRIO_CHARDEV_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    modules = set(done.stdout.split())
    assert "trio_chardev.qmp.client.plain" in modules
    assert modules.isdisjoint({"trio", "asyncio", "ssl", "cattrs"})


def test_a_client_imports_no_service() -> None:
    modules = modules_of("events", "--socket", "/nonexistent/qmp")
    assert "trio_chardev.qmp.client.client" in modules
    assert modules.isdisjoint(
        {
            *("trio_chardev.service", "trio_chardev.registry", "trio_chardev.core.chardev"),
            *("trio_chardev.options.structure", "cattrs", "h11", "trio_chardev.protocols.telnet"),
        }
    )


def test_garbage_is_not_looked_for_among_what_was_imported() -> None:
    """Neither when Trio runs nor at the end, which would take a tenth of the time of a command."""
    program = PROGRAM.replace("print(*sys.modules,", "print(gc.isenabled(), len(gc.get_objects()),")
    words = ["list", "--socket", "/nonexistent/qmp"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60
    )
    is_enabled, objects = done.stdout.split()
    assert is_enabled == "True"
    assert int(objects) < 5_000  # of 40,000
