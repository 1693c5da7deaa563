"""What a scenario acts on: a service, a user that stays, peers at the other end; and promises."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.faults.places import FaultsPlace, Maker
from tests.faults.service import PATIENCE, Service
from tests.soak.places import Peer, Site
from trio_chardev import QmpClient, QmpError, open_qmp_client
from trio_chardev.qmp.client.client import QmpConnectionError

LOOK_INTERVAL: Final = 0.002  # seconds
ACT_TIMEOUT: Final = PATIENCE  # seconds; for one command

_numbers = itertools.count()


class BrokenPromiseError(Exception):
    """A promise is broken."""


async def soon(condition: Callable[[], bool], what: str) -> None:
    """Wait until *condition* holds. Raises BrokenPromiseError, with *what* is not true."""
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing reports what happens elsewhere
            await trio.sleep(LOOK_INTERVAL)
        return
    raise BrokenPromiseError(what)


@attrs.define(eq=False)
class End:
    """One end of a conversation, with what it was sent and has sent."""

    peer: Peer
    sent: bytearray = attrs.Factory(bytearray)
    got: bytearray = attrs.Factory(bytearray)
    has_left: bool = False
    """Was it disconnected?"""
    why: str = "the end"
    """The reason, as it was reported to it."""

    async def run(self) -> None:
        """Receive until the end."""
        try:
            while data := await self.peer.receive():
                self.got += data
        except Exception as exc:  # such as a library's own, for a connection that has ended
            self.why = repr(exc)
        self.has_left = True

    async def send(self, data: bytes) -> None:
        """Send *data*, if it can."""
        if self.peer.can_send and not self.has_left:
            self.sent += data
            try:
                await self.peer.send(data)
            except Exception as exc:  # as above
                self.why = repr(exc)
                self.has_left = True


@attrs.define(eq=False)
class World:
    """One service, under trial."""

    folder: Path
    service: Service
    stdin: int
    nursery: trio.Nursery
    tls: ssl.SSLContext
    site: Site = attrs.field(init=False)
    user: End = attrs.field(init=False)
    ends: list[End] = attrs.Factory(list)
    """The ends that were at the other end of the chardev, in order."""
    marks: set[str] = attrs.Factory(set)
    """What has been done."""
    may_leave: bool = False
    """May what was made to fail cost a peer its connection?"""
    _met: list[Peer] = attrs.Factory(list)
    _made: list[FaultsPlace] = attrs.Factory(list)
    _leaving: trio.Event = attrs.Factory(trio.Event)
    _qmp: QmpClient | None = None

    # ------------------------------------------------------------ commands

    async def connect(self) -> None:
        """Connect to the service, and connect again the peers that need it."""
        self.leave()
        try:
            await self.site.qmp.execute("query-chardev")
        except (AttributeError, QmpConnectionError):
            self.site.qmp = await self._open_client()
        self._qmp = await self._open_client()

    async def _open_client(self) -> QmpClient:
        with trio.move_on_after(PATIENCE):
            while not (self.service.path.exists() or self.service.has_ended()):  # noqa: ASYNC110
                await trio.sleep(LOOK_INTERVAL)
            while not self.service.has_ended():
                with contextlib.suppress(QmpConnectionError):
                    client: QmpClient = await self.nursery.start(self._be_client)
                    return client
                await trio.sleep(LOOK_INTERVAL)
        raise BrokenPromiseError("the service does not answer")

    async def _be_client(self, *, task_status: trio.TaskStatus[QmpClient]) -> None:
        leaving = self._leaving = trio.Event()
        async with open_qmp_client(self.service.path) as qmp:
            task_status.started(qmp)
            await leaving.wait()

    def leave(self) -> None:
        """Disconnect from the service."""
        self._leaving.set()
        self._qmp = None

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Run *command*. Raises QmpError, or QmpConnectionError: whether it is done is not known."""
        if self._qmp is None:
            await self.connect()
        assert self._qmp is not None
        try:
            with trio.fail_after(ACT_TIMEOUT):
                return await self._qmp.execute(command, arguments)
        except QmpConnectionError:
            self.leave()
            raise
        except trio.TooSlowError:
            raise BrokenPromiseError(f"{command} is not answered") from None

    async def insist(self, command: str, **arguments: Any) -> Any:
        """Run *command*, which nothing may prevent any more."""
        try:
            return await self.ask(command, **arguments)
        except QmpError as exc:
            raise BrokenPromiseError(f"{command} is refused afterwards: {exc}") from exc
        except QmpConnectionError as exc:
            raise BrokenPromiseError(f"{command} ends the connection afterwards") from exc

    async def filenames(self) -> dict[str, str]:
        """Return what query-chardev shows."""
        rows = await self.insist("query-chardev")
        return {row["label"]: row["filename"] for row in rows}

    async def attempt(self, command: str, **arguments: Any) -> bool:
        """Run *command* while something fails; False if it was refused, or that is not known."""
        try:
            await self.ask(command, **arguments)
        except QmpError as exc:
            if "\n" in str(exc):
                raise BrokenPromiseError(f"an error of several lines: {exc}") from exc
            return False
        except QmpConnectionError:
            return False
        return True

    # ------------------------------------------------------------ ends

    def meet(self, peer: Peer) -> End:
        """Note that *peer* is there."""
        end = End(peer)
        self._met.append(peer)
        self.nursery.start_soon(end.run)
        return end

    def make(self, make: Maker) -> FaultsPlace:
        """Make a place, until the end."""
        self._made.append(made := make(self.site, self.stdin))
        return made

    async def aclose(self) -> None:
        """Close whatever is at the other ends."""
        self.leave()
        with trio.move_on_after(1):
            for peer in self._met:
                with contextlib.suppress(Exception):
                    await peer.aclose()
        for made in self._made:
            with contextlib.suppress(OSError):
                made.place.clean_up()

    async def meet_user(self) -> None:
        """Become the user of the chardev, by a bridge to a socket."""
        self.user = self.meet(Peer(await trio.open_unix_socket(str(self.folder / "user"))))

    async def join(self, where: FaultsPlace) -> bool:
        """Join the other end of *where*, which is in place; False if that can't be had."""
        try:
            with trio.fail_after(ACT_TIMEOUT):
                self.ends.append(self.meet(await where.place.join()))
        except (QmpConnectionError, BrokenPromiseError, trio.TooSlowError):
            return False
        except Exception:  # whatever a library raises
            return False
        return True

    async def talk(self, where: FaultsPlace, size: int = 20) -> None:
        """Send *size* bytes there and back, and wait for what has come."""
        end = self.ends[-1]
        text = b"<%d>" % next(_numbers)
        text += b"." * ((size if where.bulk else 20) - len(text))
        self.nursery.start_soon(self.user.send, text)
        self.nursery.start_soon(end.send, text)

        def is_over() -> bool:
            is_heard = self.user.got.endswith(text) or not end.peer.can_send
            is_left = self.user.has_left or end.has_left
            return is_left or (is_heard and end.got.endswith(text))

        await soon(
            is_over,
            f"the ends have {bytes(end.got[-40:])!r} and {bytes(self.user.got[-40:])!r}, "
            f"and not {text[:20]!r}",
        )

    async def check_bytes(self) -> None:
        """Check that nothing is lost or repeated, if nobody has left."""
        if self._has_somebody_left():
            return

        def down() -> bytes:
            return b"".join(bytes(end.got) for end in self.ends)

        await _same("the peers", down, lambda: bytes(self.user.sent))
        await _same("the user", lambda: bytes(self.user.got), self._sent_up)

    def _has_somebody_left(self) -> bool:
        """Has an end been disconnected? Raises BrokenPromiseError if nothing may cause that."""
        others = [end for end in self.ends if not end.peer.is_replaced]
        gone = [end for end in (self.user, *others) if end.has_left]
        if gone and not self.may_leave:
            who = ", ".join(f"{type(end.peer).__name__} ({end.why})" for end in gone)
            raise BrokenPromiseError(f"disconnected by what does not concern them: {who}")
        return bool(gone)

    def _sent_up(self) -> bytes:
        return b"".join(bytes(end.sent) for end in self.ends)

    async def check_ring(self, id: str) -> None:
        """Check that ring *id* of a hub, where others came later, has what the first one missed."""
        if self._has_somebody_left():
            return
        text = await self.insist("ringbuf-read", device=id, size=1 << 16)
        came = bytes(self.ends[0].got) + text.encode()
        await _same("the peers", lambda: came, lambda: bytes(self.user.sent))
        await _same("the user", lambda: bytes(self.user.got), self._sent_up)

    async def check_left(self, id: str) -> None:
        """Check that what chardev *id* had not received when it lost its user is left for an echo.

        Otherwise nothing is lost or repeated. *id* is the base of what was replaced.
        """
        if self._has_somebody_left():
            return
        await self.insist("device_add", driver="echo", id="next", chardev=id)
        *_, old, new = self.ends

        def is_whole() -> bool:
            left = self._sent_up().removeprefix(bytes(self.user.got))
            came = bytes(old.got).removesuffix(left) + bytes(new.got)
            is_there = self._sent_up() == self.user.got + left and old.got.endswith(left)
            return is_there and came == self.user.sent

        await soon(
            is_whole,
            f"of {self._sent_up()[-60:]!r} the user got {bytes(self.user.got[-60:])!r}, "
            f"and the echo {bytes(old.got[-60:])!r}",
        )


async def _same(to: str, got: Callable[[], bytes], sent: Callable[[], bytes]) -> None:
    try:
        await soon(lambda: got() == sent(), "")
    except BrokenPromiseError:
        what = f"bytes to {to} are lost or repeated: {got()[-60:]!r} of {sent()[-60:]!r}"
        raise BrokenPromiseError(what) from None
