"""Helpers for testing backends and frontends, of this package or your own.

There are fakes with faults that can be switched on, a chardev to put them in, an injector of
cancellations, and the contract of backends as one check.
"""

from trio_chardev.testing.backend import (
    FakeBackend as FakeBackend,
    FakeLeaving as FakeLeaving,
    FakeLine as FakeLine,
    FakePeer as FakePeer,
)
from trio_chardev.testing.cancel import CancelAtStep as CancelAtStep
from trio_chardev.testing.contract import OpenPair as OpenPair, check_backend as check_backend
from trio_chardev.testing.device import (
    FakeDevice as FakeDevice,
    FakeOptions as FakeOptions,
    fake_opener as fake_opener,
)
from trio_chardev.testing.frontend import (
    FakeFrontend as FakeFrontend,
    open_chardev as open_chardev,
)
from trio_chardev.testing.pair import Join as Join, Pair as Pair
