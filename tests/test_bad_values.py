"""Bad values for every option of every kind, by QMP and on the command line.

Each must lead to one clear line, and to nothing that was not there before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.bad_values import LONG, bad_texts, base_of, walk
from tests.qmp.commands.test_chardev import Commands, open_commands
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.socket import resolving
from trio_chardev.backends.socket.lookup import NUMERIC, Query
from trio_chardev.backends.table import BACKEND, KINDS
from trio_chardev.cli.errors import print_error
from trio_chardev.cli.options import GRAMMAR, ServeOptions
from trio_chardev.cli.output import printable
from trio_chardev.cli.serve import add_all
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.devices.table import DEVICE
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server.state import StateFile
from trio_chardev.service import open_service

# What no user should have to read: Python's own words.
UGLY = re.compile(
    r"Errno|object at 0x|Traceback|<class|NoneType|codec|sub-exception|unsupported operand|Error\("
)
# What QEMU says, though it could be clearer; and what a good value gets from a chardev that lacks it.
QEMUS = (
    "'null' has no ",
    "address resolution failed for",
    "Capabilities negotiation is already complete",
    "File descriptor named",
    "Instance not found",
    "No file descriptor supplied via SCM_RIGHTS",
    "Unable to access credentials",
)
NOBODY = "unix:q,server=on,wait=off"  # a monitor for nobody
CAST = '{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "x"]\n'

# What opens, where something is needed for that. ``n`` is a chardev.
GOOD: dict[str, dict[str, Any]] = {
    "file": {"out": "out"},
    "hub": {"chardevs": ["n"]},
    "mux": {"chardev": "n"},
    "parallel": {"device": "fifo"},
    "pipe": {"device": "fifo"},
    "replay": {"path": "cast"},
    "serial": {"device": "/dev/null"},
    "socket": {"addr": {"type": "unix", "data": {"path": "sock"}}},
    "udp": {"remote": {"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}}},
}
GOOD_TEXT = {
    "file": "path=out",
    "hub": "chardevs.0=n",
    "mux": "chardev=n",
    "parallel": "path=fifo",
    "pipe": "path=fifo",
    "replay": "path=cast",
    "serial": "path=/dev/null",
    "socket": "path=sock,server=on,wait=off",
    "udp": "host=127.0.0.1,port=9",
}
GOOD_DEVICE = {"chardev": "n", "peer": "m", "console": "c"}


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing goes wrong behind the scenes."""
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `GOOD` names is in the working directory; no resolver is asked for names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    os.mkfifo("fifo")
    Path("cast").write_text(CAST)
    look_up = resolving._look_up

    async def look_numbers_up(query: Query) -> Sequence[Any]:
        return await look_up(query._replace(flags=query.flags | NUMERIC))

    monkeypatch.setattr(resolving, "_look_up", look_numbers_up)


def check_line(text: str, member: str, value: Any, *others: str) -> None:
    """Is it a clear line? It names the *member*, repeats the *value*, or names *others*."""
    assert not UGLY.search(text), text
    plain = text.replace("_", "-")
    if any(word in text for word in QEMUS):
        return
    names = [member, *others, *names_in(value)]
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", plain) for name in names):
        assert any(repeated in text for repeated in texts_in(value)), text


