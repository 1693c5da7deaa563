"""Who may type at a console, and what is read of it, without clients' connections."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.keyboard import MAX_QUEUED, Keyboard
from trio_chardev.backends.console.options import Manner, Role, Write
from trio_chardev.backends.socket.stack import plain_link
from trio_chardev.errors import OptionsError
from trio_chardev.events import BackendEvent, BreakState, WindowSize

SMALL, LARGE = WindowSize(80, 24), WindowSize(132, 43)
QUERY, ANSWER = b"\x1b[6n", b"\x1b[1;1R"


@attrs.define
class Crowd:
    """The people around a keyboard; `told` has what they were told, in order."""

    write: Write
    clients: list[Client] = attrs.Factory(list)
    told: list[object] = attrs.Factory(list)
    keyboard: Keyboard = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.keyboard = Keyboard("it", self.write, self)

    def come(self, role: Role = "write", size: WindowSize | None = None) -> Client:
        ours, theirs = socket.socketpair()
        with ours, theirs:  # nothing is sent
            newcomer = Newcomer(
                link=plain_link(theirs, "x"), who="x", manner=Manner(role=role), size=size
            )
        client = Client(len(self.clients) + 1, newcomer, 0, 0)
        self.clients.append(client)
        self.keyboard.client_came(client)
        return client

    def go(self, client: Client) -> None:
        client.has_ended = True
        self.keyboard.client_ends(client)

    def read(self) -> list[bytes | BackendEvent]:
        """Take all that is there."""
        items = []
        while (item := self.keyboard.take(100)) is not None:
            items.append(item)
        return items

    # ------------------------------------------------------------ for the keyboard

    def clients_in_order(self) -> Iterable[Client]:
        return self.clients

    def input_came(self) -> None:
        """Do nothing: it is read when a test wants it."""

    def writer_changed(self, writer: Client | None, *, is_told: bool) -> None:
        self.told.append((None if writer is None else writer.number, is_told))

    def refused(self, client: Client, writer: Client | None) -> None:
        self.told.append(f"{client.number} refused")


@contextmanager
def nothing_told(crowd: Crowd) -> Iterator[None]:
    before = list(crowd.told)
    yield
    assert crowd.told == before


# ---------------------------------------------------------------- who may type


async def test_with_all_the_right_can_not_be_given_whoever_it_is() -> None:
    crowd = Crowd("all")
    for client in (crowd.come(), crowd.come("read-only")):
        with pytest.raises(OptionsError, match=r"^at console 'it' all may write \(write=all\)$"):
            crowd.keyboard.give_write(client)
    assert crowd.told == []


async def test_who_may_only_read_is_not_given_the_right() -> None:
    crowd = Crowd("one")
    client = crowd.come("read-only")
    with pytest.raises(OptionsError, match="^client 1 may only read$"):
        crowd.keyboard.give_write(client)
    assert crowd.keyboard.writer is None


async def test_the_first_of_those_who_may_type_has_the_right_and_is_not_told_that() -> None:
    crowd = Crowd("first")
    crowd.come("read-only")
    one, two = crowd.come(), crowd.come()
    assert crowd.told == [(2, False)]
    assert [crowd.keyboard.may_type(client) for client in (one, two)] == [True, False]


async def test_when_the_writer_goes_the_next_has_the_right_and_is_told() -> None:
    crowd = Crowd("first")
    one, two = crowd.come(), crowd.come()
    crowd.told.clear()
    crowd.go(one)
    assert crowd.told == [(None, True), (2, True)]
    assert crowd.keyboard.writer is two


async def test_when_another_goes_the_writer_stays() -> None:
    crowd = Crowd("first")
    one, two = crowd.come(), crowd.come()
    with nothing_told(crowd):
        crowd.go(two)
    assert crowd.keyboard.writer is one


async def test_with_one_who_types_first_has_the_right_until_he_goes() -> None:
    crowd = Crowd("one")
    one, two = crowd.come(), crowd.come()
    assert crowd.keyboard.writer is None
    crowd.keyboard.typed(two, b"a")
    crowd.keyboard.typed(one, b"b")
    assert crowd.keyboard.writer is two
    assert crowd.told == [(2, False), "1 refused"]
    crowd.go(two)
    assert crowd.keyboard.writer is None
    crowd.keyboard.typed(one, b"c")
    assert crowd.read() == [b"a", b"c"]


async def test_who_is_given_the_right_is_told_and_no_longer_asks() -> None:
    crowd = Crowd("first")
    one, two = crowd.come(), crowd.come()
    crowd.keyboard.typed(two, b"x")
    assert two.asks
    crowd.told.clear()
    crowd.keyboard.give_write(two)
    assert (crowd.told, two.asks) == ([(2, True)], False)
    with nothing_told(crowd):
        crowd.keyboard.give_write(two)
    assert not crowd.keyboard.may_type(one)


@pytest.mark.parametrize(
    ("before", "after", "writer"),
    [("all", "first", 1), ("all", "one", None), ("first", "all", None), ("first", "one", 1)],
)
async def test_another_rule_is_told_when_that_is_wanted(
    before: Write, after: Write, writer: int | None
) -> None:
    crowd = Crowd(before)
    crowd.come()
    crowd.come()
    known = 1 if before == "first" else None
    with nothing_told(crowd):
        crowd.keyboard.obey(after)
    assert crowd.keyboard.write == after
    has_it = crowd.keyboard.writer
    assert (None if has_it is None else has_it.number) == writer
    crowd.told.clear()
    crowd.keyboard.tell_writer()
    assert crowd.told == ([] if writer == known else [(writer, True)])


# ---------------------------------------------------------------- breaks


async def test_a_break_ends_with_who_turned_it_on() -> None:
    crowd = Crowd("all")
    one, two = crowd.come(), crowd.come()
    crowd.keyboard.heard(one, BreakState(True))
    assert crowd.read() == [BreakState(True)]
    crowd.go(two)
    assert crowd.read() == []
    crowd.go(one)
    assert crowd.read() == [BreakState(False)]


async def test_a_break_ends_with_the_right_to_write() -> None:
    crowd = Crowd("first")
    one, two = crowd.come(), crowd.come()
    crowd.keyboard.heard(one, BreakState(True))
    crowd.keyboard.give_write(two)
    crowd.keyboard.heard(one, BreakState(True))
    assert crowd.read() == [BreakState(True), BreakState(False)]
    assert not one.has_break_on


async def test_who_has_the_right_and_is_given_it_keeps_his_break() -> None:
    crowd = Crowd("first")
    one = crowd.come()
    crowd.keyboard.heard(one, BreakState(True))
    crowd.keyboard.give_write(one)
    assert crowd.read() == [BreakState(True)]
    assert one.has_break_on


# ---------------------------------------------------------------- windows and answers


@pytest.mark.parametrize("write", ["all", "first"])
async def test_the_window_of_who_came_first_counts_until_another_types(write: Write) -> None:
    crowd = Crowd(write)
    crowd.come(size=SMALL)
    two = crowd.come(size=LARGE)
    assert crowd.read() == [SMALL]
    crowd.keyboard.typed(two, b"x")
    assert crowd.read() == ([LARGE, b"x"] if write == "all" else [])


@pytest.mark.parametrize("write", ["all", "first", "one"])
async def test_when_who_typed_goes_the_window_of_another_counts(write: Write) -> None:
    crowd = Crowd(write)
    one = crowd.come(size=SMALL)
    crowd.keyboard.typed(one, b"x")
    crowd.come(size=LARGE)
    crowd.read()
    crowd.go(one)
    assert crowd.keyboard.typist is crowd.clients[1]
    assert crowd.read() == [LARGE]


async def test_when_who_typed_goes_who_came_first_is_the_typist() -> None:
    crowd = Crowd("all")
    one, two, three = (crowd.come() for _ in range(3))
    crowd.keyboard.typed(three, b"x")
    crowd.go(two)
    assert crowd.keyboard.typist is three
    crowd.go(three)
    assert crowd.keyboard.typist is one


async def test_when_who_was_asked_goes_the_answers_of_the_typist_count() -> None:
    crowd = Crowd("all")
    one, two = crowd.come(), crowd.come()
    crowd.keyboard.note_printed(QUERY)
    crowd.keyboard.typed(two, ANSWER)
    assert crowd.read() == []
    crowd.go(one)
    crowd.keyboard.typed(two, ANSWER)
    assert crowd.read() == [ANSWER]


# ---------------------------------------------------------------- reading


async def test_what_was_typed_is_read_in_order_in_pieces() -> None:
    crowd = Crowd("all")
    one, two = crowd.come(), crowd.come()
    crowd.keyboard.typed(one, b"abcd")
    crowd.keyboard.typed(two, b"ef")
    assert (one.queued, two.queued) == (4, 2)
    assert crowd.keyboard.take(3) == b"abc"
    assert (one.queued, two.queued) == (1, 2)
    assert crowd.keyboard.has_input
    assert crowd.read() == [b"d", b"ef"]
    assert (one.queued, two.queued) == (0, 0)
    assert not crowd.keyboard.has_input


async def test_who_has_typed_too_much_goes_on_when_some_of_it_was_read() -> None:
    crowd = Crowd("all")
    one = crowd.come()
    crowd.keyboard.typed(one, bytes(MAX_QUEUED + 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.may_read.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert crowd.keyboard.take(1) is not None
        assert one.may_read
        assert crowd.keyboard.take(1) is not None
        assert not one.may_read
