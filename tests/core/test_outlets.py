"""Who gets bytes and who gets events, with one user or several."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.delivery import INBOUND_CAPACITY, Delivery
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import Handlers
from trio_chardev.core.outbound import Outbound
from trio_chardev.core.outlets import Outlets
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import FakeFrontend

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED
MUX_IN, MUX_OUT = Event.MUX_IN, Event.MUX_OUT


def come(
    outlets: Outlets[Frontend], user: FakeFrontend, *, is_open: bool = False
) -> Delivery[Frontend]:
    """*user* becomes one of the users."""
    delivery = outlets.vacant()
    handlers = Handlers(on_event=user.on_event, on_receive=user.on_receive)
    frontend = Frontend(Outbound("x"), delivery, lambda frontend: None, handlers)
    outlets.attach(delivery, frontend, is_open=is_open)
    return delivery


@pytest.fixture
def outlets() -> Outlets[Frontend]:
    return Outlets()


@pytest.fixture
def users() -> list[FakeFrontend]:
    return [FakeFrontend(), FakeFrontend()]


def test_without_a_user_bytes_are_kept_and_events_are_not(outlets: Outlets[Frontend]) -> None:
    outlets.data(b"kept")
    outlets.event(BREAK)
    assert outlets.frontends == []
    assert outlets.room == INBOUND_CAPACITY - 4
    user = FakeFrontend()
    come(outlets, user, is_open=True)
    assert user.seen == [OPENED, b"kept"]


def test_the_first_user_takes_the_delivery_that_is_there_and_others_get_their_own(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    first, second = (come(outlets, user) for user in users)
    assert outlets.deliveries == [first, second]
    assert [delivery.frontend for delivery in outlets.deliveries] == outlets.frontends
    assert outlets.focus is first


def test_bytes_are_for_the_focus_and_events_for_all(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    _, second = (come(outlets, user) for user in users)
    outlets.data(b"a")
    outlets.set_focus(second)
    outlets.set_focus(second)
    outlets.data(b"b")
    outlets.event(BREAK)
    assert users[0].seen == [b"a", MUX_OUT, BREAK]
    assert users[1].seen == [MUX_IN, b"b", BREAK]


def test_a_new_user_drops_in_as_the_change_under_way_has_the_others(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    come(outlets, users[0])
    outlets.hold(closed=True)
    assert outlets.is_muted
    second = come(outlets, users[1], is_open=True)
    outlets.set_focus(second)
    outlets.data(b"later")
    assert users[0].seen == [CLOSED]
    assert users[1].seen == []
    outlets.release(is_open=True)
    assert not outlets.is_muted
    assert users[0].seen == [CLOSED, MUX_OUT, OPENED]
    assert users[1].seen == [MUX_IN, b"later", OPENED]


def test_with_the_focused_goes_what_it_has_not_read(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    users[1].appetite = 0
    first, second = (come(outlets, user) for user in users)
    outlets.set_focus(second)
    outlets.data(b"unread")
    outlets.detach(second)
    assert outlets.focus is first
    assert outlets.room == INBOUND_CAPACITY
    assert users[0].seen == [MUX_OUT, MUX_IN]
    assert users[1].seen == [MUX_IN]


def test_the_last_leaves_what_it_has_not_read_to_the_next(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    users[0].appetite = 0
    first = come(outlets, users[0])
    outlets.data(b"unread")
    outlets.detach(first)
    assert outlets.deliveries == [first]
    assert come(outlets, users[1]) is first
    assert users[1].seen == [b"unread"]


def test_one_may_leave_while_all_are_told(outlets: Outlets[Frontend]) -> None:
    class Jealous(FakeFrontend):
        def on_event(self, event: BackendEvent) -> None:
            super().on_event(event)
            if event is BREAK:
                outlets.detach(second)

    jealous, other = Jealous(), FakeFrontend()
    come(outlets, jealous)
    second = come(outlets, other)
    outlets.set_focus(second)
    outlets.event(BREAK)
    assert jealous.events == [MUX_OUT, BREAK, MUX_IN]
    assert other.events == [MUX_IN]


@pytest.mark.parametrize("how", ["it reads", "it leaves", "another gets the focus"])
async def test_who_waits_for_room_is_woken_when_there_is_some(
    how: str, outlets: Outlets[Frontend]
) -> None:
    users = [FakeFrontend(), FakeFrontend(appetite=0)]
    first, second = (come(outlets, user) for user in users)
    outlets.set_focus(second)
    outlets.data(bytes(INBOUND_CAPACITY))
    assert outlets.room == 0
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlets.wait_room)
            await wait_all_tasks_blocked()
            match how:
                case "it reads":
                    second.take(1)
                case "it leaves":
                    outlets.detach(second)
                case _:
                    outlets.set_focus(first)
    assert outlets.room > 0


async def test_all_readers_look_again(
    outlets: Outlets[Frontend], users: list[FakeFrontend]
) -> None:
    deliveries = [come(outlets, user) for user in users]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for delivery in deliveries:
                nursery.start_soon(delivery.inbound.wait_item)
            await wait_all_tasks_blocked()
            outlets.wake_readers()
