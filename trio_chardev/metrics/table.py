"""The table of metrics: names, kinds, help and where each value comes from. Prometheus's names.

A count has a name that ends with ``_total``. A time is in seconds since 1970, and missing while
there is none, so that what is alerted on is ``time() - NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, Literal, get_args, get_type_hints

import attrs

from trio_chardev.metrics.rows import Rows
from trio_chardev.qmp.commands.stats import ChardevStats
from trio_chardev.version import __version__

PREFIX: Final = "trio_chardev_"
STATES: Final[tuple[str, ...]] = get_args(get_type_hints(ChardevStats)["state"])

Labelled = tuple[tuple[str, ...], float]
"""The values of the labels, and the value."""


@attrs.frozen(kw_only=True)
class Metric:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    about: Literal["chardevs", "consoles", "clients", "bridges", "directions", "service"]
    """What there is a sample of each: a list of `Rows`."""
    labels: tuple[str, ...]
    samples: Callable[[Any], Iterator[Labelled]]
    """Gives the samples of one row."""

    def rows(self, rows: Rows) -> Sequence[Any]:
        """The rows that it is about."""
        return (None,) if self.about == "service" else getattr(rows, self.about)


def _number(row: Any, name: str, labels: Callable[[Any], tuple[str, ...]]) -> Iterator[Labelled]:
    value = attrgetter(name)(row)
    if value is not None:
        yield labels(row), float(value)


def _of_id(row: Any) -> tuple[str, ...]:
    return (row.id,)


def _of_client(row: Any) -> tuple[str, ...]:
    return row.id, str(row.client)


def _of_direction(row: Any) -> tuple[str, ...]:
    return row.id, row.direction


def _states(row: ChardevStats) -> Iterator[Labelled]:
    for state in STATES:
        yield (row.id, state), float(state == row.state)


_LABELS: Final[dict[str, tuple[tuple[str, ...], Callable[[Any], tuple[str, ...]]]]] = {
    "chardevs": (("id",), _of_id),
    "consoles": (("id",), _of_id),
    "bridges": (("id",), _of_id),
    "clients": (("id", "client"), _of_client),
    "directions": (("id", "direction"), _of_direction),
}

_PLAIN: Final[tuple[tuple[Any, str, str, str], ...]] = (
    # of each chardev
    ("chardevs", "since", "state_changed_timestamp_seconds", "When somebody came to the other end, or nobody was left."),
    ("chardevs", "received", "received_bytes_total", "Bytes that have come from the other end."),
    ("chardevs", "sent", "sent_bytes_total", "Bytes that the other end was sent."),
    ("chardevs", "lost", "lost_bytes_total", "Bytes that a hub did not send, as the chardev was too slow or failed."),
    ("chardevs", "queued", "queued_bytes", "Bytes that have come and the user has not taken."),
    ("chardevs", "unsent", "unsent_bytes", "Bytes that a change has carried over and the other end has not taken."),
    ("chardevs", "blocked_since", "blocked_since_timestamp_seconds", "Since when the other end takes nothing though somebody waits to send; missing while it does."),
    ("chardevs", "connects", "connects_total", "How often somebody has come to the other end, by a change too."),
    ("chardevs", "failures", "failures_total", "How often an attempt to reach the other end has failed, or a backend has ended by itself."),
    ("chardevs", "changes", "changes_total", "How often the backend was replaced."),
    ("chardevs", "failed_changes", "failed_changes_total", "How often the backend could not be replaced."),
    ("chardevs", "paused", "paused_seconds_total", "Seconds in which changes have let nothing pass."),
    ("chardevs", "last_pause", "last_pause_seconds", "Those of the last change; missing before the first."),
    # of each console
    ("consoles", "end", "console_printed_bytes_total", "Bytes that the console has ever printed."),
    ("consoles", "last_output", "console_last_output_timestamp_seconds", "When it has printed something last; missing if that is not known."),
    ("consoles", "clients", "console_clients", "Clients that are there."),
    ("consoles", "attached", "console_attached_total", "Clients that have ever come."),
    ("consoles", "refused", "console_refused_total", "Clients that were not let in, as the console was full."),
    ("consoles", "let_go", "console_let_go_total", "Clients that were let go rather than leave: kicked, too slow, idle and so on."),
    ("consoles", "sent", "console_sent_bytes_total", "Bytes of the output that clients were sent, those who have left too."),
    ("consoles", "received", "console_received_bytes_total", "Bytes that have come from clients."),
    ("consoles", "skipped", "console_skipped_bytes_total", "Bytes that clients have not got because they were too slow."),
    ("consoles", "queued", "console_queued_bytes", "Bytes that are still to be sent to clients."),
    ("consoles", "blocked", "console_blocked_clients", "Clients that take nothing."),
    ("consoles", "blocked_since", "console_blocked_since_timestamp_seconds", "Since when the first of those does; missing while there is none."),
    # of each client, if that is wanted
    ("clients", "since", "client_attached_timestamp_seconds", "When the client came."),
    ("clients", "sent", "client_sent_bytes_total", "Bytes of the output that it was sent."),
    ("clients", "received", "client_received_bytes_total", "Bytes that have come from it."),
    ("clients", "skipped", "client_skipped_bytes_total", "Bytes that it has not got because it was too slow."),
    ("clients", "queued", "client_queued_bytes", "Bytes that are still to be sent to it."),
    ("clients", "blocked_since", "client_blocked_since_timestamp_seconds", "Since when it takes nothing; missing while it does."),
    # of each direction of a bridge
    ("directions", "flow.bytes", "bridge_passed_bytes_total", "Bytes that have reached the other side."),
    ("directions", "flow.dropped", "bridge_dropped_bytes_total", "Bytes that were dropped, because nobody was at the other side."),
    ("directions", "flow.failures", "bridge_failures_total", "How often something could not be done to the other side, though somebody was there."),
    ("directions", "flow.queued", "bridge_queued_bytes", "Bytes that have come and are still to be passed on."),
    ("directions", "flow.blocked_since", "bridge_blocked_since_timestamp_seconds", "Since when the other side takes nothing; missing while it does."),
)  # fmt: skip
"""What a metric is about, the attribute, the name after `PREFIX`, and what it says."""


def _plain(about: Any, attribute: str, name: str, text: str) -> Metric:
    labels, label_values = _LABELS[about]
    return Metric(
        name=PREFIX + name,
        kind="counter" if name.endswith("_total") else "gauge",
        help=text,
        about=about,
        labels=labels,
        samples=lambda row: _number(row, attribute, label_values),
    )


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        name=f"{PREFIX}build_info",
        kind="gauge",
        help="Always 1; the label says which version it is.",
        about="service",
        labels=("version",),
        samples=lambda row: iter([((__version__,), 1.0)]),
    ),
    Metric(
        name=f"{PREFIX}info",
        kind="gauge",
        help="Always 1; the label says of which kind the chardev is now.",
        about="chardevs",
        labels=("id", "kind"),
        samples=lambda row: iter([((row.id, row.kind), 1.0)]),
    ),
    Metric(
        name=f"{PREFIX}state",
        kind="gauge",
        help="1 for the state that the chardev is in, 0 for the others.",
        about="chardevs",
        labels=("id", "state"),
        samples=_states,
    ),
    Metric(
        name=f"{PREFIX}last_change_failed",
        kind="gauge",
        help="1 if the last change has failed; query-chardev-stats says why.",
        about="chardevs",
        labels=("id",),
        samples=lambda row: iter([((row.id,), float(row.change_error is not None))]),
    ),
    Metric(
        name=f"{PREFIX}bridge_open",
        kind="gauge",
        help="1 if somebody is at both sides of the bridge.",
        about="bridges",
        labels=("id",),
        samples=lambda row: iter([((row.id,), float(row.state == "open"))]),
    ),
    *(_plain(*row) for row in _PLAIN),
)
"""All metrics, in the order of the page."""
