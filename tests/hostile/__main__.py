"""Flood a service in each way, and measure the round trips of a QMP client beside it."""

from __future__ import annotations

import contextlib
import select
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from tests.hostile.floods import FLOODS, QMP_FLOODS, Make, Place
from tests.hostile.peers import Peer
from tests.services import Qmp
from tests.soak.meter import Service
from trio_chardev.backends import BACKEND
from trio_chardev.options import BackendOptions, unstructure

TYPICAL: Final = 0.05  # seconds that 99 of 100 round trips may take
LONGEST: Final = 0.1
GROWTH: Final = 32 << 20  # bytes of memory
WAIT: Final = 0.1  # seconds


def flood(peer: Peer, is_over: threading.Event) -> None:
    """Send for as long as it is not over."""
    with contextlib.suppress(OSError):  # it is let go
        while not is_over.is_set():
            try:
                peer.send()
            except BlockingIOError:
                if peer.fileno() < 0:
                    time.sleep(0.001)
                else:
                    select.select([], [peer.fileno()], [], WAIT)


def add(qmp: Qmp, id: str, options: BackendOptions) -> None:
    answer = qmp("chardev-add", id=id, backend=unstructure(options, BACKEND))
    assert isinstance(answer, dict), answer


def come(qmp: Qmp, place: Place) -> Peer:
    """Make the chardev, which is read, and have its peer come."""
    for id, options in place.bases.items():
        add(qmp, id, options)
    if (creds := place.creds) is not None:
        known = {"dir": creds.dir, "endpoint": creds.endpoint, "verify-peer": creds.verify_peer}
        assert qmp("object-add", **{"qom-type": "tls-creds-x509", "id": "creds", **known}) == {}
    coming = threading.Thread(target=lambda: peers.append(place.come()))
    peers: list[Peer] = []
    if getattr(place.options, "server", True):
        add(qmp, "flooded", place.options)
        coming.start()
    else:
        coming.start()
        add(qmp, "flooded", place.options)
    coming.join()
    assert qmp("device_add", driver="discard", id="discard", chardev="flooded") == {}
    return peers[0]


def measure(make: Make, folder: Path, seconds: float) -> tuple[list[float], int]:
    """The round trips, the longest last, and by how much memory has grown."""
    service = Service.start(folder)
    is_over = threading.Event()
    times = []
    try:
        with Qmp(service.path) as qmp:
            peer = come(qmp, make(folder))
            before = service.memory
            flooding = threading.Thread(target=flood, args=(peer, is_over))
            flooding.start()
            end = time.monotonic() + seconds
            while (begin := time.monotonic()) < end:
                qmp("query-version")
                times.append(time.monotonic() - begin)
                time.sleep(0.001)
            is_over.set()
            flooding.join()
            peer.close()
            return sorted(times), service.memory - before
    finally:
        is_over.set()
        service.process.kill()
        service.process.wait()


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    floods = {**FLOODS, **QMP_FLOODS}
    names = [name for name in floods if name.startswith(tuple(sys.argv[2:]) or "")]
    print("round trips of a client of QMP: typical, 99 of 100, the longest; growth of memory")
    status = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            times, growth = measure(floods[name], Path(folder), seconds / len(names))
        half, most, longest = (times[int(part * (len(times) - 1))] for part in (0.5, 0.99, 1))
        is_bad = most > TYPICAL or longest > LONGEST or growth > GROWTH
        print(
            f"{name:<36} {half * 1e3:8.2f} {most * 1e3:8.2f} {longest * 1e3:8.2f} ms"
            f" {growth >> 10:8} KiB{'  TOO MUCH' if is_bad else ''}",
            flush=True,
        )
        status |= is_bad
    return status


if __name__ == "__main__":
    sys.exit(main())
