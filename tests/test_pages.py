"""Each command that a page prints is understood to its end, and is run by a test, or it is said why not."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, Machine, shell_blocks
from tests.services import TIMEOUT, running
from tests.wires import wire
from trio_chardev.cli import cli
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.schema import Schema, settle
from trio_chardev.cli.words import parse_arguments
from trio_chardev.options.structure import structure
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.schema import qmp_schema
from trio_chardev.qmp.server.events import EVENTS

BOARD_TOOLS = "test_board_pages: test_esptool_asks_the_chip_after_a_reset_by_us_or_by_itself"
BRIDGE = "test_bridge_page: test_an_answer_on_the_bus_comes_in_one_read"
CONSOLES = "test_console_page: test_a_board_with_its_console_and_its_history"
VM = "test_console_page: test_a_vm_of_libvirts_dials_in_and_incus_shows_its_log"
NEWCOMER = "test_newcomer: test_all_that_the_page_says"
README = "test_readme: test_the_console_of_a_vm_shows_what_was_kept"
SER2NET = "test_board_pages: test_what_ser2net_does_is_done_here_too"
SHELL = "test_readme: test_the_example_for_the_shell"
UNITS = "cli/test_units: test_the_page_has_the_commands"
LINES = "qmp/commands/test_line: "

RUN_BY = {
    "README.md": [
        "CI, which runs the demo",
        "test_readme: test_ci_runs_the_test_command_to_the_letter",
        *(README, SHELL, SHELL),
    ],
    "docs/attach.md": [
        "cli/test_attach: test_keys_go_to_the_device_and_its_output_is_shown_until_one_detaches"
    ],
    "docs/board-tools.md": [
        "test_board_pages: test_the_program_with_pyserial",
        "test_board_pages: test_miniterm",
        *(BOARD_TOOLS, BOARD_TOOLS),
    ],
    "docs/bridge.md": [
        BRIDGE,
        "test_bridge_page: test_what_is_pasted_comes_no_faster_than_the_boot_loader_can_take_it",
        README,
    ],
    "docs/commands.md": [
        "test_pages: test_the_commands_at_a_board",
        "cli/test_manual: test_the_program_writes_them_where_man_looks",
    ],
    "docs/configuration.md": [
        NEWCOMER,
        "cli/test_reload: test_a_service_by_signal_and_command",
        "convert/test_ser2net: test_the_samples_of_the_package",
    ],
    "docs/consoles.md": [
        *(CONSOLES, CONSOLES, CONSOLES, VM, VM, VM),
        "test_console_page: test_users_of_kubevirts_come_by_websocket",
        "test_console_page: test_cloud_hypervisor_is_dialled_again_and_again",
        "test_console_page: test_an_agent_and_a_human",
    ],
    "docs/first-ten-minutes.md": [
        "test_newcomer: test_it_is_installed_as_the_readme_has_it",
        *([NEWCOMER] * 8),
    ],
    "docs/from-ser2net.md": [SER2NET, SER2NET],
    "docs/install.md": [
        "test_newcomer: test_it_is_installed_as_the_readme_has_it",
        "nobody: it changes the user's home, and needs pipx",
        "nobody: it changes the machine",
        "test_packaging: test_a_package_has_all_files_where_a_distribution_has_them",
    ],
    "docs/logs.md": ["test_pages: test_the_log_of_a_board"],
    "docs/new-backend.md": ["test_new_backend: test_with_its_row_it_is_served_and_qmp_knows_it"],
    "docs/recording.md": [
        "backends/test_replay: test_asciinema_shows_what_the_frontend_was_shown",
    ],
    "docs/serial.md": [
        SER2NET,
        "test_board_pages: test_miniterm",
        "nobody: it is a part of a command line, which is parsed",
        "nobody: they are parts of a command line, which are parsed",
        "nobody: a PTY has no DTR; the commands are parsed",
        BOARD_TOOLS,
        "nobody: it takes a board and its flasher; the commands are parsed",
    ],
    "docs/service-logs.md": ["nobody: it reads the journal, and needs jq"],
    "docs/systemd.md": [UNITS, UNITS],
    "docs/walks.md": [
        *["test_walks: test_from_ser2net"] * 3,
        *["test_walks: test_from_conserver"] * 3,
        *["test_walks: test_from_qemu"] * 4,
        *["test_walks: test_from_labgrid"] * 2,
    ],
    "docs/waiting.md": ["test_pages: test_what_waits_is_tried_now"],
}
"""The test that does what a block says, in the order of the blocks of a page."""

BLOCKS = [
    block
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for block in shell_blocks(str(path.relative_to(ROOT)))
]


def test_each_block_is_run_by_a_test_or_says_why_not() -> None:
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        found.setdefault(block.page, []).append(block.where)
    assert {page: len(wheres) for page, wheres in found.items()} == {
        page: len(tests) for page, tests in RUN_BY.items()
    }, "a block of commands needs a test"
    for test in {test for tests in RUN_BY.values() for test in tests}:
        module, _, name = test.partition(": ")
        if name.startswith("test_"):
            text = (ROOT / "tests" / f"{module}.py").read_text()
            assert re.search(rf"^(async )?def {name}\b", text, re.MULTILINE), test


# ---------------------------------------------------------------- understood to the end


def ours(block: Block) -> Iterator[list[str]]:
    """The words of each call of the program, in pipes and lists too."""
    for command in block.commands:
        if command.startswith("--"):  # a part of a command line
            command = f"trio-chardev serve {command}"
        lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("|&;<>"):
                words.append(word)
                continue
            if words and words[0].endswith("trio-chardev"):
                yield [part for part in words[1:] if part not in {"2"}]
            words = []


SCHEMA = Schema(qmp_schema(COMMANDS, EVENTS))
CALLS = {block.where: calls for block in BLOCKS if (calls := list(ours(block)))}


@pytest.mark.parametrize("where", CALLS)
def test_what_it_calls_is_understood(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options and arguments are there, and of the right type; nothing is opened."""
    monkeypatch.chdir(tmp_path)
    for name, *words in CALLS[where]:
        context = cli.commands[name].make_context(name, list(words))
        if name == "qmp":
            check_qmp(**context.params)
        elif name == "serve" and not where.startswith("docs/new-backend.md"):  # it adds a kind
            check_serve(words)


