"""conserver's configurations become ours; what can't is told with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.convert.test_ser2net import consoles_of
from trio_chardev.convert.conserver import convert
from trio_chardev.convert.conserver_blocks import read_blocks
from trio_chardev.convert.converted import MissingError
from trio_chardev.errors import OptionsError


def converted(text: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The consoles that *text* becomes, and what is left out, without the path."""
    file = folder / "c.cf"
    file.write_text(text)
    result = convert(str(file))
    return consoles_of(result, folder), [
        line.removeprefix(f"{folder}/") for line in result.left_out
    ]


def test_quotes_spaces_and_comments(tmp_path: Path) -> None:
    """As in the section PARSER of the man page."""
    file = tmp_path / "c.cf"
    file.write_text(
        "default my defs { rw *; include other defs  ; } # default x {\n"
        '"defa"ult my\\ defs { rw *; in\\clude "other defs"\t; }\n'
        'console a { motd " #;{\\"} " ; type\n  exec; exec ""; timestamp 1\\\nhab; }\n'
    )
    first, second, third = read_blocks(str(file))
    for block in (first, second):
        assert (block.type, block.name) == ("default", "my defs")
        assert [(item.keyword, item.value) for item in block.items] == [
            ("rw", "*"),
            ("include", "other defs"),
        ]
    assert [(item.place.line, item.keyword, item.value) for item in third.items] == [
        (3, "motd", ' #;{"} '),
        (3, "type", "exec"),
        (4, "exec", ""),
        (4, "timestamp", "1hab"),
    ]


COMMON = """
default full { rw *; }
default * { logfile /var/log/conserver/&.log; timestamp 1hab; include full; master localhost; }
default ports { type host; host ts1; portbase 2000; portinc 100; protocol raw; }
console a.b { include ports; port 2; motd "hello {you}"; }
console s { type device; device /dev/ttyC.; devicesubst .=pd; port 7; baud 9600; parity even;
    options !ixon,!ixoff,crtscts,cstopb,hupcl; timestamp ""; }
console u { type uds; uds /run/&; logfile ""; }
"""


def test_consoles(tmp_path: Path) -> None:
    consoles, left_out = converted(COMMON, tmp_path)
    assert left_out == []
    common = {"history": "256k", "write": "first"}
    assert consoles == {
        "a.b": {
            "device": "socket,host=ts1,port=2200,server=off,reconnect-ms=1000",
            **common,
            "banner": "hello {{you}}",
            "log": {"file": "/var/log/conserver/a.b.log", "format": "timestamp", "events": True},
        },
        "s": {
            "device": "serial,path=/dev/ttyC7,speed=9600,parity=E,stop-bits=2,rtscts=on,hupcl=on",
            **common,
            "log": {"file": "/var/log/conserver/s.log"},
        },
        "u": {"device": "socket,path=/run/&,server=off,reconnect-ms=1000", **common},
    }


def test_what_is_left_out_is_told_with_its_line(tmp_path: Path) -> None:
    text = """config * { primaryport 3109; }
access * { trusted 127.0.0.1; }
console e { type exec; exec ssh h; }
console d { type device; device /dev/a; baud 9600;
  rw bob;
  options ondemand,!hupcl;
  initcmd x;
  logfile /l; logfilemax 1m;
  master other;
  unheard of;
  include nothing;
}
console i { type ipmi; host h; }
task a { cmd x; }
"""
    consoles, left_out = converted(text, tmp_path)
    assert list(consoles) == ["d"]
    assert consoles["d"]["log"] == {"file": "/l", "rotate": "1m", "keep": 9}
    assert [line.partition(" ")[0] for line in left_out] == [
        f"c.cf:{line}:" for line in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14)
    ]


def test_included_files(tmp_path: Path) -> None:
    (tmp_path / "in c").write_text("default x { type uds;\n")
    consoles, _ = converted(
        f"#include {tmp_path}/in c \nuds /a; }}\n #include no\nconsole a {{ include x; }}\n",
        tmp_path,
    )
    assert list(consoles) == ["a"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("console a { type uds;\n", "c.cf:1: this block has no end"),
        ("console a { type uds }", "c.cf:1: here should be a ';'"),
        ("}", "c.cf:1: here should be a block"),
        ("\nconsole a", "c.cf:2: here should be a block"),
        ('console a { motd "x; }\n', "c.cf:1: a quotation has no end"),
        ("#include c.cf\n", "is included 10 files deep"),
    ],
)
def test_what_is_no_block_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionsError, match=fault):
        converted(text, tmp_path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        convert(str(tmp_path / "no"))


EXAMPLES = Path("/usr/share/doc/conserver-server/examples")
SAMPLES = [Path("/etc/conserver/conserver.cf"), EXAMPLES / "conserver.cf", EXAMPLES / "test.cf"]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_samples_of_the_package(sample: Path, tmp_path: Path) -> None:
    if not sample.exists():
        pytest.skip("conserver is not installed here")
    consoles_of(convert(str(sample)), tmp_path)
