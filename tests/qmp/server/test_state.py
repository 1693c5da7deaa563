"""The file that keeps what QMP clients do: whole at every moment, and never another's."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.services import until
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.server import state as module
from trio_chardev.qmp.server.state import Entry, StateFile, open_state_file

NULL = {"type": "null", "data": {}}
PTY = {"type": "pty", "data": {}}


def entries_of(path: Path) -> dict[str, Entry]:
    """What the next service would find."""
    state_file = StateFile(str(path))
    state_file.read()
    return state_file.entries["chardevs"]


async def test_what_was_kept_is_found_by_the_next(tmp_path: Path) -> None:
    with open_state_file(str(tmp_path / "s")) as state_file:
        state_file.set_base("chardevs", "c", NULL)
        state_file.set_base("chardevs", "d", NULL)
        async with open_background_nursery() as nursery:
            nursery.start_soon(state_file.run)
            await state_file.keep("chardevs", "a", NULL)
            await state_file.keep("chardevs", "b", NULL)
            await state_file.keep("chardevs", "c", PTY)
            await state_file.keep("chardevs", "d", None)
            assert list(entries_of(tmp_path / "s").items()) == [
                ("a", Entry(NULL)),
                ("b", Entry(NULL)),
                ("c", Entry(PTY, NULL)),
                ("d", Entry(None, NULL)),
            ]
            await state_file.keep("chardevs", "a", None)
            await state_file.keep("chardevs", "b", PTY)
            await state_file.keep("chardevs", "c", NULL)  # as the command line says
            assert list(entries_of(tmp_path / "s").items()) == [
                ("b", Entry(PTY)),
                ("d", Entry(None, NULL)),
            ]
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "s").read_text())["trio-chardev"] == 1


async def test_it_is_synced_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def call(what: Any, *more: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what
            calls.append((name, os.path.basename(path)))
            return real(what, *more)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename"):
        note(name)
    module._replace(str(tmp_path / "s"), "text")
    assert calls == [
        ("write", "s.tmp"),
        ("fsync", "s.tmp"),
        ("rename", "s.tmp"),
        ("fsync", tmp_path.name),
    ]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_failing_at_any_step_it_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "s"
    path.write_text("old")

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            module._replace(str(path), "new")
    assert path.read_text() == "old"
    module._replace(str(path), "new")
    assert path.read_text() == "new"


async def test_many_commands_share_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    monkeypatch.setattr(module, "_replace", lambda path, text: writes.append(text))
    with open_state_file(str(tmp_path / "s")) as state_file:
        async with open_background_nursery() as background:
            background.start_soon(state_file.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(state_file.keep, "chardevs", f"c{number}", NULL)
    assert len(writes) <= 3
    assert writes[-1].count('"id"') == 100


async def test_on_a_full_disk_commands_go_on_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.001)
    failures = 0

    def fail(path: str, text: str) -> None:
        nonlocal failures
        failures += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "s"
    with open_state_file(str(path)) as state_file, trio.fail_after(5):
        async with open_background_nursery() as background:
            background.start_soon(state_file.run)
            with monkeypatch.context() as patch:
                patch.setattr(module, "_replace", fail)
                await state_file.keep("chardevs", "a", NULL)
                await until(lambda: failures >= 3)
            await until(path.exists)
            await state_file.keep("chardevs", "b", NULL)
    assert list(entries_of(path)) == ["a", "b"]
    assert [r.message for r in caplog.records] == [
        f"Could not write '{path}': No space left on device",
        f"'{path}' is written again",
    ]


async def test_a_failure_that_lasts_is_told_again_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was said once may have gone to the very disk that is full."""
    failures = 0

    def fail(path: str, text: str) -> None:
        nonlocal failures
        failures += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_replace", fail)
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.001)
    with open_state_file(str(tmp_path / "s")) as state_file, trio.fail_after(5):
        async with open_background_nursery() as background:
            background.start_soon(state_file.run)
            await state_file.keep("chardevs", "a", NULL)
            await until(lambda: failures >= 3)
            assert len(caplog.records) == 1
            monkeypatch.setattr(state_file, "_say_again", trio.current_time())
            await until(lambda: len(caplog.records) == 2)
    assert {r.message for r in caplog.records} == {
        f"Could not write '{tmp_path}/s': No space left on device"
    }


