"""Every kind of backend keeps the contract of `trio_chardev.core.backend`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.places import MAKERS, at_once, connect_to, place_for
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.table import KINDS
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.events import Event
from trio_chardev.testing import Pair, check_backend


@pytest.mark.parametrize("name", MAKERS)
async def test_contract(name: str, tmp_path: Path) -> None:
    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        with place_for(name, tmp_path) as place:
            yield Pair(
                open=place.open,
                join=place.join,
                blocks=place.blocks,
                closes=place.closes,
                keeps=place.keeps,
                folder=place.folder,
            )

    await check_backend(open_pair)


def test_every_kind_has_a_place() -> None:
    needs_hardware = {"parallel"}
    assert {name.partition("-")[0] for name in MAKERS} == set(KINDS) - needs_hardware


# ---------------------------------------------------------------- the check finds what is wrong


class Faulty(SocketBackend):
    """Right in all but what a subclass makes of it."""


class IgnoresMaxBytes(Faulty):
    def receive_nowait(self, max_bytes: int) -> bytes:
        return super().receive_nowait(1 << 16)


class HoldsBytesOverACheckpoint(Faulty):
    _held = b""

    def receive_nowait(self, max_bytes: int) -> bytes:
        data, self._held = self._held[:max_bytes], self._held[max_bytes:]
        return data or super().receive_nowait(max_bytes)

    async def wait_readable(self) -> None:
        await super().wait_readable()
        data = super().receive_nowait(1 << 16)
        await trio.lowlevel.checkpoint()
        self._held = data


class SendsAndIsCancelled(Faulty):
    async def send_some(self, data: memoryview) -> int:
        sent = await super().send_some(data)
        await trio.lowlevel.checkpoint()
        return sent


class IsNeverStuck(Faulty):
    def send_nowait(self, data: memoryview) -> int:
        super().send_nowait(data)
        return len(data)


class SaysClosedTwice(Faulty):
    def set_open(self, is_open: bool) -> None:
        super().set_open(is_open)
        if not is_open:
            self._on_event(Event.CLOSED)


class SaysClosedTooEarly(Faulty):
    def receive_nowait(self, max_bytes: int) -> bytes:
        data = super().receive_nowait(1)
        if data == b"\xff":
            self.set_open(False)
        return data


class RaisesOSError(Faulty):
    def send_nowait(self, data: memoryview) -> int:
        try:
            return super().send_nowait(data)
        except BackendDisconnectedError:
            raise OSError from None


class LetsSendersHang(Faulty):
    async def wait_writable(self) -> None:
        try:
            await super().wait_writable()
        except BackendDisconnectedError:
            await trio.sleep_forever()


class KeepsADescriptor(Faulty):
    async def aclose(self) -> None:
        left_open.append(os.dup(0))
        await super().aclose()


left_open: list[int] = []


@pytest.mark.parametrize("faulty", Faulty.__subclasses__())
async def test_a_fault_is_found(faulty: type[Faulty], tmp_path: Path) -> None:
    options = SocketOptions(addr=UnixAddress(str(tmp_path / "socket")))

    @asynccontextmanager
    async def open_faulty(request: OpenRequest) -> AsyncIterator[Backend]:
        backend = faulty(request, options)
        try:
            await backend.listen(request)
            yield backend
        finally:
            await backend.aclose()  # noqa: ASYNC102 - it shields itself

    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        yield Pair(open=open_faulty, join=at_once(connect_to))

    try:
        with pytest.raises(Exception) as found:  # noqa: PT011 - of whatever type
            await check_backend(open_pair)
        assert found.value.__notes__[0].startswith("the rule: ")
    finally:
        while left_open:
            os.close(left_open.pop())


async def test_what_others_close_meanwhile_is_no_fault(tmp_path: Path) -> None:
    """Such as the garbage collector; only what is new counts as left open."""
    others = [os.dup(0) for _ in range(20)]
    try:

        @asynccontextmanager
        async def open_pair() -> AsyncIterator[Pair]:
            with place_for("null", tmp_path) as place:
                yield Pair(open=place.open, blocks=False)
            os.close(others.pop())

        await check_backend(open_pair)
    finally:
        for fd in others:
            os.close(fd)
