"""What the files of a configuration stand for, and how their mistakes are told."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import trio_chardev as tc
from trio_chardev.access.authz import AuthzList
from trio_chardev.cli.options import ServeOptions
from trio_chardev.config import files
from trio_chardev.config.configuration import read_configuration
from trio_chardev.config.nodes import ConfigError
from trio_chardev.devices.listener import ListenerOptions


def read(folder: Path, *texts: str, chardevs: tuple[str, ...] = ()) -> ServeOptions:
    """Read *texts* as the files 0.toml, 1.toml ... in *folder*."""
    for number, text in enumerate(texts):
        (folder / f"{number}.toml").write_text(textwrap.dedent(text))
    configuration = read_configuration([str(folder)])
    return ServeOptions.parse(
        chardevs, [], [], None, lambda text: None, configuration=configuration
    )


def faults_of(folder: Path, *texts: str, chardevs: tuple[str, ...] = ()) -> list[str]:
    """All that is wrong, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        read(folder, *texts, chardevs=chardevs)
    lines = [str(caught.value), *getattr(caught.value, "__notes__", ())]
    return [line.removeprefix(f"{folder}/") for line in lines]


def test_the_names_are_those_of_the_command_line(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        """
        monitor = ["m,pretty=on"]
        qmp = "unix:/run/q,server=on"
        [chardev]
        text = "serial,path=/dev/ttyUSB0,speed=9600"
        ring.kind = "ringbuf"
        ring.size = "64k"
        m.kind = "null"
        both = { kind = "hub", chardevs = ["text", "ring"] }
        tcp = { kind = "socket", host = "::1", port = 4001, server = true, wait = "off" }
        [device.e]
        driver = "echo"
        chardev = "both"
        [object.list]
        qom-type = "authz-list"
        policy = "allow"
        rules = [{ match = "O=x", policy = "deny" }]
        """,
    )
    from_line = ServeOptions.parse(
        [
            "serial,id=text,path=/dev/ttyUSB0,speed=9600",
            "ringbuf,id=ring,size=64k",
            "null,id=m",
            "hub,id=both,chardevs.0=text,chardevs.1=ring",
            "socket,id=tcp,host=::1,port=4001,server=on,wait=off",
        ],
        ["m,pretty=on"],
        ["unix:/run/q,server=on"],
        None,
        lambda text: None,
        devices=["echo,id=e,chardev=both"],
    )
    assert options.chardevs == from_line.chardevs
    assert options.devices == from_line.devices
    assert [monitor.options for monitor in options.monitors] == [
        monitor.options for monitor in from_line.monitors
    ]
    assert [one.options for one in options.listeners] == [
        one.options for one in from_line.listeners
    ]
    (made,) = options.objects.values()
    assert isinstance(made, AuthzList)
    assert made.policy == "allow"
    assert made.rules[0].match == "O=x"


def test_a_console_stands_for_its_parts(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        """
        [console.board]
        device = "serial,path=/dev/ttyUSB0"
        listen = ["4001,rfc2217=on", "/run/board.sock", "*:4101,read-only=on", "[::1]:4", "fd:x"]
        history = "256k"
        write = "first"
        log = { file = "/var/log/board.log", format = "timestamp", rotate = "10M", keep = 5 }
        when-closed = "hold"
        """,
    )
    assert options.chardevs == {
        "board": tc.SerialOptions(path="/dev/ttyUSB0"),
        "board-console": tc.ConsoleOptions(
            history=256 << 10,
            write="first",
            logfile="/var/log/board.log",
            logappend=True,
            log_format="timestamp",
            log_rotate=10 << 20,
            log_keep=5,
        ),
    }
    console = "board-console"
    assert list(options.devices.values()) == [
        tc.BridgeOptions(
            id="board-bridge", chardev="board", peer="board-console", when_closed="hold"
        ),
        ListenerOptions(
            id="board-l0", console=console, host="127.0.0.1", port="4001", rfc2217=True
        ),
        ListenerOptions(id="board-l1", console=console, path="/run/board.sock"),
        ListenerOptions(id="board-l2", console=console, host="", port="4101", read_only=True),
        ListenerOptions(id="board-l3", console=console, host="::1", port="4"),
        ListenerOptions(id="board-l4", console=console, fd="x"),
    ]


def test_a_template_has_defaults_with_the_name_filled_in(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        """
        [template.usb]
        device = { kind = "serial", path = "/dev/serial/by-id/{name}", speed = 9600 }
        history = "64k"
        banner = "{name}: {clients} are here"
        log = { file = "/logs/{name}.log", keep = 2 }
        """,
        """
        [console.a]
        template = "usb"
        [console.b]
        template = "usb"
        history = "1k"
        log.keep = 9
        """,
    )
    a, b = options.chardevs["a-console"], options.chardevs["b-console"]
    assert isinstance(a, tc.ConsoleOptions)
    assert isinstance(b, tc.ConsoleOptions)
    assert options.chardevs["a"] == tc.SerialOptions(path="/dev/serial/by-id/a", speed=9600)
    assert (a.history, a.banner, a.logfile, a.log_keep) == (
        *(65536, "a: {clients} are here", "/logs/a.log", 2),
    )
    assert (b.history, b.logfile, b.log_keep) == (1024, "/logs/b.log", 9)


