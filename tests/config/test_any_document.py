"""Whatever TOML a file has, its mistakes are told, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from trio_chardev.cli.options import ServeOptions
from trio_chardev.config.configuration import LISTS, TABLES, read_configuration
from trio_chardev.config.console import BRIDGE_KEYS, CONSOLE_KEYS, LOG_KEYS, OWN_KEYS
from trio_chardev.config.nodes import ConfigError

KEYS = sorted(
    {*OWN_KEYS, *CONSOLE_KEYS, *BRIDGE_KEYS, *LOG_KEYS}
    | {"kind", "driver", "qom-type", "path", "host", "port", "speed", "chardev", "peer", "rules"}
    | {"match", "chardevs", "server", "identity", "colour", "", "a b"}
)
SCALARS = st.one_of(
    st.sampled_from(
        [
            '""',
            '"null"',
            '"serial,path=/x"',
            '"bridge"',
            '"authz-list"',
            '"x"',
            '"on"',
            '"64k"',
            '"4001"',
            '"/x,y=z"',
            '"{name}"',
            '"{x"',
            '"a,,b="',
            '"help"',
            '"\\u0000"',
            "true",
            "0",
            "-1",
            "4001",
            "1.5",
            "nan",
            "99999999999999999999",
            "1979-05-27",
        ]
    ),
    st.text(max_size=5).map(json.dumps),
)


def inline(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)} = {value}" for key, value in values.items()) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=5).map(inline),
    ),
    max_leaves=8,
)
TABLE = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).map(inline)
DOCUMENTS = st.dictionaries(
    st.sampled_from([*TABLES, *LISTS, "colour"]),
    st.one_of(VALUES, st.dictionaries(st.sampled_from("abc"), TABLE, max_size=3).map(inline)),
).map(lambda tables: "".join(f"{key} = {value}\n" for key, value in tables.items()))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "x.toml"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(text=DOCUMENTS)
def test_any_document(file: Path, text: str) -> None:
    file.write_text(text)
    configuration = read_configuration([str(file)])
    with contextlib.suppress(ConfigError):
        ServeOptions.parse([], [], [], None, lambda text: None, configuration=configuration)
