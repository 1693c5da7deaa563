"""Lists each call that a file can block, with what keeps it from blocking the event loop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

import pytest

from tests.test_layers import read_sources

CALLS = re.compile(
    r"os\.(open|stat|lstat|access|listdir|scandir|mkdir|makedirs|rmdir|link|symlink|readlink|rename"
    r"|replace|unlink|remove|truncate|ftruncate|posix_fallocate|chmod|fchmod|chown|utime|mkfifo"
    r"|read|readv|pread|preadv|write|writev|pwrite|pwritev|sendfile|fsync|fdatasync|sync"
    r"|path\.(exists|lexists|is\w+|get\w+|realpath|samefile|sameopenfile|ismount))"
    r"|fcntl\.(flock|lockf)|termios\.tc(drain|sendbreak|setattr)|open|io\.open|shutil\.\w+"
    r"|.*\.(read_text|read_bytes|write_text|write_bytes|connect_ex)"
)

THREAD = "a worker thread does it, and is not waited for longer than 5 s, or not by all"
READY = "the descriptor is non-blocking, and of a FIFO, terminal, socket or pipe"
KERNEL = "there is no disk behind it: /proc, /dev/pts, /dev/null, an unnamed pipe"
ALONE = "there is no service to be held up: at the start, behind the end, in a client or a demo"

ALLOWED = {
    # regular files, and what may be one
    "backends.ahead.RegularFile.read": THREAD,
    "backends.descriptor.truncate": THREAD,
    "backends.file.is_fifo": THREAD,
    "backends.taps.record._LinesOutput.write": THREAD,
    "backends.taps.record.lock": THREAD,
    "backends.replay_file.Recording.__init__": THREAD,
    "backends.ringbuf.file.RingFile._check": THREAD,
    "backends.ringbuf.file.RingFile._make": THREAD,
    "backends.ringbuf.file.RingFile._set_bounds": THREAD,
    "backends.ringbuf.file.RingFile._write": THREAD,
    "backends.ringbuf.file.RingFile.is_same": THREAD,
    "backends.ringbuf.file.RingFile.load": THREAD,
    "backends.ringbuf.file.RingFile.read_note": THREAD,
    "backends.ringbuf.file.RingFile.write_note": THREAD,
    "backends.taps.log_output.LogOutput._is_in_place": THREAD,
    "backends.taps.log_output._is_cut": THREAD,
    "backends.taps.log_output.LogOutput._rotate": THREAD,
    "backends.taps.log_output.LogOutput._shift": THREAD,
    "backends.taps.log_output.LogOutput.check_can_be_kept": THREAD,
    "backends.taps.output.Output.write": THREAD,
    "cli.log.LineWriter._send": THREAD,
    "config.files._files_of": THREAD,
    "config.files.read_node": THREAD,
    "files._is_unnamed_pipe": KERNEL,
    "files._read": THREAD,
    "qmp.server.state._create": THREAD,
    "qmp.server.state._open_own": ALONE,
    "qmp.server.state._replace": THREAD,
    "qmp.server.state.open_state_file": ALONE,
    # names
    "backends.socket.dialer._call_connect": THREAD,  # unless a look-up can't wait, see `cached_path`
    "backends.socket.plain_connect._connect_to": ALONE,
    "backends.pty.link._is_left_behind": THREAD,
    "backends.pty.link._is_older_than_its_pty": THREAD,
    "backends.serial.arrivals.places_of": THREAD,
    "backends.serial.same_line.links_at": THREAD,
    "backends.serial.usb._read": THREAD,
    "backends.serial.usb._tty_at": THREAD,
    "backends.serial.usb._ttys": THREAD,
    "backends.socket.socket_file.SocketFile._make_way": THREAD,
    "backends.socket.socket_file.SocketFile.bind": THREAD,
    "backends.socket.socket_file.SocketFile._restrict": THREAD,
    "place.Place.check_reached": THREAD,
    "place.Place.open": THREAD,
    "place.Place.readlink": THREAD,
    "place.Place.rename_to": THREAD,
    "place.Place.stat": THREAD,
    "place.Place.symlink": THREAD,
    "place.Place.unlink": THREAD,
    "access.sandbox.Sandbox.check": THREAD,
    "access.sandbox.Sandbox.locate": THREAD,
    "access.sandbox.Sandbox.open": THREAD,
    "access.sandbox._existing": ALONE,
    "access.sandbox._open_folder": THREAD,
    # what is no file on a disk
    "backends.descriptor.read_terminal": READY,
    "backends.holder.FdHolder._read": READY,
    "backends.holder.FdHolder._write": READY,  # and stdio's, see docs/security.md
    "backends.holder._name_of": KERNEL,
    "backends.holder._open_controlling": KERNEL,
    "backends.holder.reopen": KERNEL,
    "backends.pty.leaving.PtyLeaving._open_slave": KERNEL,
    "backends.pty.pty.unlock": KERNEL,
    "backends.inotify.read_records": READY,
    "backends.pty.unread._make_raw": KERNEL,  # TCSANOW
    "backends.pty.unread._read_piece": READY,
    "backends.serial.holders._find_holders": THREAD,
    "backends.serial.holders._has_open": THREAD,
    "backends.serial.wanted.WantedLine._lock": KERNEL,
    "backends.serial.wanted.WantedLine.take_over": KERNEL,
    "backends.serial.wanted.WantedLine.unlock": KERNEL,
    "backends.stdio_terminal.Terminal.redo": KERNEL,  # TCSANOW
    "backends.stdio_terminal.Terminal.undo": KERNEL,
    "cli.inherited._is_same": KERNEL,
    "systemd.made_by_systemd": KERNEL,
    "cli.inherited._open_now": KERNEL,
    "cli.inherited.fill_standard": KERNEL,
    "cli.output._discard": KERNEL,
    "cached_path.LocalMounts._look": KERNEL,
    "cached_path._read": KERNEL,
    "access.sandbox.Sandbox.contains": KERNEL,
    "core.splicing.SplicePipe.read_all": READY,
    # who serves nobody
    "cli.demo.Demo._read_pty": ALONE,
    "cli.demo.Demo.to_file.finish": ALONE,
    "cli.demo.Demo.to_pty": ALONE,
    "cli.demo.show_progress": ALONE,
    "cli.manual.main": ALONE,
    "cli.reference.main": ALONE,
    "cli.pidfile._check": ALONE,
    "cli.pidfile._open": ALONE,
    "cli.pidfile._remove": ALONE,
    "cli.pidfile._take": ALONE,
    "cli.pidfile._write": ALONE,
    "cli.pidfile.is_at": ALONE,
    "cli.input.read_some": THREAD,
    "plugins._may_bring_some": ALONE,
    "cli.table.terminal_width": ALONE,
    "cli.log_reader.LogReader._is_replaced": ALONE,
    "cli.log_reader.LogReader._next_paths": ALONE,
    "cli.log_reader.LogReader.go_to_last": ALONE,
    "cli.log_reader.LogReader.read": ALONE,
    "cli.log_reader._open": ALONE,
    "cli.group.Formatter.write_text": ALONE,  # of click, into a string
    "cli.top._OtherScreen.redo": ALONE,
    "cli.top._OtherScreen.undo": ALONE,
    "cli.units._is_other": ALONE,
    "cli.units.install_units": ALONE,
    "cli.address.client_path": ALONE,
    "convert.text.read_text": ALONE,
    "cli.terminal.LocalTerminal.show_aside": ALONE,
    "qmp.client.reasons._is_stopped": ALONE,
}
"""By function; what is in `trio_chardev.testing` is for tests."""


def calls_of(sources: Mapping[str, str]) -> set[str]:
    """The functions that have such a call, or pass one on."""
    return {
        function
        for module, text in sources.items()
        if not module.startswith("trio_chardev.testing")
        for function in _calling(ast.parse(text), module.removeprefix("trio_chardev."))
    }


def _calling(node: ast.AST, name: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{name}.{child.name}"
        is_named = isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)
        if (isinstance(child, ast.Attribute) or is_named) and CALLS.fullmatch(ast.unparse(child)):
            yield inner
        yield from _calling(child, inner)


def test_each_call_that_may_block_has_been_decided() -> None:
    """One that is new needs a row here, and a thread if a disk or a FIFO can hold it up."""
    found = calls_of(read_sources()) - ONLY_NAMED
    assert found - set(ALLOWED) == set()
    assert set(ALLOWED) - found == set(), "these are gone"


ONLY_NAMED = {"core.kind.Kind", "qmp.commands.chardev.ChardevDetails"}
"""They have an attribute `open`."""


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    os.stat('x')",
        "def f():\n    return run(os.path.realpath, 'x')",
        "async def f():\n    with open('x') as file: pass",
        "def f(fd):\n    fcntl.flock(fd, 1)",
        "def f(path):\n    return path.read_text()",
        "def f(fd):\n    termios.tcdrain(fd)",
    ],
)
def test_a_new_call_is_found(text: str) -> None:
    assert calls_of({"trio_chardev.new": text}) == {"new.f"}


def test_nothing_waits_for_a_line_to_send_all() -> None:
    """tcdrain(3), and TCSADRAIN, take as long as the other end likes."""
    for text in read_sources().values():
        tree = ast.parse(text)
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"termios.tcdrain", "termios.TCSADRAIN", "termios.TCSAFLUSH"}
