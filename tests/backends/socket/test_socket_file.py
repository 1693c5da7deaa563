"""Socket files: what may be bound, what is removed, and how a long path is reached."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket import socket_file as module
from trio_chardev.backends.socket.socket_file import SocketFile
from trio_chardev.errors import BackendError


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def bound(path: Path, sock: socket.socket) -> SocketFile:
    file = SocketFile(os.fsencode(path))
    file.bind(sock)
    sock.listen()
    return file


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        return client.connect_ex(os.fsencode(path)) == 0


def test_a_free_path_is_bound_itself_and_unlinked(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    file = bound(path, sock)
    assert sock.getsockname() == str(path)
    assert answers(path)
    file.unlink()
    assert os.listdir(tmp_path) == []
    file.unlink()


def test_a_folder_is_refused_in_qemus_words(tmp_path: Path, sock: socket.socket) -> None:
    with pytest.raises(
        BackendError, match=rf"^Failed to unlink socket {tmp_path}: Is a directory$"
    ):
        bound(tmp_path, sock)


def test_a_socket_left_behind_is_replaced(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bound(path, sock)
    assert answers(path)


def test_a_live_socket_is_left_alone_and_gets_no_client_from_the_check(
    tmp_path: Path, sock: socket.socket
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        live.setblocking(False)
        with pytest.raises(BackendError) as caught:
            bound(path, sock)
        with pytest.raises(BlockingIOError):
            live.accept()
        assert answers(path)
    assert str(caught.value) == (
        f"Failed to bind socket to {path}: Address already in use (somebody listens there)"
    )


def test_a_live_datagram_socket_is_left_alone(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        live.bind(str(path))
        with pytest.raises(BackendError, match="somebody listens there"):
            bound(path, sock)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_not_a_socket_is_left_alone(tmp_path: Path, sock: socket.socket, kind: str) -> None:
    """QEMU unlinks a regular file."""
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BackendError, match=r"Address already in use \(what is there is not a sock"):
        bound(path, sock)
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("path", ["/nonexistent/s", "/dev/null/s"])
def test_a_path_that_can_not_be_is_the_kernels_error(path: str, sock: socket.socket) -> None:
    with pytest.raises(OSError, match=r"No such file or directory|Not a directory"):
        bound(Path(path), sock)


@pytest.mark.parametrize("size", [107, 108])
def test_paths_are_taken_up_to_108_bytes(tmp_path: Path, sock: socket.socket, size: int) -> None:
    """QEMU's limit, one more than bind(2) takes with a NUL behind."""
    path = tmp_path / ("s" * (size - len(str(tmp_path)) - 1))
    assert len(os.fsencode(path)) == size
    file = bound(path, sock)
    assert os.listdir(tmp_path) == [path.name]
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(BackendError, match="somebody"):
        bound(path, other)
    file.unlink()
    assert os.listdir(tmp_path) == []


def test_a_long_path_that_somebody_takes_meanwhile_is_not_renamed_over(
    tmp_path: Path, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SUN_PATH_SIZE", 20)
    path = tmp_path / "socket"
    bind = socket.socket.bind

    def bind_late(sock: socket.socket, address: bytes) -> None:
        bind(sock, address)
        path.write_text("precious")

    monkeypatch.setattr(socket.socket, "bind", bind_late)
    with pytest.raises(BackendError, match="somebody has taken it meanwhile"):
        bound(path, sock)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == [path.name]


def test_what_another_has_put_there_is_not_removed(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    file = bound(path, sock)
    path.unlink()
    path.write_text("precious")
    file.unlink()
    assert path.read_text() == "precious"


def test_it_is_where_its_name_leads_as_long_as_it_is_there(
    tmp_path: Path, sock: socket.socket
) -> None:
    path = tmp_path / "s"
    file = bound(path, sock)
    (tmp_path / "link").symlink_to(tmp_path)
    for other, is_there in {
        path: True,
        tmp_path / "link" / "s": True,
        tmp_path / "." / "s": True,
        tmp_path / "t": False,
    }.items():
        assert file.is_at(os.fsencode(other), EVERYWHERE) is is_there
    with pytest.raises(BackendError, match="outside of the sandbox"):
        file.is_at(os.fsencode(path), Sandbox(["/proc"]))
    os.link(path, tmp_path / "t")
    assert not file.is_at(os.fsencode(tmp_path / "t"), EVERYWHERE)
    path.unlink()
    assert not file.is_at(os.fsencode(path), EVERYWHERE)


def test_it_gets_its_permissions_only_where_it_is_still_ours(
    tmp_path: Path, sock: socket.socket
) -> None:
    path = tmp_path / "s"
    file = bound(path, sock)
    file.restrict(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.touch(0o644)
    mode = path.stat().st_mode
    file.restrict(0o600)
    assert path.stat().st_mode == mode
    file.unlink()
    file.restrict(0o600)
    assert path.stat().st_mode == mode
