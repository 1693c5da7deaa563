"""What ``serve -v`` logs about clients that come and go, and ``-v -v`` about the commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.services import Qmp, running


def test_who_comes_and_goes_and_each_command_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with running("-v", "-v", "--qmp", f"unix:{path},server=on,wait=off") as service:
        with Qmp(path) as qmp:
            qmp.add("r", "ringbuf")
            qmp("ringbuf-write", device="r", data="hunter1")
            qmp("object-add", **{"qom-type": "secret", "id": "s", "data": "hunter2"})
            qmp("object-add", **{"qom-type": "secret", "id": "t", "dat": "hunter3"})
            qmp("chardev-change", id="r", backend={"type": "null", "data": {}})
            qmp("chardev-remove", id="x\n")
            qmp.write(json.dumps({"execute": "chardev-remove", "arguments": {"id": []}}).encode())
            assert "error" in qmp.read()
            qmp("quit")
        _, log = service.process.communicate(timeout=30)
    pid = f"process {os.getpid()}, user {os.getuid()}"
    for line in (
        f"QMP client 'unix:{path}#1' has come ({pid})",
        f"QMP 'unix:{path}#1': chardev-add id=r backend.type=ringbuf",
        "chardev 'r' is added: ringbuf",
        "chardev 'r': somebody has come: ringbuf",
        f"QMP 'unix:{path}#1': ringbuf-write device=r",
        f"QMP 'unix:{path}#1': object-add id=s qom-type=secret",
        "chardev 'r' is changed: ringbuf -> null",
        f"QMP 'unix:{path}#1': chardev-remove id=x\\n",
        f"QMP 'unix:{path}#1': chardev-remove: Chardev 'x\\n' not found",
        "stopping: host-qmp-quit",
        f"QMP client 'unix:{path}#1' has left",
    ):
        assert f'"message": {json.dumps(line)}' in log
    assert "hunter" not in log
    assert "Traceback" not in log


def test_without_v_there_is_no_word_of_it(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with running("--qmp", f"unix:{path},server=on,wait=off") as service:
        with Qmp(path) as qmp:
            qmp.add("r", "ringbuf")
            qmp("quit")
        assert service.process.communicate(timeout=30)[1] == ""
