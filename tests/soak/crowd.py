"""A console with a crowd: clients come, stop reading, type, are kicked and go, all the time.

The user's side of the bridge is a console here, which is changed to consoles with other options
while the device's side is changed as ever. The history is read by cursor meanwhile.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import trio
import trio_websocket

from tests.soak.console import PATIENCE, Console, LostOrRepeatedError, until
from tests.soak.places import Peer, TelnetPeer, backend, join_websocket
from tests.soak.watching import Printed, Typed, Typing, View
from trio_chardev import QmpError, open_qmp_client

MOST: Final = 12  # clients at the same time
HISTORIES: Final = (1 << 16, 1 << 18, 1 << 20)  # bytes
READ_SIZE: Final = 1 << 16  # bytes of the history at once
MARKS: Final = 5
LOOK_INTERVAL: Final = 0.003  # seconds

Row = dict[str, Any]


@attrs.frozen
class Way:
    """A listener, by which clients come."""

    name: str
    options: dict[str, Any]
    is_told: bool = False
    may_type: bool = True


TCP: Final = {"host": "127.0.0.1", "port": "0"}
WAYS: Final = (
    Way("unix", {}),
    Way("people", {"in-band": True}, is_told=True),
    Way("tcp", TCP),
    Way("telnet", {**TCP, "telnet": True}, is_told=True),
    Way("websocket", {**TCP, "websocket": True}, is_told=True),
    Way("watch", {"read-only": True, "in-band": True}, is_told=True, may_type=False),
)


@attrs.define(eq=False)
class Member:
    """A client."""

    number: int
    way: str
    peer: Peer
    view: View
    may_type: bool
    is_exact: bool = False
    skipped_before: int = 0
    """Bytes that were gone when it came, which it is told of at once."""
    typing: Typing | None = None
    typed: int = 0
    """Bytes that it has typed in all."""
    is_typing: bool = False
    has_ended: bool = False
    """Has it got the end?"""
    goes_on: trio.Event = attrs.Factory(trio.Event)
    """Set while it reads."""


@attrs.define(eq=False)
class Crowd(Console):
    """A console of a service, with its clients, bridged to a device that is changed."""

    _printed: Printed = attrs.field(init=False)
    _typed: Typed = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _members: dict[int, Member] = attrs.Factory(dict)
    _options: dict[str, Any] = attrs.Factory(dict)
    _open: set[str] = attrs.Factory(set)
    """The names of the ways that are open."""
    _seen: int = 0
    """Bytes that clients who are gone have seen."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._up = self._printed = Printed(f"{self.name}, printed", b"", is_paused=True)
        self._down = self._typed = Typed(f"{self.name}, typed", b"")

    @property
    def bytes_checked(self) -> int:
        seen = sum(member.view.seen for member in self._members.values())
        return self._printed.received + self._typed.total + self._seen + seen

    @property
    def _id(self) -> str:
        return f"{self.name}-user"

    # ------------------------------------------------------------ for the console's run

    def _user_side(self) -> Row:
        self._options = self._choose_options()
        return backend("console", **self._options)

    def _choose_options(self) -> dict[str, Any]:
        return {
            "history": self.chance.choice(HISTORIES),
            "write": self.chance.choice(("all", "all", "first", "one")),
            "notice": self.chance.random() < 0.5,
        }

    async def _join_user(self) -> None:
        for way in WAYS:
            await self._open_way(way)

    def _start_user(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        nursery.start_soon(self._follow)

    async def _part_user(self) -> None:
        for member in self._members.values():
            await member.peer.aclose()

    async def _take_down(self) -> None:
        for name in sorted(self._open):
            await self._execute("device_del", id=f"{self.name}-{name}")
        await super()._take_down()

    async def _follow(self) -> None:
        """Read the history by cursor."""
        cursor = 0
        async with open_qmp_client(self.site.service) as qmp:
            while True:
                wanted = {"id": self._id, "start": cursor, "max": READ_SIZE, "wait": 1.0}
                came = await qmp.execute("chardev-history", wanted, format="base64")
                if came["lost"] or came["start"] != cursor:
                    raise LostOrRepeatedError(f"{self._id}: from {cursor} on came {came}")
                cursor = came["next"]
                self._printed.check(base64.b64decode(came["data"]))

    # ------------------------------------------------------------ what is done

    async def _do_something(self) -> None:
        if self.chance.random() < 0.25:
            await super()._do_something()
            return
        actions = (
            *((self._come,) * 4 if len(self._members) < MOST else ()),
            *((self._leave, self._leave_at_once, self._kick, self._give) * bool(self._members)),
            *((self._stop_reading,) * 3),
            *(self._go_on, self._change_options, self._reopen, self._mark),
            self._compare,
        )
        action: Callable[[], Awaitable[None]] = self.chance.choice(actions)
        await action()
        name = action.__name__.strip("_").replace("_", " ")
        self.counts[f"crowds: {name}"] += 1
        await self._look()

    def _choose_member(self) -> Member:
        return self.chance.choice(list(self._members.values()))

    async def _rows(self) -> dict[int, Row]:
        return {row["client"]: row for row in await self._execute("query-clients", id=self._id)}

    async def _until(
        self, condition: Callable[[dict[int, Row]], bool], what: str
    ) -> dict[int, Row]:
        """Wait until query-clients gives what fulfils *condition*, which is *what*; return that."""
        deadline = trio.current_time() + PATIENCE
        while not condition(rows := await self._rows()):
            if trio.current_time() > deadline:
                raise LostOrRepeatedError(f"It is not so that {what}: {rows}")
            await trio.sleep(LOOK_INTERVAL)
        return rows

    # ------------------------------------------------------------ coming

    async def _come(self) -> None:
        if self.chance.random() < 0.3:
            await self._attach()
        elif self._open:
            names = sorted(self._open)
            name = self.chance.choice(names)
            await self._come_by(next(way for way in WAYS if way.name == name))

    async def _come_by(self, way: Way) -> Member:
        before = await self._rows()
        peer = await self._connect(way)
        rows = await self._until(lambda rows: bool(rows.keys() - before.keys()), f"{way} comes")
        (number,) = rows.keys() - before.keys()
        view = View(f"{self.name}, a client by {way.name}", way.is_told)
        member = Member(number, way.name, peer, view, way.may_type)
        self._start(member)
        return member

    async def _connect(self, way: Way) -> Peer:
        if "host" not in way.options:
            return Peer(await trio.open_unix_socket(self._path(way)))
        devices = await self._execute("query-devices")
        info = next(d for d in devices if d["id"] == f"{self.name}-{way.name}")
        port = int(info["address"].partition(",")[0].rpartition(":")[2])
        if "websocket" in way.options:
            return await join_websocket(self._nursery, port)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        if "telnet" not in way.options:
            return Peer(stream)
        await stream.send_all(b"\xff\xfb\x00\xff\xfd\x00")  # WILL BINARY, DO BINARY
        return TelnetPeer(stream)

    async def _attach(self, since: int | None = None) -> None:
        """Come by descriptor: as a person, a program, or one who counts."""
        manner = self.chance.choice(("person", "program", "exact"))
        replay = self.chance.choice(("on", "off", "100"))
        if since is None and self.chance.random() < 0.4:
            since = self.chance.randrange(self._printed.received + 1)
        more: dict[str, Any] = {"replay": replay} if since is None else {"since": since}
        if manner == "person":
            more |= {"cols": self.chance.randrange(20, 200), "rows": 25}
        more["exact"] = manner == "exact"
        # One who counts is let go as soon as he is too slow. The right to write would go on to another
        # then, whose bytes were refused until just now, and what he had typed would not come.
        able = manner != "exact" and self.chance.random() < 0.5
        more["role"] = "write" if able else "read-only"
        ours, theirs = socket.socketpair()
        with theirs:
            await self._pass_descriptor(theirs.fileno())
            came = await self.site.qmp.execute("chardev-attach", more, id=self._id, fd="crowd")
        ours.setblocking(False)
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        view = View(f"{self.name}, a {manner}", manner == "person", may_skip=manner == "program")
        view.position = came["cursor"]
        member = Member(came["client"], manner, peer, view, more["role"] == "write")
        member.is_exact = more["exact"]
        if since is not None:
            member.skipped_before = came["cursor"] - since
            if view.is_told:  # in a line that comes first
                view.position -= member.skipped_before
                member.skipped_before = 0
        self._start(member)

    async def _pass_descriptor(self, fd: int) -> None:
        """Pass it; the kernel drops it on its way while the service has no number for it."""
        while True:
            try:
                await self.site.qmp.execute("getfd", fdname="crowd", fds=[fd])
            except QmpError as exc:
                if "SCM_RIGHTS" not in str(exc):
                    raise
                self._starved("descriptors")
                await trio.sleep(0.05)
            else:
                return

    def _start(self, member: Member) -> None:
        member.goes_on.set()
        self._members[member.number] = member
        self._nursery.start_soon(self._watch, member)

    async def _watch(self, member: Member) -> None:
        """Read what comes to it."""
        while data := await member.peer.receive():
            member.view.feed(data)
            await member.goes_on.wait()
        member.has_ended = True

    # ------------------------------------------------------------ typing

    async def _type(self, member: Member, typing: Typing) -> None:
        """Type until that is cut."""
        while not typing.is_cut:
            await trio.sleep(self.chance.random() * 0.01)
            while not (typing.is_cut or (member.is_typing and self._typed.has_room)):
                await self._typed.moved.park()
            if typing.is_cut:
                return
            size = self.chance.randrange(1, 1 << self.chance.randrange(1, 13))
            data = self._typed.take_of(typing, size)
            member.typed += size
            self._typed.note_busy(1)
            try:
                await member.peer.send(data)
            except (
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                trio_websocket.ConnectionClosed,
            ):
                with trio.fail_after(PATIENCE):  # whoever has ended it knows
                    while not typing.is_cut:
                        await self._typed.moved.park()
            finally:
                self._typed.note_busy(-1)

    async def _look(self) -> None:
        """Look who is there, and who may type."""
        rows = await self._rows()
        for member in list(self._members.values()):
            if member.number in rows and member.has_ended:  # it was let go since
                await self._until(
                    partial(_is_gone, member.number),
                    f"{member.view.name} is gone, which has got the end",
                )
                del rows[member.number]
            if member.number not in rows:
                if not member.is_exact:
                    raise LostOrRepeatedError(f"{member.view.name} is gone, told {member.view}")
                await self._come_again(member)
        those_who_type = [
            m for number, m in self._members.items() if rows.get(number, {}).get("types")
        ]
        others = [m for m in self._members.values() if m not in those_who_type and m.typing]
        for member in others:  # all of them first: what one types is what others wait for
            self._cut(member)
        for member in those_who_type:
            if member.typing is None:
                self._begin(member)
        for member in others:
            await self._stop_typing(member)

    async def _come_again(self, member: Member) -> None:
        """Go on where one who counts was let go, as he was too slow."""
        member.goes_on.set()
        await until(lambda: member.has_ended)
        await self._forget(member)
        await self._attach(member.view.position)
        self.counts["crowds: too slow, and came again"] += 1

    def _begin(self, member: Member, *, is_needed: bool = False) -> None:
        typing = self._typed.begin(self.chance, is_needed=is_needed)
        if typing is not None:
            member.typing = typing
            member.is_typing = True
            self._nursery.start_soon(self._type, member, typing)

    async def _stop_typing(self, member: Member) -> None:
        """Note that it may not type any more, when what was on its way has gone nowhere."""
        number = member.number
        await self._until(
            lambda rows: number not in rows or rows[number]["received"] == member.typed,
            f"all is read of {member}",
        )
        await self._release(member)

    async def _pause(self, member: Member) -> None:
        """Have it type nothing for now, and wait until all has come."""
        member.is_typing = False
        typing = member.typing
        if typing is not None:
            await self._typed.until(lambda: typing.received == typing.sent)

    def _cut(self, member: Member) -> None:
        member.is_typing = False
        if member.typing is not None:
            self._typed.cut(member.typing)

    async def _release(self, member: Member) -> None:
        """Wait until what was cut has come as far as it does, and forget it."""
        typing, member.typing = member.typing, None
        if typing is not None:
            if typing.received < typing.sent:
                await self._pass_a_byte()
            self._typed.release(typing)

    async def _pass_a_byte(self) -> None:
        """Wait until something has come that was typed from now on."""
        other = await self._find_typist()
        goal = other.sent + 1
        await self._typed.until(lambda: other.received >= goal or other.is_cut)

    async def _find_typist(self) -> Typing:
        for member in self._members.values():
            if member.typing is not None and member.is_typing:
                return member.typing
        await self._open_way(WAYS[0])
        member = await self._come_by(WAYS[0])
        if self._options["write"] != "all":
            await self._execute("chardev-give-write", id=self._id, client=member.number)
        self._begin(member, is_needed=True)
        assert member.typing is not None
        return member.typing

    # ------------------------------------------------------------ leaving

    async def _leave(self) -> None:
        member = self._choose_member()
        await self._pause(member)
        await self._be_gone(member)

    async def _leave_at_once(self) -> None:
        member = self._choose_member()
        self._cut(member)
        await self._be_gone(member)

    async def _be_gone(self, member: Member) -> None:
        if member.typing is not None and not member.typing.is_cut:
            self._cut(member)
        if (
            not self._peer.can_send
        ):  # so nothing is printed, and a FIN says only that it types no more
            member.peer.reset()
        await member.peer.aclose()
        await self._until(lambda rows: member.number not in rows, f"{member} has left")
        await self._forget(member)

    async def _forget(self, member: Member) -> None:
        """Note that it is gone."""
        member.goes_on.set()
        del self._members[member.number]
        self._seen += member.view.seen
        if member.typing is not None and not member.typing.is_cut:
            self._cut(member)
        await member.peer.aclose()
        await self._release(member)

    async def _kick(self) -> None:
        member = self._choose_member()
        is_heard = member.view.is_told and member.goes_on.is_set()
        self._cut(member)
        try:
            await self._execute("chardev-kick", id=self._id, client=member.number, reason="soak")
        except QmpError:
            if not member.is_exact:
                raise
        await self._have_the_end(member, "kicked: soak" if is_heard else None)

    async def _have_the_end(self, member: Member, words: str | None) -> None:
        """Wait until it knows that it was let go, and check that it was told so."""
        member.goes_on.set()
        await until(lambda: member.has_ended)
        if words is not None:
            heard = "heard" if member.view.last_told == words else "cut off"
            self.counts[f"crowds: goodbyes {heard}"] += 1
        await self._forget(member)

    # ------------------------------------------------------------ what else happens to it

    async def _stop_reading(self) -> None:
        for member in self._members.values():
            if member.goes_on.is_set() and self.chance.random() < 0.3:
                member.goes_on = trio.Event()

    async def _go_on(self) -> None:
        for member in self._members.values():
            member.goes_on.set()

    async def _give(self) -> None:
        """Hand over the right to write."""
        able = [member for member in self._members.values() if member.may_type]
        if not able or self._options["write"] == "all":
            return
        if self.chance.random() < 0.5:
            for member in able:
                await self._pause(member)
        member = self.chance.choice(able)
        await self._execute("chardev-give-write", id=self._id, client=member.number)
        for member in able:
            member.is_typing = member.typing is not None
        self._typed.moved.unpark_all()

    async def _change_options(self) -> None:
        self._options = self._choose_options()
        console = backend("console", **self._options)
        await self._execute("chardev-change", id=self._id, backend=console)

    async def _reopen(self) -> None:
        """Close a way, and open it again now or later."""
        way = self.chance.choice(WAYS)
        if way.name in self._open:
            gone = [member for member in self._members.values() if member.way == way.name]
            for member in gone:
                self._cut(member)
            await self._execute("device_del", id=f"{self.name}-{way.name}")
            self._open.remove(way.name)
            for member in gone:
                await self._have_the_end(member, None)
        if self.chance.random() < 0.7:
            await self._open_way(way)

    def _path(self, way: Way) -> str:
        return str(self.site.folder / f"{self.name}-{way.name}")

    async def _open_way(self, way: Way) -> None:
        if way.name in self._open:
            return
        self._open.add(way.name)
        address = {} if "host" in way.options else {"path": self._path(way)}
        listener = {"driver": "listener", "id": f"{self.name}-{way.name}", "console": self._id}
        await self._execute("device_add", **listener, **address, **way.options)

    async def _mark(self) -> None:
        name = f"m{self.chance.randrange(MARKS)}"
        before = self._printed.received
        cursor = (await self._execute("chardev-mark", id=self._id, name=name))["cursor"]
        if not before <= cursor <= self._printed.sent:
            raise LostOrRepeatedError(f"{self._id}: {name} is at {cursor}, not from {before} on")

    async def _compare(self) -> None:
        """Have all see all that was printed, and compare what they have missed."""
        await self._go_on()
        await self._printed.settle()
        end = self._printed.sent
        for member in list(self._members.values()):
            try:
                await until(partial(_is_at, member, end))
            except trio.TooSlowError as exc:
                raise LostOrRepeatedError(f"{member.view} does not get to {end}") from exc
        rows = await self._rows()
        for member in self._members.values():
            skipped = member.view.skipped + member.skipped_before
            if (row := rows.get(member.number)) is not None and row["skipped"] != skipped:
                raise LostOrRepeatedError(f"{row}: {skipped} skipped, {member.view}")
        if self._peer.can_send:
            self._printed.resume()


def _is_gone(number: int, rows: dict[int, Row]) -> bool:
    return number not in rows


def _is_at(member: Member, end: int) -> bool:
    """Has it all up to *end*, or the end, or is not known where it is?"""
    return member.has_ended or member.view.position in (end, None)