def names_in(value: Any) -> Iterator[str]:
    """The names of members in *value*."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def texts_in(value: Any) -> Iterator[str]:
    """The beginnings of the texts in *value*, so that they are not found by chance."""
    if isinstance(value, str):
        yield f"'{value[:50]}"
        if len(value) > 2:
            yield value[:50]
    elif isinstance(value, dict | list):
        for inner in value if isinstance(value, list) else value.values():
            yield from texts_in(inner)


def snapshot(run: Commands) -> tuple[Any, ...]:
    registry = run.registry
    backends = {id: chardev.backend for id, chardev in registry.items()}
    fds = os.listdir("/proc/self/fd")
    return backends, list(registry.devices), dict(registry.objects), len(fds)


async def check_unchanged(run: Commands, before: tuple[Any, ...], what: object) -> None:
    """Nothing was left behind; what a thread closes may take a moment."""
    with trio.move_on_after(20):
        while snapshot(run) != before:  # noqa: ASYNC110 - no event tells that a thread has closed
            await trio.sleep(0.001)
    assert snapshot(run) == before, what


async def add_two(run: Commands) -> None:
    """The chardevs that `GOOD` needs, and what is made once in a run (for PTYs)."""
    await run.add("n", "null")
    await run.add("m", "pty")


async def say(run: Commands, command: str, arguments: dict[str, Any]) -> str | None:
    """The text of the error, if it is one."""
    try:
        with trio.fail_after(5):
            await run(command, **arguments)
    except ChardevError as exc:
        return str(exc)
    return None


@pytest.mark.parametrize("command", ["chardev-add", "chardev-change"])
@pytest.mark.parametrize("kind", BACKEND.variants)
async def test_bad_options_of_a_chardev_are_told_and_leave_nothing(kind: str, command: str) -> None:
    async with open_commands() as run:
        await add_two(run)
        id = "a"
        if command == "chardev-change":
            await run.add(id, "null")
        before = snapshot(run)
        for member, data in walk(
            BACKEND.variants[kind], GOOD.get(kind, base_of(BACKEND.variants[kind]))
        ):
            backend = {"type": kind, "data": data}
            text = await say(run, command, {"id": id, "backend": backend})
            if text is None:  # it was good by chance
                if command == "chardev-change":
                    await run.change(id, "null")
                    before = (*snapshot(run)[:-1], before[-1])
                else:
                    await run("chardev-remove", id=id)
            else:
                check_line(text, member, data.get(member), kind)
            await check_unchanged(run, before, backend)


@pytest.mark.parametrize("driver", DEVICE.variants)
async def test_bad_properties_of_a_device_are_told_and_leave_nothing(driver: str) -> None:
    cls = DEVICE.variants[driver]
    async with open_commands() as run:
        await add_two(run)
        before = snapshot(run)
        base = {name: GOOD_DEVICE[name] for name in base_of(cls)} | {"id": "d"}
        if driver == "listener":
            await run.add("c", "console", history=1)
            base["path"] = "listened"
            before = snapshot(run)
        for member, data in walk(cls, base):
            text = await say(run, "device_add", {"driver": driver, **data})
            if text is None:
                [id] = run.registry.devices
                await run("device_del", id=id)
            else:
                check_line(text, member, data.get(member), driver)
            await check_unchanged(run, before, data)


@pytest.mark.parametrize("kind", OBJECT.variants)
async def test_bad_properties_of_an_object_are_told_and_leave_nothing(kind: str) -> None:
    cls = OBJECT.variants[kind]
    async with open_service() as service:
        run = Commands(Context(Host(service.registry, lambda reason: None)))
        await add_two(run)
        before = snapshot(run)
        base = {
            "monitor-qmp": {"id": "o", "chardev": "n"},
            "secret": {"id": "o", "data": "x"},
            "tls-creds-psk": {"id": "o", "dir": "."},
            "tls-creds-x509": {"id": "o", "dir": "."},
        }
        for member, data in walk(cls, base.get(kind, base_of(cls))):
            text = await say(run, "object-add", {"qom-type": kind, **data})
            if text is None:
                await run("object-del", id=data["id"])
            else:
                check_line(text, member, data.get(member), kind)
            await check_unchanged(run, before, data)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"device_add", "object-add", "quit"}))
async def test_bad_arguments_of_a_command_are_told_and_leave_nothing(command: str) -> None:
    base: dict[str, dict[str, Any]] = {
        "chardev-add": {"id": "a", "backend": {"type": "null", "data": {}}},
        "chardev-change": {"id": "n", "backend": {"type": "null", "data": {}}},
        "chardev-send-break": {"id": "n"},
        "chardev-remove": {"id": "nope"},
        "ringbuf-write": {"device": "r", "data": "x"},
        "ringbuf-read": {"device": "r", "size": 1},
        "chardev-get-line": {"id": "n"},
        "chardev-set-line": {"id": "n", "settings": {}},
        "chardev-line-sequence": {"id": "n", "steps": [{}]},
        "chardev-lend": {"id": "nope"},
        "chardev-attach": {"id": "c", "fd": "none"},
        "chardev-kick": {"id": "c", "client": 1},
        "chardev-give-write": {"id": "c", "client": 1},
        "chardev-client-size": {"id": "c", "client": 1, "cols": 80, "rows": 24},
        "chardev-client-break": {"id": "c", "client": 1},
        "chardev-history": {"id": "c"},
        "chardev-mark": {"id": "c", "name": "here"},
        "query-marks": {"id": "c"},
        "chardev-window-size-changed": {"id": "n", "cols": 80, "rows": 24},
    }
    cls = COMMANDS[command].arguments
    async with open_commands() as run:
        await add_two(run)
        await run.add("r")
        await run.add("c", "console", history=1)
        before = snapshot(run)
        for member, arguments in walk(cls, base.get(command, base_of(cls))):
            if member == "backend":  # is tested above
                continue
            text = await say(run, command, arguments)
            if text is not None:
                others = ["client"] if command in ("chardev-kick", "chardev-client-size") else []
                check_line(text, member, arguments.get(member), *others)
            elif command == "chardev-add":
                await run("chardev-remove", id=arguments["id"])
            elif command == "chardev-change":
                before = snapshot(run)
            await check_unchanged(run, before, arguments)


# ---------------------------------------------------------------- the command line


async def begin(what: str, *texts: str) -> ChardevError | None:
    """What ``serve --WHAT TEXT ...`` fails with, beside two chardevs; None if it begins."""
    given = {"chardev": ["null,id=n", "null,id=m"], "monitor": [], "qmp": [NOBODY]}
    given[what] = [*given.get(what, []), *texts]
    try:
        with trio.fail_after(5):
            async with open_service() as service, open_background_nursery() as nursery:
                options = ServeOptions.parse(
                    given["chardev"],
                    given["monitor"],
                    given["qmp"],
                    None,
                    lambda warning: None,
                    given.get("object", ()),
                    given.get("sandbox", ()),
                    given.get("device", ()),
                    *given.get("echr", ()),
                )
                await add_all(service, options, StateFile(), nursery)
    except ChardevError as exc:
        return exc
    return None


def printed_of(error: ChardevError, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """The line, and the hints below it."""
    print_error(error)
    line, *hints = capsys.readouterr().err.splitlines()
    return line, hints


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_options_on_the_command_line_are_told_on_one_line(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await begin("chardev", "pty,id=p")  # what is made once in a run
    before = len(os.listdir("/proc/self/fd"))
    for option in GRAMMAR.options_of(kind).values():
        name = option.name.replace(".N", ".0")
        for bad in bad_texts(option.value_type):
            text = f"{kind},id=a,{GOOD_TEXT.get(kind, 'mux=off')},{name}={bad}"
            if error := await begin("chardev", text):
                line, hints = printed_of(error, capsys)
                start = f"trio-chardev: --chardev {printable(text)}"[:200]
                assert line.startswith(start)
                assert len(hints) <= 2
                value = printable(bad.replace(",,", ","))
                check_line(line[len(start) :], name.removesuffix(".0"), value, kind)
                assert "Failed to add chardev" not in line
            assert len(os.listdir("/proc/self/fd")) == before, text


MISTAKES = {
    "chardev": [
        ("", "no id"),
        ("=", "''"),
        ("nope,id=a", "'nope'"),
        ("nope\n,id=a", r"'nope\n'"),
        ("null,id=", "'id'"),
        ("null,id=a b", "'id'"),
        ("null,id=n", "'n'"),
        ("null,id=a,nope=1", "'nope'"),
        ("ringbuf,id=a,mux=on,size=3", "power of two"),
        ("ringbuf,id=a,size=8E", "'8E' is out of range"),
        ("serial,id=a,path=/dev/null,speed=9223372036854775808", "out of range"),
        ("serial,id=a,path=/dev/null,speed=-1", "speed must be from 1 to 4294967295"),
        ("serial,id=a,path=/dev/null,wait=off,reopen-ms=0", "wait=off needs a reopen-ms above 0"),
        ("serial,id=a,path=/dev/null,dtr=up", "Parameter 'dtr' does not accept value 'up'"),
        ("serial,id=a,path=/dev/null,rs485-delay-after-ms=1", "needs rs485=on"),
        ("socket,id=a,host=127.0.0.1,port=70000", "a port is at most 65535"),
        ("socket,id=a,path=x,reconnect=-1", "'reconnect' must not be negative"),
        ("socket,id=a,path=x,on-busy=kick", "'kick'"),
        ("socket,id=a,path=x,server=off,on-busy=refuse", "incompatible with socket in client"),
        ("socket,id=a,path=x,http-guard=perhaps", "'http-guard'"),
        ("socket,id=a,path=x,server=off,http-guard=on", "incompatible with socket in client"),
        ("socket,id=a,path=x,server=on,websocket=on,http-guard=on", "see 'origins'"),
        ("socket,id=a,path=x,linger-ms=-1", "'linger-ms' must not be negative"),
        ("socket,id=a,path=x,linger-ms=soon", "'linger-ms'"),
        ("socket,id=a,path=x,reconnect-max-ms=1", "requires 'reconnect' or 'reconnect-ms'"),
        ("socket,id=a,path=x,reconnect=1,reconnect-max-ms=x", "'reconnect-max-ms'"),
        ("udp,id=a,host=127.0.0.1,port=1,localport=70000", "a port is at most 65535"),
        ("pty,id=a,path=fifo", "'fifo': File exists"),
        ("{", "JSON"),
        ("{}", "'id'"),
        ('{"id": 5}', "'id'"),
        ('{"id": "a", "backend": {"type": "nope", "data": {}}}', "'nope'"),
    ],
    "monitor": [
        ("", "'chardev'"),
        ("nope", "'nope'"),
        ("chardev=nope,pretty=on", "'nope'"),
        ("n,mode=readline", "'readline'"),
        ("n,pretty=x", "'pretty'"),
        ("n,id=5", "'id'"),
        ("n,nope=1", "'nope'"),
        ("{}", "'chardev'"),
    ],
    "qmp": [
        ("", "''"),
        ("nope", "'nope'"),
        ("chardev:nope", "'nope'"),
        ("unix:/nope/q", "/nope/q"),
        ("unix:/nope/q,server=on,wait=off", "/nope/q"),
        ("unix:", "'path'"),
        ("unix:q,server=x", "'server'"),
        ("unix:q,nope=1", "'nope'"),
        ("tcp:", "'tcp:'"),
        ("tcp:127.0.0.1:70000,server=on,wait=off", "a port is at most 65535"),
        ("tcp:127.0.0.1:-1", "127.0.0.1:-1"),
        ("file:/nope/q", "/nope/q"),
    ],
    "device": [
        ("", "'driver'"),
        ("nope", "'nope'"),
        ("echo", "'chardev'"),
        ("echo,chardev=nope", "'nope'"),
        ("echo,chardev=n,id=5", "'id'"),
        ("echo,chardev=n,nope=1", "nope"),
        ("bridge,chardev=n,peer=n", "'n'"),
        ("bridge,chardev=n,peer=m,when-closed=x", "'x'"),
        ("bridge,chardev=n,peer=m,eof=x", "'x'"),
        ("bridge,chardev=n,peer=m,translate-to-peer=x", "'x'"),
        ("bridge,chardev=n,peer=m,translate-to-chardev=", "''"),
        ("bridge,chardev=n,peer=m,pace-char-us=-1", "'-1'"),
        ("bridge,chardev=n,peer=m,pace-line-ms=1s", "'pace-line-ms'"),
        ("bridge,chardev=n,peer=m,frame-silence-us=10000001", "'10000001'"),
        ("bridge,chardev=n,peer=m,frame-delimiter=\\q", "'\\q'"),
        ("bridge,chardev=n,peer=m,notice=x", "'notice'"),
        ("monitor,chardev=n,pretty=x", "'pretty'"),
    ],
    "object": [
        ("", "'qom-type'"),
        ("nope", "'nope'"),
        ("secret", "'id'"),
        ("secret,id=5,file=cast", "'id'"),
        ("secret,id=o", "'data'"),
        ("secret,id=o,file=/nope", "/nope"),
        ("tls-creds-x509,id=o,dir=/nope", "/nope"),
        ("tls-creds-x509,id=o,dir=.,passwordid=nope", "'nope'"),
        ("authz-list,id=o,rules=x", "'rules'"),
        ("authz-list,id=o,rules.0.match=x", "'rules.0.policy'"),
        ("authz-list,id=o,rules.0.match=x,rules.0.policy=deny,rules.0.no=1", "'rules.0.no'"),
    ],
    "echr": [("", "echr"), ("x", "echr"), ("256", "echr")],
}


@pytest.mark.parametrize(
    ("what", "text", "word"), [(what, *row) for what, rows in MISTAKES.items() for row in rows]
)
async def test_a_mistake_is_told_with_the_option_that_is_to_blame(
    what: str, text: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = await begin(what, text)
    assert error is not None
    line, hints = printed_of(error, capsys)
    start = f"trio-chardev: --{what} {printable(text)}: "
    assert line.startswith(start)
    assert word in line[len(start) :]
    assert not UGLY.search(line)
    assert len(hints) <= 2


@pytest.mark.parametrize("what", ["chardev", "device", "object"])
async def test_an_id_twice(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = {"chardev": "null", "device": "echo,chardev=n", "object": "secret,file=cast"}[what]
    error = await begin(what, f"{text},id=x", f"{text},id=x")
    assert error is not None
    line, _ = printed_of(error, capsys)
    assert line.startswith(f"trio-chardev: --{what} {text},id=x: ")
    assert "'x'" in line.removeprefix(f"trio-chardev: --{what} {text},id=x: ")


async def test_an_empty_sandbox_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable that is not set must not stand for the working directory."""
    error = await begin("sandbox", "")
    assert error is not None
    line, _ = printed_of(error, capsys)
    assert line == "trio-chardev: --sandbox: Could not open '': No such file or directory"


