"""The imports of the package go one way, and its protocols do no I/O."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trio_chardev

PACKAGE = "trio_chardev"
FOLDER = Path(trio_chardev.__file__).parent

LEAVES = {"errors", "events", "plain_errors", "version"}
BASE = LEAVES | {
    "access",
    "cached_path",
    "files",
    "garbage",
    "importing",
    "libc",
    "options",
    "place",
    "readiness",
    "systemd",
    "workers",
}
KINDS = BASE | {"core", "backends", "devices"}
SERVICE = KINDS | {"notices", "registry", "qmp", "service", "service_log"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    **{leaf: set[str]() for leaf in LEAVES},
    "errors": {"plain_errors"},
    "notices": set[str](),
    "protocols": {"errors", "events"},
    "service_log": {"errors"},
    "core": BASE,
    "testing": BASE | {"core", "devices"},
    "backends": BASE | {"core", "notices", "protocols"},
    "devices": BASE | {"core", "backends", "notices"},
    "lending": KINDS | {"notices"},
    "registry": KINDS | {"lending", "notices"},
    "qmp": KINDS | {"lending", "notices", "registry", "service_log"},
    "metrics": KINDS | {"notices", "registry", "qmp", "protocols"},
    "service": SERVICE,
    "plugins": SERVICE,
    "config": SERVICE,
    "convert": {"errors", "files"},
    "api": SERVICE,  # the public names
    "": {"api", "version"},
    "cli": SERVICE | {"", "config", "convert", "metrics", "plugins", "protocols"},
    "__main__": {"cli"},
}
"""What each part may import beside itself."""

PLACE = re.compile(rf"{PACKAGE}[.\w]*:\w")
"""How `options/lazy.py` names what is imported later."""

Sources = Mapping[str, str]  # module name -> text


def read_sources() -> dict[str, str]:
    sources = {}
    for path in FOLDER.rglob("*.py"):
        parts = [PACKAGE, *path.relative_to(FOLDER).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        sources[".".join(parts)] = path.read_text()
    return sources


def part_of(module: str) -> str:
    """``trio_chardev.core.runner`` is of ``core``; the package itself is ````."""
    return module.partition(".")[2].partition(".")[0]


def imports_of(module: str, sources: Sources) -> Iterator[str]:
    """The modules that *module* imports, in functions, for types alone and by tables too."""
    for node in import_statements(sources[module]):
        if isinstance(node, ast.Constant):
            yield str(node.value).partition(":")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0 and node.module, f"{module}: relative import"  # noqa: PT018
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in sources else node.module


@functools.cache  # the tests have all texts but one in common
def import_statements(text: str) -> list[ast.Import | ast.ImportFrom | ast.Constant]:
    """Those in *text*, and the places of rows that a table imports when they are used."""
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Constant) and PLACE.match(str(node.value)))
    ]


def find_faults(sources: Sources) -> list[str]:
    """What breaks the rules, in words."""
    faults = []
    graph: dict[str, set[str]] = {}
    for module in sorted(sources):
        part = part_of(module)
        if part not in MAY_IMPORT:
            faults.append(f"{module}: say in MAY_IMPORT where {part} stands")
            continue
        graph[module] = {name for name in imports_of(module, sources) if name != module}
        for name in sorted(graph[module]):
            if name.partition(".")[0] == PACKAGE:
                if part_of(name) not in MAY_IMPORT[part] | {part}:
                    faults.append(f"{module} imports {name}")
            elif part == "protocols" and name.partition(".")[0] == "trio":
                faults.append(f"{module} imports trio")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        faults.append("cycle: " + " -> ".join(exc.args[1]))
    return faults


def test_imports_go_one_way() -> None:
    assert find_faults(read_sources()) == []


def test_the_modules_of_the_package_are_found() -> None:
    assert {"trio_chardev", "trio_chardev.errors", "trio_chardev.core.chardev"} <= set(
        read_sources()
    )


WRONG = [
    ("core.x", "from trio_chardev.backends import pty", "imports trio_chardev.backends"),
    (
        "core.x",
        "def f():\n    import trio_chardev.qmp.json.codec",
        "imports trio_chardev.qmp.json.codec",
    ),
    ("core.x", "import trio_chardev", "imports trio_chardev"),
    ("errors", "from trio_chardev.events import Event", "imports trio_chardev.events"),
    (
        "testing",
        "from trio_chardev.backends.pty.pty import x",
        "imports trio_chardev.backends.pty.pty",
    ),
    ("devices.x", "import trio_chardev.protocols.telnet", "imports trio_chardev.protocols"),
    ("protocols.x", "import trio", "imports trio"),
    ("protocols.x", "from trio.lowlevel import checkpoint", "imports trio"),
    (
        "protocols.x",
        "from trio_chardev.core.runner import Runner",
        "imports trio_chardev.core.runner",
    ),
    ("new.x", "", "say in MAY_IMPORT where new stands"),
    ("core.runner", "from trio_chardev.core import chardev", "cycle: "),
    ("core.x", "ROWS = {'a': 'trio_chardev.backends.null:NULL'}", "imports trio_chardev.backends"),
    ("core.runner", "ROWS = {'a': 'trio_chardev.core.chardev:Chardev'}", "cycle: "),
]


@pytest.mark.parametrize(("module", "text", "fault"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_import_is_found(module: str, text: str, fault: str) -> None:
    faults = find_faults({**read_sources(), f"{PACKAGE}.{module}": text})
    assert any(fault in found for found in faults), faults


def test_imports_for_types_alone_count() -> None:
    """What is hidden from Python is a circle still, for who reads it."""
    text = "if TYPE_CHECKING:\n    import trio_chardev.cli"
    assert list(imports_of("x", {"x": text})) == ["trio_chardev.cli"]


def test_the_rows_of_tables_are_found() -> None:
    found = set(imports_of("trio_chardev.backends.table", read_sources()))
    assert {"trio_chardev.backends.null", "trio_chardev.backends.pty.pty"} <= found


def test_a_relative_import_is_not_taken() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        find_faults({"trio_chardev.core.x": "from . import runner"})


def test_nothing_is_executed() -> None:
    """docs/security.md: no command, option or kind runs a program, or code that somebody sent."""
    modules = {"subprocess", "multiprocessing", "pickle", "marshal", "shelve", "runpy"}
    calls = re.compile(
        r"os\.(exec|spawn|posix_spawn|system|popen|fork)\w*|trio\.(run|lowlevel\.open)_process"
        r"|eval|exec|compile|__import__"
    )
    found = set()
    for name, text in read_sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {(name, alias.name) for alias in node.names if alias.name in modules}
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                found.add((name, node.module))
            elif isinstance(node, ast.Call) and calls.fullmatch(ast.unparse(node.func)):
                found.add((name, ast.unparse(node.func)))
    assert not found
