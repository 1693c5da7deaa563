"""Which users get bytes and which get events, with one user or several."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import Handlers
from trio_chardev.core.inbox import INBOX_CAPACITY, Inbox
from trio_chardev.core.outbox import Outbox
from trio_chardev.core.users import Users
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import FakeFrontend

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED
MUX_IN, MUX_OUT = Event.MUX_IN, Event.MUX_OUT


def come(users: Users[Frontend], user: FakeFrontend, *, is_open: bool = False) -> Inbox[Frontend]:
    """*user* becomes one of the people."""
    inbox = users.vacant()
    handlers = Handlers(on_event=user.on_event, on_receive=user.on_receive)
    frontend = Frontend(Outbox("x"), inbox, lambda frontend: None, handlers)
    users.attach(inbox, frontend, is_open=is_open)
    return inbox


@pytest.fixture
def users() -> Users[Frontend]:
    return Users()


@pytest.fixture
def people() -> list[FakeFrontend]:
    return [FakeFrontend(), FakeFrontend()]


def test_without_a_user_bytes_are_kept_and_events_are_not(users: Users[Frontend]) -> None:
    users.data(b"kept")
    users.event(BREAK)
    assert users.frontends == []
    assert users.room == INBOX_CAPACITY - 4
    user = FakeFrontend()
    come(users, user, is_open=True)
    assert user.seen == [OPENED, b"kept"]


def test_the_first_user_takes_the_delivery_that_is_there_and_others_get_their_own(
    users: Users[Frontend], people: list[FakeFrontend]
) -> None:
    first, second = (come(users, user) for user in people)
    assert users.inboxes == [first, second]
    assert [inbox.frontend for inbox in users.inboxes] == users.frontends
    assert users.focus is first


def test_bytes_are_for_the_focus_and_events_for_all(
    users: Users[Frontend], people: list[FakeFrontend]
) -> None:
    _, second = (come(users, user) for user in people)
    users.data(b"a")
    users.set_focus(second)
    users.set_focus(second)
    users.data(b"b")
    users.event(BREAK)
    assert people[0].seen == [b"a", MUX_OUT, BREAK]
    assert people[1].seen == [MUX_IN, b"b", BREAK]


def test_a_new_user_drops_in_as_the_change_under_way_has_the_others(
    users: Users[Frontend], people: list[FakeFrontend]
) -> None:
    come(users, people[0])
    users.hold(closed=True)
    assert users.is_muted
    second = come(users, people[1], is_open=True)
    users.set_focus(second)
    users.data(b"later")
    assert people[0].seen == [CLOSED]
    assert people[1].seen == []
    users.release(is_open=True)
    assert not users.is_muted
    assert people[0].seen == [CLOSED, MUX_OUT, OPENED]
    assert people[1].seen == [MUX_IN, b"later", OPENED]


def test_with_the_focused_goes_what_it_has_not_read(
    users: Users[Frontend], people: list[FakeFrontend]
) -> None:
    people[1].appetite = 0
    first, second = (come(users, user) for user in people)
    users.set_focus(second)
    users.data(b"unread")
    users.detach(second)
    assert users.focus is first
    assert users.room == INBOX_CAPACITY
    assert people[0].seen == [MUX_OUT, MUX_IN]
    assert people[1].seen == [MUX_IN]


def test_the_last_leaves_what_it_has_not_read_to_the_next(
    users: Users[Frontend], people: list[FakeFrontend]
) -> None:
    people[0].appetite = 0
    first = come(users, people[0])
    users.data(b"unread")
    users.detach(first)
    assert users.inboxes == [first]
    assert come(users, people[1]) is first
    assert people[1].seen == [b"unread"]


def test_one_may_leave_while_all_are_told(users: Users[Frontend]) -> None:
    class Jealous(FakeFrontend):
        def on_event(self, event: BackendEvent) -> None:
            super().on_event(event)
            if event is BREAK:
                users.detach(second)

    jealous, other = Jealous(), FakeFrontend()
    come(users, jealous)
    second = come(users, other)
    users.set_focus(second)
    users.event(BREAK)
    assert jealous.events == [MUX_OUT, BREAK, MUX_IN]
    assert other.events == [MUX_IN]


@pytest.mark.parametrize("how", ["it reads", "it leaves", "another gets the focus"])
async def test_who_waits_for_room_is_woken_when_there_is_some(
    how: str, users: Users[Frontend]
) -> None:
    people = [FakeFrontend(), FakeFrontend(appetite=0)]
    first, second = (come(users, user) for user in people)
    users.set_focus(second)
    users.data(bytes(INBOX_CAPACITY))
    assert users.room == 0
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(users.wait_room)
            await wait_all_tasks_blocked()
            match how:
                case "it reads":
                    second.take(1)
                case "it leaves":
                    users.detach(second)
                case _:
                    users.set_focus(first)
    assert users.room > 0


async def test_all_readers_look_again(users: Users[Frontend], people: list[FakeFrontend]) -> None:
    inboxes = [come(users, user) for user in people]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for inbox in inboxes:
                nursery.start_soon(inbox.queue.wait_item)
            await wait_all_tasks_blocked()
            users.wake_readers()