@pytest.mark.parametrize(
    "text", ["secret,id=o,data=hunter2,nope=1", '{"id": "o", "data": "hunter2"}']
)
async def test_an_error_does_not_repeat_a_secret(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = await begin("object", text)
    assert error is not None
    line, _ = printed_of(error, capsys)
    assert line.startswith("trio-chardev: --object ")
    assert "hunter2" not in line


@pytest.mark.parametrize("text", ["vc,id=a", '{"id": "a", "backend": {"type": "vc", "data": {}}}'])
async def test_a_kind_of_an_emulator_is_refused_with_the_reason(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = await begin("chardev", text)
    assert error is not None
    assert printed_of(error, capsys) == (
        f"trio-chardev: --chardev {text}: 'vc' is not a valid char driver name",
        ["trio-chardev: It belongs to an emulated machine or its display: only QEMU has it."],
    )


async def test_a_port_that_is_none_comes_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """The words are QEMU's, and say little."""
    error = await begin("chardev", "udp,id=a,port=-1")
    assert error is not None
    assert printed_of(error, capsys)[1] == [
        "trio-chardev: A port is a number, 0 to 65535, or the name of a service."
    ]


def test_a_long_option_is_told_by_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionsError) as caught:
        ServeOptions.parse([f"null,id=a,nope={LONG}"], [], [], None, lambda warning: None)
    line, _ = printed_of(caught.value, capsys)
    assert re.fullmatch(r"trio-chardev: --chardev null,id=a,nope=x{1,200}\.\.\.: .*'nope'", line)