def test_what_stands_on_others_comes_after_them(tmp_path: Path) -> None:
    options = read(
        tmp_path,
        """
        [chardev]
        m = "mux,chardev=b"
        a = "null"
        b = "null"
        """,
    )
    assert list(options.chardevs) == ["b", "m", "a"]


def test_all_faults_are_told_with_file_line_and_key(tmp_path: Path) -> None:
    assert faults_of(
        tmp_path,
        """\
        colour = 1
        qmp = [5, "socket:x"]
        [chardev]
        x = "nul"
        y = "serial,path=/x,speed=fast,size=5"
        z = { kind = "serial", path = "/x", speed = true, wait = "maybe" }
        log = { kind = "null", log = "both" }
        1a = "null"
        s = { path = 5 }
        mux = "null,mux=on"
        """,
        """\
        [console.board]
        history = 5.5
        when-closed = "hol"
        log = { file = "x", colour = 1 }
        listen = ["a:b:c",
                  "/x,port=5", "4001,telnet=maybe", 7]
        [console.two]
        device = "null"
        template = "nope"
        max-clients = 0
        colour = 2
        [device.d]
        driver = "bridge"
        chardev = "nope"
        pear = "x"
        [device.e]
        driver = "echo"
        chardev = "nobody"
        [object.a]
        qom-type = "secret"
        data = 1979-05-27
        [template.t]
        template = "x"
        colour = 1
        """,
    ) == [
        "0.toml:1: [colour]: there is no 'colour': there are chardev, device, object, console, "
        "template, qmp, monitor, metrics, log",
        "0.toml:2: [qmp[0]]: this is no string",
        "0.toml:2: [qmp[1]]: 'socket:x' is not a valid char driver",
        "0.toml:4: [chardev.x]: 'nul' is not a valid char driver name",
        "0.toml:5: [chardev.y]: Parameter 'speed' expects a number",
        "0.toml:5: [chardev.y]: 'serial' has no 'size'",
        "0.toml:6: [chardev.z.speed]: Invalid parameter type for 'speed', expected: integer",
        "0.toml:6: [chardev.z.wait]: Parameter 'wait' expects 'on' or 'off'",
        "0.toml:7: [chardev.log.log]: log needs logfile=FILE",
        "0.toml:8: [chardev.1a]: Parameter 'id' expects an identifier (Identifiers consist of "
        "letters, digits, '-', '.', '_', starting with a letter.)",
        "0.toml:9: [chardev.s]: 'kind' is missing",
        "0.toml:10: [chardev.mux]: 'null' has no 'mux'",
        "1.toml:1: [console.board]: 'device' is missing",
        "1.toml:2: [console.board.history]: Invalid parameter type for 'history', expected: integer",
        "1.toml:3: [console.board.when-closed]: Parameter 'when-closed' does not accept value 'hol'",
        "1.toml:4: [console.board.log.colour]: 'log' has no 'colour'",
        "1.toml:5: [console.board.listen[0]]: 'a:b:c' is neither HOST:PORT nor a path: PORT listens "
        "at 127.0.0.1, *:PORT at all addresses, /PATH at a UNIX socket, fd:NAME at an inherited one",
        "1.toml:6: [console.board.listen[3]]: this is no string",
        "1.toml:6: [console.board.listen[1]]: listener: 'port' needs 'host'",
        "1.toml:6: [console.board.listen[2]]: Parameter 'telnet' expects 'on' or 'off'",
        "1.toml:9: [console.two.template]: there is no template 'nope'",
        "1.toml:10: [console.two.max-clients]: 'max-clients' must be from 1 to 1024",
        "1.toml:11: [console.two.colour]: a console has no 'colour'",
        "1.toml:15: [device.d.pear]: 'bridge' has no 'pear'",
        "1.toml:16: [device.e]: there is no chardev 'nobody'",
        "1.toml:21: [object.a.data]: Invalid parameter type for 'data', expected: string",
        "1.toml:23: [template.t.template]: a template has no template",
        "1.toml:24: [template.t.colour]: a console has no 'colour'",
    ]


