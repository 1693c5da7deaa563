"""A QMP client beside a peer that floods the service: both use blocking calls, in threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.hostile.floods import Place
from tests.hostile.peers import Peer
from tests.services import Qmp
from trio_chardev.backends.table import BACKEND
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.unstructure import unstructure

WAIT: Final = 0.1  # seconds
PAUSE: Final = 0.001  # seconds between two round trips
TRIES: Final = 1000  # of what has to wait until others have finished with it


@contextmanager
def flooding(qmp: Qmp, place: Place) -> Iterator[None]:
    """Make the chardev, which is read, and let its peer flood it within the block."""
    peer = come(qmp, place)
    is_over = threading.Event()
    thread = threading.Thread(target=flood, args=(peer, is_over))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        peer.close()


def flood(peer: Peer, is_over: threading.Event) -> None:
    """Send until *is_over*."""
    with contextlib.suppress(OSError):  # it was disconnected
        while not is_over.is_set():
            try:
                peer.send()
            except BlockingIOError:
                peer.wait(WAIT)


def ask(qmp: Qmp, seconds: float) -> list[float]:
    """Make round trips for *seconds*; returns the seconds of each."""
    times = []
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        qmp("query-version")
        times.append(time.monotonic() - begin)
        time.sleep(PAUSE)
    return times


def come(qmp: Qmp, place: Place) -> Peer:
    """Make the chardev, which is read, and let its peer come."""
    for id, options in place.bases.items():
        _add(qmp, id, options)
    if (creds := place.creds) is not None:
        known = {"dir": creds.dir, "endpoint": creds.endpoint, "verify-peer": creds.verify_peer}
        assert qmp("object-add", **{"qom-type": "tls-creds-x509", "id": "creds", **known}) == {}
    coming = threading.Thread(target=lambda: peers.append(place.come()))
    peers: list[Peer] = []
    if getattr(place.options, "server", True):
        _add(qmp, "flooded", place.options)
        coming.start()
    else:
        coming.start()
        _add(qmp, "flooded", place.options)
    coming.join()
    assert qmp("device_add", driver="discard", id="discard", chardev="flooded") == {}
    return peers[0]


def leave(qmp: Qmp, place: Place) -> None:
    """Undo `come`."""
    _do(qmp, "device_del", "discard")
    for id in ("flooded", *place.bases):
        _do(qmp, "chardev-remove", id)
    if place.creds is not None:
        _do(qmp, "object-del", "creds")


def _add(qmp: Qmp, id: str, options: BackendOptions) -> None:
    answer = qmp("chardev-add", id=id, backend=unstructure(options, BACKEND))
    assert isinstance(answer, dict), answer


def _do(qmp: Qmp, command: str, id: str) -> None:
    for _ in range(TRIES):
        if (answer := qmp(command, id=id)) == {}:
            return
        time.sleep(PAUSE)
    raise AssertionError(f"{command} {id}: {answer}")