def check_serve(words: list[str]) -> None:
    given: dict[str, list[str]] = {"--chardev": [], "--device": [], "--object": [], "--qmp": []}
    for option, value in pairwise(words):
        if option in given:
            given[option].append(value)
    chardevs, devices, objects, listeners = given.values()
    ServeOptions.parse(chardevs, [], listeners, None, print, objects=objects, devices=devices)


def check_qmp(command: str, words: Sequence[str], **_: object) -> None:
    arguments = parse_arguments(words)
    settle(arguments, SCHEMA, command)
    structure(COMMANDS[command].arguments, arguments)


# ---------------------------------------------------------------- run to the letter


def test_the_commands_at_a_board(tmp_path: Path) -> None:
    (block, *_) = shell_blocks("docs/commands.md")
    with wire() as line:
        machine = Machine(tmp_path, {"/dev/ttyUSB0": line.path})
        *before, expect = block.commands
        with running(XDG_RUNTIME_DIR=f"{tmp_path}/run") as service:
            service.wait_line()
            rows = machine.run("\n".join(before)).splitlines()
            assert re.search(r"^board +serial .* 115200 8N1 +open +0 ", rows[-1])
            is_over = threading.Event()
            board = threading.Thread(target=ask_for_ever, args=(line.board, is_over))
            board.start()
            try:
                machine.run(expect)
            finally:
                is_over.set()
                board.join()
            assert os.read(line.board, 100) == b"root\r"


def ask_for_ever(board: int, is_over: threading.Event) -> None:
    """Nothing tells when `expect` has begun."""
    while not is_over.wait(0.05):
        os.write(board, b"board login: ")


def test_the_log_of_a_board(tmp_path: Path) -> None:
    (block,) = shell_blocks("docs/logs.md")
    (command,) = block.commands
    log = tmp_path / "board.log"
    with wire() as line:
        machine = Machine(tmp_path, {"/dev/ttyUSB0": line.path, "board.log": str(log), "4001": "0"})
        words = shlex.split(machine.named(command))[2:]
        with running(*words, XDG_RUNTIME_DIR=f"{tmp_path}/run") as service:
            service.wait_line()
            os.write(line.board, b"booting\n")
            for _ in range(int(TIMEOUT / 0.01)):
                if log.read_text().endswith(" booting\n"):
                    break
                threading.Event().wait(0.01)
            assert re.fullmatch(r"\S+ booting\n", log.read_text())


def test_what_waits_is_tried_now(tmp_path: Path) -> None:
    (block,) = shell_blocks("docs/waiting.md")
    serve, *commands = block.commands
    machine = Machine(tmp_path, {"/run/vm.sock": f"{tmp_path}/vm.sock"})
    words = shlex.split(machine.named(serve))[2:]
    with running(*words, XDG_RUNTIME_DIR=f"{tmp_path}/run") as service:
        service.wait_line()
        assert '"next-try"' in machine.run("\n".join(commands))