def test_the_same_id_twice_is_a_fault(tmp_path: Path) -> None:
    first = """\
        [console.a]
        device = "null"
        [chardev.x]
        kind = "null"
        """
    second = """\
        [chardev]
        x = "null"
        a-console = "null"
        y = "null"
        """
    assert faults_of(tmp_path, first, second, chardevs=("null,id=y",)) == [
        f"0.toml:1: [console.a]: 'a-console' of chardevs is at {tmp_path}/1.toml:3 already",
        f"1.toml:2: [chardev.x]: 'x' is at {tmp_path}/0.toml:3 already",
        "1.toml:4: [chardev.y]: 'y' is on the command line, too",
    ]


def test_a_circle_is_a_fault(tmp_path: Path) -> None:
    text = """\
        [chardev]
        a = "mux,chardev=b"
        b = "mux,chardev=a"
        """
    (line,) = faults_of(tmp_path, text)
    assert "chardevs stand on each other: a on b on a" in line or "b on a on b" in line


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"a = 1\nb =\n", "0.toml:2: Invalid value"),
        (b'a = 1\n\nb = """x\n', "0.toml:4: Unterminated string"),
        (b"[a]\n[a]\n", "0.toml:2: Cannot declare ('a',) twice"),
        (b"a = 1\nb = '\xff'\n", "0.toml:2: this is not UTF-8"),
        (b"chardev = 5\n", "0.toml:1: [chardev]: this is no table"),
        (b"console.x = 5\n", "0.toml:1: [console.x]: this is no table"),
        (b"template.x = 5\n", "0.toml:1: [template.x]: this is no table"),
        (b"chardev.x = 5\n", "0.toml:1: [chardev.x]: this is no table"),
        (b"chardev.x.kind = 5\n", "0.toml:1: [chardev.x.kind]: Invalid parameter type for 'kind',"),
        (b"chardev.x = 'null,help'\n", "0.toml:1: [chardev.x]: 'null' has no 'help'"),
        (b"chardev.x = 'null,log=in,log=in'\n", "0.toml:1: [chardev.x]: 'log' is there twice"),
        (b"monitor = 'x,mode=readline'\n", "0.toml:1: [monitor]: Parameter 'mode' does not accept"),
        (b"qmp = 'help'\n", "0.toml:1: [qmp]: 'help' is not a valid char driver"),
        (b"monitor = 'help'\n", "0.toml:1: [monitor]: there is no help here"),
        (
            b"device.x.driver = 'y'\n",
            "0.toml:1: [device.x.driver]: 'y' is not a valid device model",
        ),
        (b"device.x.chardev = 'y'\n", "0.toml:1: [device.x]: 'driver' is missing"),
        (
            b"chardev.x = 'null'\n[device.b]\ndriver = 'bridge'\nchardev = 'x'\npeer = 'x'\n",
            "0.toml:5: [device.b.peer]: Property 'bridge.peer' can't take value 'x': it is the",
        ),
        (
            b"[console.c]\ndevice = 'null'\npace-char-us = -1\n",
            "0.toml:3: [console.c.pace-char-us]: Property 'bridge.pace-char-us' can't take",
        ),
        (b"x = " + b"[" * 100_000, "0.toml:1: it nests too deeply"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: bytes, fault: str) -> None:
    (tmp_path / "0.toml").write_bytes(text)
    found = faults_of(tmp_path)
    assert found[0].startswith(fault), found


def test_the_log_is_a_table_of_which_each_key_stands_once(tmp_path: Path) -> None:
    text = """
        [log]
        level = "info,tty=debug"
        format = "json"
        colour = "red"
    """
    others = ('log.format = "text"', "log.level = 3", "log = 1")
    assert faults_of(tmp_path, text, *others) == [
        "0.toml:3: [log.level]: there is no area 'tty': there are chardev, config, console, device, "
        "logfile, pty, qmp, serial, service, socket, other",
        "0.toml:5: [log.colour]: 'log' has no 'colour': there are level, format",
        f"1.toml:1: [log.format]: 'format' is at {tmp_path}/0.toml:4 already",
        f"2.toml:1: [log.level]: 'level' is at {tmp_path}/0.toml:3 already",
        "3.toml:1: [log]: this is no table",
    ]


def test_a_file_that_can_not_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "0.toml").symlink_to("/nonexistent")
    assert faults_of(tmp_path) == ["0.toml:1: it can't be read: No such file or directory"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(files.NoSuchFileError, match="there is no"):
        read_configuration([str(tmp_path / "x")])


def test_a_folder_means_its_files_and_those_of_its_conf_d(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", "conf.d/0.toml", ".x.toml", "c.toml~", "x/y.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in files.find_files([str(tmp_path)])]
    assert found == ["a.toml", "b.toml", "conf.d/0.toml"]


def test_without_a_name_the_users_files_count_else_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, system = tmp_path / "home", tmp_path / "system"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setattr(files, "SYSTEM", system)
    assert files.find_files([]) == []
    for folder in (system, home / "trio-chardev"):
        folder.mkdir(parents=True)
        (folder / "config.toml").touch()
        assert files.find_files([]) == [folder / "config.toml"]
