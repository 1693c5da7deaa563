"""Random histories of a crowd, compared with a simple model.

The model says who is there, who may type, what each has to have seen, and what the device has got.

With the environment variable TRIO_CHARDEV_EXAMPLES=N other histories are tried, N of them.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, Literal

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_chardev as tc
from tests.places import come_by_descriptor
from trio_chardev.backends.console.client import Client
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.options import Manner
from trio_chardev.devices.listener import ListenerOptions
from trio_chardev.errors import OptionsError

EXAMPLES = int(os.environ.get("TRIO_CHARDEV_EXAMPLES", "0"))
KICKED = Goodbye("kicked", "kicked")
NAME = f"machine-{os.getpid()}"
Write = Literal["all", "first", "one"]

who = st.integers(0, 5)
writes = st.sampled_from(["all", "first", "one"])
data = st.binary(min_size=1, max_size=6)
steps = st.one_of(
    *[st.tuples(st.just("come"), st.sampled_from(["write", "read-only"]), st.booleans())] * 2,
    st.tuples(st.just("come_in"), st.sampled_from(["a", "b"])),
    *[st.tuples(st.just("type"), who, data)] * 3,
    *[st.tuples(st.just("print"), data)] * 2,
    st.tuples(st.just("leave"), who),
    st.tuples(st.just("end"), who),
    st.tuples(st.just("kick"), who),
    st.tuples(st.just("give"), who),
    st.tuples(st.just("change"), writes),
    st.tuples(st.just("unlisten"), st.sampled_from(["a", "b"])),
)


@attrs.define(eq=False)
class Person:
    """A client, and what it must have seen."""

    end: socket.socket
    client: Client
    can_type: bool
    begins_at: int
    listener: str | None = None
    seen: bytes = b""

    def look(self) -> bool:
        """Read what is there; is it let go?"""
        with suppress(BlockingIOError, ConnectionResetError):
            while piece := self.end.recv(4096):
                self.seen += piece
            return True
        return False


@attrs.define(eq=False)
class Machine:
    """Does the steps, to the console and to the model."""

    registry: tc.Registry
    write: Write
    people: list[Person] = attrs.Factory(list)
    gone: list[Person] = attrs.Factory(list)
    writer: Person | None = None
    printed: bytes = b""
    typed: bytes = b""
    got: bytes = b""
    device: tc.Frontend = attrs.field(init=False)

    async def start(self) -> None:
        await self.registry.add("users", tc.ConsoleOptions(history=1 << 16, write=self.write))
        self.device = self.registry["users"].attach(be_change=tc.stateless, on_receive=self.take)

    def take(self, data: bytes) -> int:
        self.got += data
        return len(data)

    @property
    def console(self) -> ConsoleBackend:
        backend = self.registry["users"].backend
        assert isinstance(backend, ConsoleBackend)
        return backend

    # ------------------------------------------------------------ the model

    def settle(self) -> None:
        if self.write == "all":
            self.writer = None
        elif self.write == "first" and self.writer is None:
            self.writer = next((p for p in self.people if p.can_type), None)

    def may_type(self, person: Person) -> bool:
        if not person.can_type:
            return False
        if self.write == "one" and self.writer is None:
            self.writer = person
        return self.write == "all" or person is self.writer

    def lets_go(self, person: Person) -> None:
        self.people.remove(person)
        self.gone.append(person)
        if self.writer is person:
            self.writer = None
        self.settle()

    def person(self, number: int) -> Person | None:
        return self.people[number % len(self.people)] if self.people else None

    # ------------------------------------------------------------ the steps

    async def come(self, role: Any, replay: bool) -> None:
        manner = Manner(role=role, replay="on" if replay else "off")
        stream = come_by_descriptor(self.console, manner)
        self.add(stream.socket._sock, role == "write", 0 if replay else len(self.printed))  # type: ignore[attr-defined]

    def add(
        self, end: socket.socket, can_type: bool, begins_at: int, listener: str | None = None
    ) -> None:
        client = self.console.crowd.clients[max(self.console.crowd.clients)]
        self.people.append(Person(end, client, can_type, begins_at, listener))
        self.settle()

    async def come_in(self, id: str) -> None:
        """By a listener, which is made if it is not there; those of "b" may only read."""
        name = f"{NAME}-{id}"
        if id not in self.registry.devices:
            options = ListenerOptions(
                id=id, console="users", path=name, abstract=True, read_only=id == "b"
            )
            await self.registry.devices.open(options)
        end = socket.socket(socket.AF_UNIX)
        end.setblocking(False)
        end.connect(f"\0{name}")
        await wait_all_tasks_blocked()
        self.add(end, id != "b", 0, id)

    async def type(self, number: int, data: bytes) -> None:
        if (person := self.person(number)) is not None:
            with suppress(BrokenPipeError):  # he has ended it
                person.end.send(data)
                if self.may_type(person):
                    self.typed += data

    async def print(self, data: bytes) -> None:
        await self.device.send_all(data)
        self.printed += data

    async def leave(self, number: int) -> None:
        if (person := self.person(number)) is not None:
            person.look()
            person.end.shutdown(socket.SHUT_RDWR)
            self.lets_go(person)

    async def end(self, number: int) -> None:
        if (person := self.person(number)) is not None:
            person.end.shutdown(socket.SHUT_WR)
            person.can_type = False
            if self.writer is person:
                self.writer = None
            self.settle()

    async def kick(self, number: int) -> None:
        if (person := self.person(number)) is not None:
            self.console.crowd.remove(person.client, KICKED)
            self.lets_go(person)

    async def give(self, number: int) -> None:
        if (person := self.person(number)) is None:
            return
        if self.write == "all" or not person.can_type:
            with pytest.raises(OptionsError):
                self.console.crowd.keyboard.give_write(person.client)
        else:
            self.console.crowd.keyboard.give_write(person.client)
            self.writer = person

    async def change(self, write: Write) -> None:
        await self.registry.change("users", tc.ConsoleOptions(history=1 << 16, write=write))
        self.write = write
        self.settle()

    async def unlisten(self, id: str) -> None:
        if id in self.registry.devices:
            await self.registry.devices.remove(id)
            for person in [p for p in self.people if p.listener == id]:
                self.lets_go(person)

    # ------------------------------------------------------------ the comparison

    async def do(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        await wait_all_tasks_blocked()
        crowd = self.console.crowd
        for person in self.people:
            assert not person.look()
            assert person.seen == self.printed[person.begins_at :]
            assert crowd.keyboard.may_type(person.client) == (
                person.can_type and (self.write == "all" or self.writer is person)
            )
        assert [person.client for person in self.people] == list(crowd)
        assert crowd.keyboard.writer is (None if self.writer is None else self.writer.client)
        assert self.got == self.typed
        assert crowd.history.end == len(self.printed)
        for person in self.gone:
            person.look()
            assert self.printed[person.begins_at :].startswith(person.seen)

    def close(self) -> None:
        for person in (*self.people, *self.gone):
            person.end.close()


@given(writes, st.lists(steps, max_size=25))
@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES)
def test_a_crowd_does_as_the_model(write: Write, history: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        async with tc.open_registry() as registry:
            machine = Machine(registry, write)
            try:
                await machine.start()
                for name, *arguments in history:
                    await machine.do(name, *arguments)
            finally:
                machine.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))
