"""Makes the page of metrics, by prometheus-client, which is imported with this module only.

With a thousand chardevs the page takes a tenth of a second. A thread would hold the interpreter's lock
for 5 ms at a time, and who waits for the event loop would wait as long, again and again. So it is
made in the event loop, in pieces of less than a millisecond, between which other tasks run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trio_chardev.metrics.rows import Rows
from trio_chardev.metrics.table import METRICS, Metric
from trio_chardev.workers import run_in_worker

SAMPLES_AT_ONCE: Final = 50
_EOF: Final = b"# EOF\n"

Encode = Callable[[Collector], bytes]


@attrs.frozen
class Page:
    """A page as a client gets it."""

    content_type: str
    body: bytes


class Process(Collector):
    """This process, by metrics whose names are those of every program's: memory, descriptors ..."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)  # not the global one
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Family]:
        """Look at /proc."""
        return iter(self._registry.collect())


@attrs.frozen
class Part(Collector):
    """Some of the samples of a metric."""

    metric: Metric
    samples: list[tuple[tuple[str, ...], float]]

    def collect(self) -> Iterator[Family]:
        """Make the family of metrics, with these samples alone."""
        metric = self.metric
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = make(metric.name, metric.help, labels=metric.labels)
        for labels, value in self.samples:
            family.add_metric(labels, value)
        yield family


async def render(rows: Rows, accept: str) -> Page:
    """Make the page of *rows*, in the format that the header *accept* asks for.

    After some of it other tasks run. Raises NoThreadError.
    """
    encode, content_type = choose_encoder(accept)
    pieces = []
    for metric in METRICS:
        is_first = True
        for samples in _in_parts(metric, rows):
            text = encode(Part(metric, samples)).removesuffix(_EOF)
            pieces.append(text if is_first else _without_head(text))
            is_first = False
            await trio.lowlevel.checkpoint()
    process: bytes = await run_in_worker(_encode_process, encode)
    pieces.append(process)
    return Page(content_type, b"".join(pieces))


def _in_parts(metric: Metric, rows: Rows) -> Iterator[list[tuple[tuple[str, ...], float]]]:
    """Give the samples of *metric*, some at a time; at least one part, so that the head is there."""
    part: list[Any] = []
    for row in metric.rows(rows):
        part += metric.samples(row)
        if len(part) >= SAMPLES_AT_ONCE:
            yield part
            part = []
    yield part


def _without_head(text: bytes) -> bytes:
    """Leave out the lines about the metric, which are on the page already."""
    while text.startswith(b"#"):
        _, _, text = text.partition(b"\n")
    return text


def _encode_process(encode: Encode) -> bytes:
    return encode(PROCESS)


PROCESS: Final = Process()