async def test_without_a_file_nothing_waits() -> None:
    state_file = StateFile()
    assert not state_file.is_kept
    await state_file.run()
    await state_file.keep("chardevs", "a", NULL)
    assert not state_file.entries["chardevs"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"trio-chardev": 1, "chardevs": [{"id": "a", ', "Expecting property name"),
        ("[]", "it does not begin as one"),
        ('{"version": 1}', "it does not begin as one"),
        ('{"trio-chardev": 2}', "it is of version 2, and this program knows version 1"),
        ('{"trio-chardev": 1, "chardevs": [{"id": 5}]}', "row 1 of 'chardevs' is damaged"),
        ('{"trio-chardev": 1, "chardevs": 5}', "'chardevs' is no list"),
        ('{"trio-chardev": "1"}', "this program knows version 1"),
        ('{"trio-chardev": 1, "more": []}', "it has 'more'"),
        ("[" * 100_000, ""),
    ],
)
def test_a_torn_or_alien_file_is_left_alone(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "s"
    path.write_text(text)
    with pytest.raises(OptionsError) as raised, open_state_file(str(path)):
        pass
    assert str(raised.value).startswith(f"'{path}' is not a state file of trio-chardev: {why}")
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        '{"trio-chardev": 1, "objects": [{"id": "a", "now": 1}, %s]}',
        '{"trio-chardev": 1, "objects": %s}',
        '{"trio-chardev": %s}',
        '{"trio-chardev": 1, "objects": [%s',
        '{"trio-chardev": 1, "objects": [%s]} %s',
        "%s",
    ],
)
def test_a_secret_in_a_damaged_file_is_not_told(tmp_path: Path, text: str) -> None:
    row = '{"id": "s", "now": {"qom-type": "secret", "data": "hunter2"}, "odd": 1}'
    path = tmp_path / "s"
    path.write_text(text.replace("%s", row))
    with pytest.raises(OptionsError) as raised, open_state_file(str(path)):
        pass
    assert "hunter2" not in str(raised.value)


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s")
    with (
        pytest.raises(OptionsError, match=r"^Could not open '.*/s': Not a regular file$"),
        open_state_file(f"{tmp_path}/s"),
    ):
        pass


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionsError, match="is not a state file"), open_state_file(f"{tmp_path}/s"):
        pass


def test_two_services_can_not_have_one(tmp_path: Path) -> None:
    path = f"{tmp_path}/s"
    with (
        open_state_file(path),
        pytest.raises(OptionsError, match="is the state of another service"),
        open_state_file(path),
    ):
        pass
    with open_state_file(path):
        pass


def test_where_none_can_be_made() -> None:
    with (
        pytest.raises(OptionsError, match=r"^Could not open '/missing/s.lock': No such file"),
        open_state_file("/missing/s"),
    ):
        pass


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_the_state_in_which_nothing_was_done(tmp_path: Path, text: str) -> None:
    """So mktemp(1) makes it."""
    path = tmp_path / "s"
    path.write_text(text)
    with open_state_file(str(path)) as state_file:
        assert not any(state_file.entries.values())


# ---------------------------------------------------------------- who else can write in its folder


async def write_one(path: Path) -> None:
    with open_state_file(str(path)) as state_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state_file.run)
            with trio.fail_after(5):
                await state_file.keep("chardevs", "a", {"kind": "null"})
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "hard link"])
async def test_what_was_put_beside_it_before_does_not_become_it(tmp_path: Path, kind: str) -> None:
    path, beside, precious = (tmp_path / name for name in ("s", "s.tmp", "precious"))
    precious.write_text("precious")
    held = None
    match kind:
        case "file":
            held = beside.open("w+")
        case "link":
            beside.symlink_to(precious)
        case "fifo":
            os.mkfifo(beside)
        case _:
            beside.hardlink_to(precious)
    await write_one(path)
    assert "null" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert precious.read_text() == "precious"
    if held is not None:
        held.seek(0)
        assert held.read() == ""
        held.close()


async def test_what_is_put_there_while_it_is_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def swap_and_rename(source: str, target: str) -> None:
        os.unlink(source)
        Path(source).write_text("mine")
        os.replace(source, target)

    monkeypatch.setattr(os, "rename", swap_and_rename)
    await write_one(tmp_path / "s")
    assert (
        f"Could not write '{tmp_path}/s': Somebody else has put his own file there" in caplog.text
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["s", "s.lock"])
def test_the_state_of_another_user_is_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.chown(tmp_path / name, 12345, 12345)
    refused = rf"^Could not open '{tmp_path}/{name}': It belongs to user 12345$"
    with pytest.raises(OptionsError, match=refused), open_state_file(str(tmp_path / "s")):
        pass


def test_want_of_locks_is_not_another_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    refused = rf"^Could not lock '{tmp_path}/s.lock': No locks available$"
    with pytest.raises(OptionsError, match=refused), open_state_file(str(tmp_path / "s")):
        pass
