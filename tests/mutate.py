"""Mutation of a change's code: without a line of it, or with two swapped, a test must fail.

    python -m tests.mutate              # all; exits with 1 if a mutant survives without a reason
    python -m tests.mutate --slice 2/6  # every sixth, from the second
    python -m tests.mutate --only commit
    python -m tests.mutate --only backends/socket/door.py

Mutants that may live, for a reason in `REASONS`, are run with ``--excused`` only. A mutant is the
source with one statement removed, a ``with`` unwrapped, or two neighbours swapped. It is tested in
a copy, in a fork that has the tools imported already, by the tests of its module in an order that
finds most in a second. Log lines and assertions are not mutated.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import cattrs
import hypothesis
import pytest
import trio
import trio.testing

ROOT = Path(__file__).parent.parent
PRELOADED = (attrs, cattrs, hypothesis, trio, trio.testing)
TIMEOUT = 40  # seconds for one test; a mutant that hangs is found, too

CORE = (
    *(
        "chardev",
        "commit",
        "counts",
        "carry",
        "outbox",
        "inbox",
        "users",
        "frontend",
    ),
    *("line_in_place", "last_words", "at_once", "storms", "cancel_everywhere", "machine"),
)
CORE_TESTS = (
    *(f"tests/core/test_{name}.py" for name in CORE),
    *("tests/test_notices.py", "tests/test_registry.py"),
)
SOCKETS = ("peer", "in_flight", "keep_peer", "listener", "listening", "socket")
SOCKET_TESTS = (
    *(f"tests/backends/socket/test_{name}.py" for name in SOCKETS),
    *(f"tests/backends/test_{name}.py" for name in ("losses", "changes", "carry")),
)
GIVERS = (
    *("tests/core/test_frontend.py", "tests/core/test_outbox.py"),
    *("tests/backends/taps/test_log.py", "tests/backends/taps/test_record.py"),
)
PEERS = ("half_close", "door", "access", "cancel_peers")
PEER_TESTS = tuple(f"tests/backends/socket/test_{name}.py" for name in PEERS)
PTY_TESTS = (
    *("tests/backends/pty/test_pty.py", "tests/backends/pty/test_unread.py"),
    "tests/backends/test_carry.py",
)
LINE_TESTS = ("tests/core/test_line_in_place.py", "tests/core/test_line_sequence.py")
BRIDGE_TESTS = ("tests/devices/test_bridge.py", "tests/backends/stacked/test_hub_line.py")
QMP_TESTS = ("tests/qmp/server/test_turns.py", "tests/qmp/server/test_monitor.py")
MEANT_TESTS = (
    "tests/backends/serial/test_same_line.py",
    "tests/backends/serial/test_usb.py",
)
SERIAL_TESTS = (
    *("tests/backends/serial/test_serial.py", "tests/backends/serial/test_driver.py"),
    *("tests/backends/serial/test_replug.py", "tests/backends/test_carry.py"),
)

CROWD = ("client", "keyboard", "change", "crowd", "terminals", "goodbyes", "overtaking", "matrix")
CROWD_TESTS = (
    *(f"tests/backends/console/test_{name}.py" for name in CROWD),
    "tests/devices/test_crowd_machine.py",
)

TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "core/chardev.py": (
        (
            *("change", "_make_change", "_start", "_run_first", "_run_backend", "_commit_first"),
            *("run", "open", "aclose", "shut", "attach", "detach"),
            *("_wait_ready", "_start_reading", "_read_backend"),
        ),
        (*CORE_TESTS, "tests/backends/stacked/test_mux.py"),
    ),
    "core/change.py": (
        (
            *("check", "make", "give_up", "_switch", "_set_up", "_ask", "_roll_back", "_ask_back"),
            *("check_changeable", "check_takes_changes", "put_first", "commit"),
            *("_check_fit", "_give_way", "_let_taps_see", "_go_on"),
        ),
        CORE_TESTS,
    ),
    "core/kept_line.py": (("after", "set_up"), LINE_TESTS),
    "core/line_change.py": (
        ("settings_after", "outputs_after", "read_state", "look", "do", "_set", "put_back"),
        LINE_TESTS,
    ),
    "core/line_in_place.py": (("keep", "_set", "_drive"), (*LINE_TESTS, *BRIDGE_TESTS)),
    "core/line_sequence.py": (("plan_of", "run_plan"), LINE_TESTS),
    "core/timer.py": (("wait_until", "open_timer"), ("tests/core/test_timer.py",)),
    "lending.py": (
        ("lend", "check", "take_back", "_take_back", "_take_back_by_itself", "end", "forget"),
        ("tests/test_lending.py",),
    ),
    "backends/lent.py": (
        (
            *("prepare", "activate", "run", "_pass_to_terminal", "_pass_to_device", "_send"),
            *("_look", "note", "opener"),
        ),
        ("tests/test_lending.py",),
    ),
    "core/weak.py": (("__call__",), ("tests/core/test_weak.py",)),
    "core/waiting.py": (
        ("wait", "wake", "set", "acquire", "acquire_nowait", "release", "_made"),
        ("tests/core/test_waiting.py",),
    ),
    "core/turns.py": (("take_turn",), ("tests/core/test_turns.py",)),
    "core/parts.py": (
        ("check_not_closed", "touch", "backend_event", "note", "note_end", "tell", "tell_all"),
        CORE_TESTS,
    ),
    "core/last_words.py": (
        (
            *("take_received", "_add", "replaced_by", "_has_more", "_end_taps"),
            *("hear", "hear_before_close", "_take_slowly"),
        ),
        CORE_TESTS,
    ),
    "core/effects.py": (("add", "run"), CORE_TESTS),
    "core/at_once.py": (("open", "close"), CORE_TESTS),
    "core/runner.py": (
        (
            *("run", "settle", "stay", "drain", "take_back", "look_again", "retire"),
            *("read", "open_at_once", "close_at_once", "_note_closed"),
        ),
        CORE_TESTS,
    ),
    "core/reactor.py": (
        ("wait", "wake", "_remove", "_run", "get_reactor", "notify_closing"),
        ("tests/core/test_reactor.py",),
    ),
    "core/outbox.py": (
        (
            *("push_nowait", "push", "interrupt", "exclusive", "_try", "_send_blocking"),
            *("usable_runner", "_send_carried", "give_up", "send_eof"),
        ),
        (
            *CORE_TESTS,
            "tests/backends/socket/test_half_close.py",
            "tests/backends/taps/test_log.py",
        ),
    ),
    "core/frontend.py": (("send_some", "try_send", "_note_refused"), GIVERS),
    "core/relay.py": (("give_up",), GIVERS),
    "core/inbox.py": (("hold", "let_last_in", "release"), CORE_TESTS),
    "core/users.py": (("hold", "let_last_in", "release"), CORE_TESTS),
    "core/look_again.py": (
        ("goes_on", "input_came", "ended", "earn", "pay", "_after_nothing", "_looks_on"),
        ("tests/core/test_look_again.py",),
    ),
    "core/splicing.py": (("fill", "empty_into", "stream"), ("tests/core/test_splicing.py",)),
    "backends/console/crowd.py": (("admit", "remove", "end_typing", "take_over"), CROWD_TESTS),
    "backends/console/keyboard.py": (
        ("give_write", "client_came", "client_ends", "obey", "_set_writer", "take"),
        CROWD_TESTS,
    ),
    "backends/console/client.py": (
        ("begin_at", "leave", "skip", "send", "send_rest", "_send_piece", "_show_again"),
        CROWD_TESTS,
    ),
    "backends/console/serving.py": (
        ("serve", "see_off", "finish", "_fan_out", "_send", "_write", "_read", "_receive"),
        CROWD_TESTS,
    ),
    "devices/exchange.py": (
        ("piece_sent", "_ways", "_burst", "_send_on"),
        ("tests/devices/test_exchange.py",),
    ),
    "devices/pour.py": (("send_rest",), ("tests/devices/test_pour.py",)),
    "backends/pty/pty.py": (("prepare", "activate"), PTY_TESTS),
    "backends/pty/leaving.py": (("settle", "prepare", "stay", "take_back", "drain"), PTY_TESTS),
    "backends/pty/unread.py": (
        ("is_empty", "_has_input", "wait_quiet", "take_all", "_make_raw", "begin", "end", "take"),
        PTY_TESTS,
    ),
    "backends/pty/link.py": (("move", "lead_to", "remove"), ("tests/backends/pty/test_pty.py",)),
    "backends/socket/socket.py": (("activate", "_keep_peer_of", "_take_over"), SOCKET_TESTS),
    "backends/socket/entrance.py": (("activate",), SOCKET_TESTS),
    "backends/socket/kept_peer.py": (("check",), SOCKET_TESTS),
    "backends/socket/peer.py": (
        (
            *("finish", "_note_end", "_connect", "lose", "_send_to_leaver", "wait_readable"),
            *("wait_for_next", "wait_writable", "_keep_flushing"),
        ),
        (*PEER_TESTS, *SOCKET_TESTS),
    ),
    "backends/socket/presence.py": (
        (
            *("drop_in_time", "wait_readable", "wait_dropped", "come", "lose", "can_linger"),
            *("linger", "let_go", "dismiss", "give_up"),
        ),
        ("tests/backends/socket/test_presence.py", *PEER_TESTS, *SOCKET_TESTS),
    ),
    "backends/socket/socket_peer.py": (("send_eof",), (*PEER_TESTS, *SOCKET_TESTS)),
    "backends/socket/half_closed.py": (
        ("__attrs_post_init__", "send", "_is_answered", "wait_writable", "wait_over"),
        ("tests/backends/socket/test_half_closed.py", *PEER_TESTS),
    ),
    "backends/socket/door.py": (
        ("watch", "leave", "_watch", "_refuse", "_tell_of", "_tell", "who"),
        (
            "tests/backends/socket/test_door.py",
            *PEER_TESTS,
            "tests/backends/socket/test_listener.py",
        ),
    ),
    "backends/serial/line.py": (("is_locked_unless_told",), SERIAL_TESTS),
    "backends/serial/wanted.py": (
        (
            *("set_up", "take_over", "restore", "unlock", "_apply", "_controls", "_lock"),
            "_refuse_opens",
        ),
        SERIAL_TESTS,
    ),
    "backends/serial/device.py": (
        ("_look", "_open", "_check", "_state_of"),
        (*SERIAL_TESTS, *MEANT_TESTS),
    ),
    "backends/serial/same_line.py": (("links_at", "check_meant"), (*SERIAL_TESTS, *MEANT_TESTS)),
    "backends/serial/usb.py": (("find_node", "check_is_named", "_tty_at"), MEANT_TESTS),
    "backends/serial/arrivals.py": (
        ("places_of", "watch", "forget", "run", "_tell", "_tell_all"),
        SERIAL_TESTS,
    ),
    "backends/serial/peer.py": (
        ("wait", "reset"),
        ("tests/backends/serial/test_peer.py", "tests/backends/serial/test_replug.py"),
    ),
    "backends/serial/holders.py": (
        ("name_holders", "_find_holders", "_has_open", "explain_busy"),
        SERIAL_TESTS,
    ),
    "backends/socket/connection.py": (
        ("finish", "_take_all", "hand_over", "_discard_input"),
        ("tests/backends/socket/test_connection.py", *SOCKET_TESTS),
    ),
    "backends/socket/listener.py": (("activate", "remove_file", "close"), SOCKET_TESTS),
    "backends/socket/socket_file.py": (
        ("bind", "is_at", "unlink"),
        ("tests/backends/socket/test_socket_file.py", *SOCKET_TESTS),
    ),
    "backends/socket/access.py": (
        ("check", "_refuse", "check_listening", "check_remote", "check_peer", "_exposed_peer"),
        ("tests/backends/socket/test_access.py",),
    ),
    "backends/socket/handshaking.py": (
        (
            *("ending", "let_in", "wait", "_attend", "shake_hands", "take", "leave", "empty"),
            *("shut_down", "close", "_close"),
        ),
        ("tests/backends/socket/test_handshaking.py", "tests/qmp/server/test_listener.py"),
    ),
    "backends/socket/http_guard.py": (
        ("is_browser",),
        ("tests/backends/socket/test_http_guard.py",),
    ),
    "backends/socket/rights.py": (
        ("receive", "do", "_work", "close_socket", "_has_only_bytes", "_close_unread"),
        ("tests/backends/socket/test_rights.py",),
    ),
    "backends/limit.py": (
        ("parse_mode", "check_size", "check_limits", "check_has_size"),
        ("tests/backends/test_limit.py",),
    ),
    "place.py": (
        ("close", "check_reached", "_join", "_leave", "beside", "is_same"),
        (
            "tests/access/test_sandbox.py",
            "tests/access/test_sandbox_races.py",
            "tests/backends/pty/test_pty.py",
        ),
    ),
    "cli/pidfile.py": (
        ("keeping_pid", "_take", "_open", "_check", "_write", "is_at", "_remove"),
        ("tests/cli/test_pidfile.py",),
    ),
    "qmp/server/turn.py": (("spend", "renew", "left_for_output"), QMP_TESTS),
    "qmp/server/monitor.py": (
        (
            *("_on_receive", "_work_through", "_take_turns"),
            *("_read_or_pause", "_pause", "_go_on", "_is_owed"),
        ),
        (
            *QMP_TESTS,
            "tests/qmp/server/test_half_close.py",
            "tests/qmp/commands/test_descriptor.py",
        ),
    ),
    "qmp/server/dispatcher.py": (
        ("take_backlog", "_run_for"),
        ("tests/qmp/server/test_dispatcher.py", *QMP_TESTS),
    ),
    "qmp/json/codec.py": (
        ("feed_some", "_take_one", "_take_ordinary", "_scan_ordinary"),
        ("tests/qmp/json/test_codec.py", *QMP_TESTS),
    ),
    "qmp/json/parser.py": (
        ("_string", "_standard_spelling", "_find_error", "_check_escape"),
        ("tests/qmp/json/test_codec.py", "tests/qmp/json/test_parser.py"),
    ),
}
"""Module -> its functions, and the tests that have to find their mutants."""

SAME = "the order of two that don't depend on each other"
NO_CHECKPOINT = "nobody runs before both are done"
SPARES = "it only spares the processor some work"
ASKED_AGAIN = "the same is asked again before anything is harmed"
WHICH = "only which of two refusals comes first, if there is a reason for both"
ANOTHER = "another checkpoint is left"
LATE = "only how late it is, which depends on the machine"
GIVES_WAY = "only when the processor is given up, which the benchmark tells"
REASONS: dict[str, str] = {
    "wait: swapped `if self._tasks is None:` and `def leave(_: RaiseCancelT) -> Abort:`": SAME,
    "set: swapped `self._is_set = True` and `waiters, self._waiters = (self._waiters, None)`": SAME,
    "_send_piece: swapped `if self._again:` and `size = PIECE`": SAME,
    "_send_piece: swapped `if self._is_telling or not self._is_amid(history):` and `size = TAIL`": SAME,
    "_send_piece: swapped `if self._filter is not None:` and `if not (data := history.copy(self.position, size)):`": SAME,
    "begin_at: swapped `self.position = self.live_from = cursor` and `self._filter = None`": SAME,
    "begin_at: without `self._filter = None`": SAME,
    "skip: swapped `self._note_lost(lost)` and `self.begin_at(cursor)`": SAME,
    "_send_piece: swapped `self.position += sent` and `self.sent += sent`": SAME,
    "_show_again: swapped `self.position += len(data)` and `before = self._filter.held`": SAME,
    "client_came: swapped `self._set_writer(writer, is_told=writer is not client)` and `self._report_size()`": SAME,
    "client_ends: swapped `self._end_break(client)` and `if self._typist is client:`": SAME,
    "client_ends: swapped `if self._typist is client:` and `if self._asked is client:`": SAME,
    "client_ends: swapped `if self._asked is client:` and `if self._writer is client:`": SAME,
    "client_ends: swapped `self._set_writer(self._rightful_writer())` and `self._report_size()`": SAME,
    "take: swapped `if rest:` and `client.queued -= len(taken)`": SAME,
    "_open: swapped `if (seen := self._look()) is not None:` and `node = self._node()`": SAME,
    "_check: swapped `check_meant(status, links, self.links)` and `for link in links:`": WHICH,
    "_tty_at: without `if not os.path.exists(folder):`": "what is no adaptor has no such attributes either",
    "check_meant: swapped `if links == before:` and `made_ns = min(device.st_atime_ns, device.st_mtime_ns, device.st_ctime_ns)`": SAME,
    "renew: swapped `self.left = TURN` and `self.is_over = False`": SAME,
    "check_limits: without `parse_mode(f'{prefix}-mode', mode)`": ASKED_AGAIN,
    "check_limits: swapped `for name, value in ((f'{prefix}-mode', mode), (f'{prefix}-max', size)):` and `parse_mode(f'{prefix}-mode', mode)`": WHICH,
    "check_limits: swapped `parse_mode(f'{prefix}-mode', mode)` and `check_size(f'{prefix}-max', size)`": WHICH,
    '_standard_spelling: swapped `inner = inner.replace(b"\\\\\'", b"\'")` and `if raw.startswith(b"\'"):`': SAME,
    "is_browser: without `return False`": "what it gives in its place is as false",
    "_string: without `if b'\\\\' not in raw:`": SPARES,
    "_string: without `return _text(raw[1:-1])`": SPARES,
    "_string: swapped `if b'\\\\' not in raw:` and `text = utf8.decode(_standard_spelling(raw))`": SPARES,
    "finish: unwrapped `with contextlib.suppress(OSError, trio.ClosedResourceError):`": "what it raises ends it, and the core says so in the log",
    "touch: swapped `self.row = None` and `if self.runner.started:`": SAME,
    "commit: swapped `new.in_place.set()` and `if old is not None:`": NO_CHECKPOINT,
    "note_end: swapped `self.outbox.interrupt()` and `runner.backend.set_open(False)`": NO_CHECKPOINT,
    "drain: without `if not self.carried and leaving.is_finished and leaving.is_drained:`": SPARES,
    "drain: swapped `if not self.carried and leaving.is_finished and leaving.is_drained:` and `with trio.move_on_after(timeout, shield=True) as self._draining:`": SPARES,
    "drain: without `return`": SPARES,
    "drain: swapped `with trio.move_on_after(timeout, shield=True) as self._draining:` and `self._draining = None`": SPARES,
    "drain: without `self._draining = None`": SPARES,
    "drain: swapped `self._draining = None` and `if self.carried:`": SAME,
    "_try: swapped `if self._backend_lock.locked():` and `runner = self.usable_runner()`": WHICH,
    "usable_runner: swapped `if self.is_closed:` and `runner = self.runner`": SAME,
    "hand_over: swapped `self._wake()` and `if self._sock.family in INTERNET:`": SAME,
    "_discard_input: without `return`": SPARES,
    "close: swapped `if self._poll is not None:` and `for sock in self._sockets:`": SAME,
    "run: swapped `self._note_closed()` and `self.ready.set()`": NO_CHECKPOINT,
    "_note_closed: swapped `self.closed.set()` and `if self._draining is not None:`": NO_CHECKPOINT,
    "take_back: swapped `try:` and `carried, self.carried = (self.carried, NOTHING)`": SAME,
    "retire: swapped `self.scope.cancel()` and `if self._at_once is not None:`": "who waits for what is closed is not heard",
    "retire: swapped `if self._at_once is not None:` and `for _ in range(PASSES_TO_CLOSE):`": SPARES,
    "retire: without `for _ in range(PASSES_TO_CLOSE):`": SPARES,
    "retire: swapped `for _ in range(PASSES_TO_CLOSE):` and `with trio.move_on_after(CLEANUP_TIMEOUT, shield=True) as cut:`": SPARES,
    "retire: without `await trio.lowlevel.cancel_shielded_checkpoint()`": SPARES,
    "retire: swapped `await trio.lowlevel.cancel_shielded_checkpoint()` and `if self.closed.is_set():`": SPARES,
    "retire: without `if self.closed.is_set():`": SPARES,
    "retire: without `return`": SPARES,
    "release: swapped `self.flush()` and `self.queue.wake_readers()`": NO_CHECKPOINT,
    "release: swapped `self.queue.wake_readers()` and `if is_open:`": NO_CHECKPOINT,
    "_keep_peer_of: swapped `from trio_chardev.backends.socket.kept_peer import KeptPeer` and `if original._options.protocols != self._options.protocols:`": SAME,
    "_keep_peer_of: swapped `if original._options.protocols != self._options.protocols:` and `kept = KeptPeer(original.there, self.entrance.refusal_of)`": SAME,
    "_keep_peer_of: swapped `self._kept = kept` and `self.keeps_peer = True`": SAME,
    "activate: swapped `if not (kept.is_there or self.there.link or can_get_another):` and `kept.check()`": WHICH,
    "activate: swapped `self._peers.activate()` and `if self._listener is not None:`": SAME,
    "activate: swapped `self.entrance.activate()` and `if kept is not None and (peer := kept.take()) is not None:`": NO_CHECKPOINT,
    "_connect: swapped `self.there.come(link)` and `self._http_guard = HttpGuard() if self._refuses_browsers else None`": SAME,
    "_connect: swapped `self._http_guard = HttpGuard() if self._refuses_browsers else None` and `self.note_unsent(link)`": SAME,
    "_connect: swapped `self.note_unsent(link)` and `self.set_open(True)`": NO_CHECKPOINT,
    "drop_in_time: swapped `self._deadline = math.inf` and `self._link.shut_down()`": SAME,
    "come: swapped `self.let_go()` and `self.link = link`": SAME,
    "come: swapped `self.link = link` and `self.has_sent_eof = False`": SAME,
    "lose: swapped `self.link = self.dismissed = None` and `self.is_hung_up = False`": SAME,
    "linger: swapped `self.link = None` and `self.is_hung_up = False`": SAME,
    "dismiss: swapped `self.dismissed = DismissedPeer(self.link)` and `self.is_hung_up = True`": SAME,
    "_take_over: swapped `if self.there.link is not None:` and `peer.hand_over(self.hear, nodelay=self._options.nodelay, keep_alive=self.entrance.keep_alive)`": SAME,
    "_take_over: swapped `peer.hand_over(self.hear, nodelay=self._options.nodelay, keep_alive=self.entrance.keep_alive)` and `if self._options.rfc2217 and isinstance(peer, Layer):`": NO_CHECKPOINT,
    "_take_over: swapped `if self._options.rfc2217 and isinstance(peer, Layer):` and `self._connect(peer)`": NO_CHECKPOINT,
    "settle: swapped `if is_hung_up(self._master):` and `slave = self._open_slave()`": SPARES,
    "wait_quiet: swapped `before = unread` and `await trio.sleep(DRAIN_INTERVAL)`": SAME,
    "wait_quiet: swapped `quiet_time = max(QUIET_TIME, timeout * QUIET_SHARE)` and `last_part = trio.current_time() + timeout * (1 - LAST_SHARE)`": SAME,
    "wait_quiet: swapped `last_part = trio.current_time() + timeout * (1 - LAST_SHARE)` and `quiet, before = (0.0, -1)`": SAME,
    "wait_quiet: swapped `if has_read and trio.current_time() > last_part:` and `quiet = 0.0 if has_read else quiet + DRAIN_INTERVAL`": SAME,
    "wait_quiet: swapped `quiet = 0.0 if has_read else quiet + DRAIN_INTERVAL` and `before = unread`": SAME,
    "take_all: swapped `_make_raw(slave)` and `data, is_torn, looks = (b'', False, 0)`": SAME,
    "exclusive: swapped `self.refuse_in_handler()` and `self.interrupt()`": "while a handler is at work nothing is being sent",
    "run: swapped `self.started = True` and `self.ready.set()`": NO_CHECKPOINT,
    "send: swapped `self._was_asked = True` and `self._deadline = trio.current_time() + self.linger`": SAME,
    "watch: without `self.leave()`": "it was left when the last peer went",
    "watch: swapped `self._watching = trio.CancelScope()` and `in_use_by = who(client)`": SAME,
    "watch: swapped `for newcomer in newcomers:` and `nursery.start_soon(self._watch, self._watching, nursery, listener, in_use_by)`": NO_CHECKPOINT,
    "watch: swapped `with contextlib.suppress(OSError):` and `if self.refuses:`": NO_CHECKPOINT,
    "who: swapped `if sock.family == socket.AF_UNIX:` and `address = sock.getpeername()`": SAME,
    "ended: swapped `self._last = perf_counter()` and `if in_vain:`": SAME,
    "fill: swapped `self._size += size` and `self._on_change(size)`": SAME,
    "empty_into: swapped `self._size -= size` and `self._on_change(-size)`": SAME,
    "empty_into: without `if not self._size or not max_bytes:`": SPARES,
    "empty_into: swapped `if not self._size or not max_bytes:` and `size = _splice(self._out, fd, min(self._size, max_bytes))`": SPARES,
    "empty_into: without `return 0`": SPARES,
    "stream: swapped `passed = 0` and `moved = True`": SAME,
    "stream: swapped `moved = True` and `burst = Burst()`": SAME,
    "send_rest: swapped `if not self._bursts.input_came():` and `sent = 0`": SAME,
    "send_rest: swapped `sent = 0` and `moved = False`": SAME,
    "send_rest: swapped `moved = False` and `burst = Burst()`": SAME,
    "send_rest: swapped `sent += taken` and `moved = taken > 0`": SAME,
    "_send_on: swapped `sink_counts.sent += sent` and `if sent < len(data):`": SAME,
    "_burst: swapped `burst = Burst()` and `sent: int | None = 0`": SAME,
    "_burst: swapped `sent = _send_on(way)` and `if sent:`": GIVES_WAY,
    "_burst: without `if sent:`": GIVES_WAY,
    "_burst: swapped `if sent:` and `way, other = (other, way)`": SAME,
    "_burst: without `os.sched_yield()`": GIVES_WAY,
    "check_changeable: without `parts.check_not_closed()`": ASKED_AGAIN,
    "check_changeable: swapped `parts.check_not_closed()` and `if is_replayed:`": WHICH,
    "check_changeable: swapped `if is_replayed:` and `for inbox in parts.users.inboxes:`": WHICH,
    "check_changeable: swapped `check_takes_changes(inbox.frontend)` and `if (unread := len(inbox.queue)) > DRAIN_LIMIT:`": WHICH,
    "commit: swapped `if carry:` and `old.take_received()`": SAME,
    "commit: swapped `parts.outbox.runner = new` and `effects.add(parts.touch)`": SAME,
    "commit: swapped `effects.add(parts.touch)` and `if old is not None:`": SAME,
    "commit: swapped `if new.backend.is_open:` and `new.in_place.set()`": NO_CHECKPOINT,
    "commit: swapped `if old is not None:` and `effects.add(_go_on, parts)`": NO_CHECKPOINT,
    "_set_up: without `self._parts.check_not_closed()`": ASKED_AGAIN,
    "_set_up: swapped `self._parts.check_not_closed()` and `check_takes_changes(frontend)`": WHICH,
    "_switch: swapped `old, new = (self._old, self._new)` and `deadline = trio.current_time() + self._options.drain_timeout`": SAME,
    "change: swapped `self._parts.outbox.refuse_in_handler()` and `options = ChangeOptions(drain_timeout, carry, keep_peer)`": SAME,
    "_make_change: swapped `check_changeable(self._parts, is_replayed=self.is_replayed)` and `old = self._parts.runner`": SAME,
    "_start: swapped `self._parts.check_not_closed()` and `runner = Runner()`": SAME,
    "take_received: swapped `if self.runner.closed.is_set():` and `users = self._parts.users`": SAME,
    "replaced_by: swapped `self._names = (self.runner.backend.filename, new.backend.filename)` and `self.runner.is_replaced = True`": SAME,
    "replaced_by: swapped `self.runner.is_replaced = True` and `if self._has_more:`": NO_CHECKPOINT,
    "hear: swapped `parts.leaving = None` and `self._end_taps()`": SAME,
    "hear_before_close: swapped `self.take_received()` and `runner.is_replaced = True`": NO_CHECKPOINT,
    "hear_before_close: without `return`": "a backend that could not prepare has nothing to say",
    "hear: swapped `self._end_taps()` and `is_open = parts.runner.started and parts.backend.is_open`": SAME,
    "_take_slowly: swapped `lost = 0` and `def take(data: bytes) -> None:`": SAME,
    "backend_event: swapped `self.note(runner, event)` and `if event is Event.OPENED:`": NO_CHECKPOINT,
    "_check_fit: swapped `if (users := len(parts.frontends)) > (most := new.backend.stacking.max_frontends):` and `if new.is_ending or new.closed.is_set():`": WHICH,
    "commit: swapped `if old is not None:` and `_let_taps_see(parts, new)`": SAME,
    "commit: swapped `effects.add(_go_on, parts)` and `effects.add(parts.users.tell_line)`": NO_CHECKPOINT,
    "_check_fit: swapped `parts.check_not_closed()` and `if (users := len(parts.frontends)) > (most := new.backend.stacking.max_frontends):`": WHICH,
    "_give_way: swapped `if old is not None:` and `if parts.is_guarded:`": SAME,
    "_let_taps_see: swapped `parts.users.taps = new.backend.taps` and `state = Event.OPENED if new.backend.is_open else Event.CLOSED`": SAME,
    "_go_on: swapped `if parts.runner.carried:` and `if parts.leaving is None:`": "whoever sends sends first what was carried",
    "_switch: swapped `await self._set_up()` and `while self._carries and old.backend.leaving.is_taking and (trio.current_time() < deadline):`": "each pass of the loop ends with the same",
    "note: swapped `self.tell(self.on_event, event, runner.backend)` and `self.tell(show_event, self.users.taps, event)`": SAME,
    "tell_all: swapped `effects.run()` and `self._effects = None`": "what they cause is told at once or after them; only a commit has an order",
    "let_last_in: swapped `self.is_reserved = True` and `for inbox in list(self.inboxes):`": NO_CHECKPOINT,
    "release: swapped `inbox.release(is_open=is_open)` and `if was_reserved:`": NO_CHECKPOINT,
    "hold: swapped `if closed:` and `self.close_pipe()`": SAME,
    "hold: swapped `self.close_pipe()` and `self.is_held = True`": SAME,
    "let_last_in: swapped `self.flush()` and `self.queue.wake_readers()`": NO_CHECKPOINT,
    "let_last_in: swapped `self.queue.wake_readers()` and `if is_open:`": NO_CHECKPOINT,
    "release: swapped `is_owed_closed, self.is_owed_closed = (self.is_owed_closed, False)` and `self.is_held = self.is_muted = False`": SAME,
    "shut: swapped `self._parts.outbox.close()` and `self._parts.users.wake_readers()`": NO_CHECKPOINT,
    "shut: swapped `self._parts.users.wake_readers()` and `if self._change is not None:`": NO_CHECKPOINT,
    "attach: swapped `self._parts.check_not_closed()` and `has_backend = self._parts.runner.started`": SAME,
    "attach: swapped `if len(self.frontends) >= (self.backend.stacking.max_frontends if has_backend else 1):` and `inbox = self._parts.users.vacant()`": SAME,
    "attach: swapped `inbox = self._parts.users.vacant()` and `handlers = Handlers(be_change=be_change, on_event=on_event, on_receive=on_receive, on_open=on_open, on_line=on_line, on_failure=on_failure, fe_open=fe_open, answers_line=answers_line)`": SAME,
    "attach: swapped `self._parts.users.attach(inbox, frontend, is_open=self.is_open)` and `self.touch()`": NO_CHECKPOINT,
    "attach: swapped `self.touch()` and `if has_backend:`": NO_CHECKPOINT,
    "detach: swapped `users.detach(users.inbox_of(frontend))` and `self.touch()`": NO_CHECKPOINT,
    "detach: swapped `self.touch()` and `self._parts.outbox.interrupt()`": NO_CHECKPOINT,
    "_make_change: without `self._change = None`": "a change that has ended has nothing to give up",
    "_switch: swapped `old.stay()` and `await self._roll_back()`": "users can neither read nor write before both are done",
    "send_eof: swapped `while (carried := runner.carried):` and `await trio.lowlevel.checkpoint_if_cancelled()`": SAME,
    "send_eof: without `await trio.lowlevel.checkpoint_if_cancelled()`": ANOTHER,
    "send_eof: swapped `end(runner)` and `await trio.lowlevel.cancel_shielded_checkpoint()`": "it holds the lock, so nothing is changed meanwhile",
    "send_eof: without `await trio.lowlevel.cancel_shielded_checkpoint()`": ANOTHER,
    "send_eof: swapped `await trio.lowlevel.checkpoint_if_cancelled()` and `await self._acquire_write_lock()`": SAME,
    "send_eof: swapped `async def use(runner: Runner) -> None:` and `await trio.lowlevel.checkpoint_if_cancelled()`": SAME,
    "read_state: swapped `supported: list[LineAbility] = []` and `known: dict[str, object] = {}`": SAME,
    "read_state: swapped `try:` and `missing = line.missing - {'window'}`": SAME,
    "read_state: swapped `known['break_'] = kept.is_break` and `supported.append('break')`": SAME,
    "look: swapped `if any((change.has_settings for change in changes)):` and `if any((change.has_outputs for change in changes)):`": WHICH,
    "do: swapped `if self._settings is not None and change.has_settings:` and `if change.break_ is not None:`": WHICH,
    "_set: swapped `if before != wanted:` and `self.kept = self.kept.after(wanted)`": "what failed is not asked what is to be kept",
    "put_back: without `if cut.cancelled_caught:`": "it only logs",
    "keep: swapped `self._note(self._outbox.line.after(request))` and `if not (self._outbox.is_closed or self._outbox.runner.closed.is_set()):`": SAME,
    "plan_of: swapped `if not 0 < len(steps) <= MAX_STEPS:` and `planned: list[tuple[float, LineChange]] = []`": SAME,
    "plan_of: swapped `planned: list[tuple[float, LineChange]] = []` and `time_us = 0`": SAME,
    "plan_of: swapped `step.change.check()` and `if step.pause_us < 0:`": WHICH,
    "plan_of: swapped `if step.pause_us < 0:` and `planned.append((time_us * US, step.change))`": SAME,
    "wait_until: without `if self._fd is not None and (rest := (deadline - trio.current_time())) > 0:`": LATE,
    "wait_until: swapped `if self._fd is not None and (rest := (deadline - trio.current_time())) > 0:` and `await trio.sleep_until(deadline)`": LATE,
    "lend: swapped `if to is not None and to not in get_args(LendTo):` and `loan = _Loan(_check_can_be_lent(chardev, options), sandbox)`": WHICH,
    "lend: swapped `loan = _Loan(_check_can_be_lent(chardev, options), sandbox)` and `def check() -> None:`": SAME,
    "lend: swapped `device = self._opener(_without_taps(loan.options), sandbox)` and `async def set_up(line: Line) -> None:`": SAME,
    "lend: swapped `async def set_up(line: Line) -> None:` and `pty_closed = partial(self._pty_closed, chardev, loan)`": SAME,
    "lend: swapped `self._loans[chardev] = loan` and `self._note_change(chardev)`": SAME,
    "prepare: swapped `await self._set_up(self._device.line)` and `await self._device.prepare()`": SAME,
    "activate: swapped `self._device.activate()` and `self._terminal.backend.activate()`": SAME,
    "activate: without `self._terminal.backend.activate()`": "a PTY without a link has nothing to put in place",
    "activate: swapped `self._terminal.backend.activate()` and `self._is_in_place.set()`": SAME,
    "activate: swapped `self._is_in_place.set()` and `self._its_request.replaces = None`": SAME,
    "run: swapped `nursery.start_soon(self._pass_to_terminal)` and `nursery.start_soon(self._pass_to_device)`": SAME,
    "run: swapped `nursery.start_soon(self._pass_to_device)` and `nursery.start_soon(self._look)`": SAME,
    "_pass_to_device: without `if data:`": SPARES,
    "_pass_to_device: swapped `if data:` and `with trio.move_on_at(terminal.left_at + CLOSE_DELAY) as waited:`": SPARES,
    "_pass_to_device: without `continue`": SPARES,
    "_pass_to_device: swapped `terminal.left_at = math.inf` and `terminal.on_close()`": NO_CHECKPOINT,
    "_look: swapped `await self._terminal.wait_open()` and `self._terminal.backend.line.look()`": SAME,
    "_look: swapped `self._terminal.backend.line.look()` and `await self._set_line()`": LATE,
    "_look: swapped `await self._set_line()` and `await trio.sleep(LOOK_INTERVAL)`": LATE,
    "note: swapped `self._came.set()` and `self.left_at = math.inf`": NO_CHECKPOINT,
    "note: swapped `self._came = trio.Event()` and `self.left_at = trio.current_time()`": SAME,
    "opener: swapped `terminal = Terminal(on_close)` and `its_request = attrs.evolve(request, on_event=ignore, users=None)`": SAME,
    "_set_up: swapped `check_takes_changes(frontend)` and `self._asked.add(frontend)`": "whoever is not asked to take the change need not take the original back",
}
"""The name of a mutant that may live -> the reason."""


@attrs.frozen
class Mutant:
    """One change of one module's text."""

    module: str
    name: str
    text: str
    tests: tuple[str, ...]

    @property
    def full_name(self) -> str:
        return f"{self.module} {self.name}"


