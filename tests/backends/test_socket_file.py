"""Socket files: what may be bound, what is removed, and how a long path is reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_chardev.backends.socket_file import SocketFile
from trio_chardev.errors import BackendError


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def bound(path: Path, sock: socket.socket, replaced: SocketFile | None = None) -> SocketFile:
    file = SocketFile(os.fsencode(path))
    file.choose_place(replaced)
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


def test_the_file_of_the_replaced_listener_stays_until_place(
    tmp_path: Path, sock: socket.socket
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old_sock:
        old = bound(path, old_sock)
        new = bound(path, sock, old)
        assert old.is_there
        assert len(os.listdir(tmp_path)) == 2
        new.place()
        assert new.is_there
        assert not old.is_there
        assert os.listdir(tmp_path) == ["s"]
        old.unlink()
    assert answers(path)
    new.unlink()
    assert os.listdir(tmp_path) == []


def test_binding_beside_works_in_a_folder_with_a_long_name(
    tmp_path: Path, sock: socket.socket
) -> None:
    """The place beside the path may be too long for bind(2) though the path is not."""
    folder = tmp_path / ("d" * (105 - len(str(tmp_path)) - 1))
    folder.mkdir()
    path = folder / "s"
    assert len(os.fsencode(path)) == 107
    with socket.socket(socket.AF_UNIX) as old_sock:
        new = bound(path, sock, bound(path, old_sock))
        new.place()
    assert answers(path)


def test_a_change_that_fails_leaves_the_replaced_file(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old_sock:
        new = bound(path, sock, bound(path, old_sock))
        new.unlink()
        assert os.listdir(tmp_path) == ["s"]
        assert answers(path)


def test_a_path_that_somebody_has_taken_meanwhile_is_not_renamed_over(
    tmp_path: Path, sock: socket.socket
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old_sock:
        new = bound(path, sock, bound(path, old_sock))
        path.unlink()
        path.write_text("precious")
        with pytest.raises(BackendError, match="somebody has taken it meanwhile"):
            new.place()
        new.unlink()
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["s"]


def test_a_path_that_was_removed_meanwhile_is_taken(tmp_path: Path, sock: socket.socket) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old_sock:
        new = bound(path, sock, bound(path, old_sock))
        path.unlink()
        new.place()
    assert answers(path)


def test_a_folder_that_went_away_is_an_error_in_qemus_words(
    tmp_path: Path, sock: socket.socket
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as old_sock:
        old = bound(folder / "s", old_sock)
        new = bound(folder / "s", sock, old)
        folder.rename(tmp_path / "e")
        with pytest.raises(BackendError, match=r"^Failed to bind socket to .*: No such file"):
            new.place()