def mutants() -> Iterator[Mutant]:
    """Give all mutants, module by module."""
    for module, (functions, tests) in TARGETS.items():
        source = (ROOT / "trio_chardev" / module).read_text()
        found = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in functions:
                found.add(node.name)
                for name, text in _mutations(source.splitlines(), node.body):
                    yield Mutant(module, f"{node.name}: {name}", text, tests)
        if missing := set(functions) - found:
            raise SystemExit(f"{module} has no {', '.join(sorted(missing))}")


def controls() -> Iterator[Mutant]:
    """Give each module unchanged: its tests must pass, else what they find means nothing."""
    for module, (_, tests) in TARGETS.items():
        yield Mutant(module, "unchanged", (ROOT / "trio_chardev" / module).read_text(), tests)


def _mutations(lines: list[str], body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Give the name and the text of each mutant of *body* and of what is in it."""
    for at, statement in enumerate(body):
        if _is_of_no_interest(statement):
            continue
        what = ast.unparse(statement).splitlines()[0]
        yield f"without `{what}`", _replaced(lines, statement, "pass")
        if isinstance(statement, ast.With | ast.AsyncWith):
            end = statement.body[0].lineno - 1
            yield f"unwrapped `{what}`", _joined(lines, statement.lineno, end, ["if True:"])
        following = body[at + 1] if at + 1 < len(body) else None
        if following is not None and not _is_of_no_interest(following) and _may_swap(statement):
            then = ast.unparse(following).splitlines()[0]
            yield f"swapped `{what}` and `{then}`", _swapped(lines, statement, following)
        for inner in _bodies(statement):
            yield from _mutations(lines, inner)


def unknown_reasons() -> set[str]:
    """Return the names in `REASONS` that no mutant has."""
    return set(REASONS) - {mutant.name for mutant in mutants()}


def _is_of_no_interest(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass | ast.Assert | ast.Nonlocal):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    return isinstance(statement.value, ast.Constant) or ast.unparse(statement).startswith("log.")


def _may_swap(statement: ast.stmt) -> bool:
    """May *statement* be swapped with the next? Not if that could then never be reached."""
    return not isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        if inner := getattr(statement, field, None):
            yield inner
    for handler in getattr(statement, "handlers", ()):
        yield handler.body


def _joined(lines: list[str], first: int, last: int, new: list[str]) -> str:
    """Replace lines *first* to *last* (from 1) of *lines* by *new*, indented."""
    indent = lines[first - 1][: len(lines[first - 1]) - len(lines[first - 1].lstrip())]
    return "\n".join([*lines[: first - 1], *(indent + line for line in new), *lines[last:], ""])


def _span(statement: ast.stmt) -> tuple[int, int]:
    assert statement.end_lineno is not None
    return statement.lineno, statement.end_lineno


def _replaced(lines: list[str], statement: ast.stmt, new: str) -> str:
    return _joined(lines, *_span(statement), [new])


def _swapped(lines: list[str], one: ast.stmt, other: ast.stmt) -> str:
    first, end = _span(one)
    start, last = _span(other)
    here, between, there = lines[first - 1 : end], lines[end : start - 1], lines[start - 1 : last]
    return "\n".join([*lines[: first - 1], *there, *between, *here, *lines[last:], ""])


# ---------------------------------------------------------------- running the tests


def survives(mutant: Mutant, copy: Path) -> bool:
    """Do all its tests pass?"""
    path = copy / "trio_chardev" / mutant.module
    original = path.read_text()
    path.write_text(mutant.text)
    try:
        child = os.fork()
        if not child:
            _run_tests(copy, mutant.tests)
        _, status = os.waitpid(child, 0)
        return status == 0
    finally:
        path.write_text(original)


def _run_tests(copy: Path, tests: tuple[str, ...]) -> None:
    """Run the tests in a child process, which this ends."""
    try:
        os.chdir(copy)
        os.environ["TRIO_CHARDEV_SEEDS"] = "1"
        silence = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(silence, fd)
        sys.path.insert(0, str(copy))
        # Else it would be used for a mutant of the same second and size.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]
        preloaded = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", preloaded]
        os._exit(bool(pytest.main([*options, *tests], plugins=[Alarm()])))
    finally:
        os._exit(2)


class Alarm:
    """Ends the process with the first test that takes longer than `TIMEOUT`."""

    def pytest_runtest_setup(self) -> None:
        signal.alarm(TIMEOUT)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--excused", action="store_true", help="run those with a reason, too")
    parser.add_argument("--slice", default="1/1", help="I/N: every Nth, from the Ith")
    options = parser.parse_args()
    index, number = map(int, options.slice.split("/"))
    chosen = [mutant for mutant in mutants() if options.only in mutant.full_name][
        index - 1 :: number
    ]
    if options.list:
        print(*(mutant.full_name for mutant in chosen), sep="\n")
        return
    found, alive, excused = Counter[str](), [], 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("trio_chardev", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", copy)
        modules = {mutant.module for mutant in chosen}
        for unchanged in (control for control in controls() if control.module in modules):
            if not survives(unchanged, copy):
                raise SystemExit(f"without a mutant the tests of {unchanged.module} fail")
        for mutant in chosen:
            reason = REASONS.get(mutant.name)
            if reason is not None and not options.excused:
                excused += 1
            elif not survives(mutant, copy):
                found[mutant.module] += 1
            elif reason is not None:
                excused += 1
            else:
                alive.append(mutant)
                print(f"{mutant.full_name}: lives", flush=True)
    for module, count in found.items():
        print(f"{module}: {count} found")
    print(
        f"{len(chosen)} mutants, {found.total()} found, {excused} live for a reason, {len(alive)} live"
    )
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
