"""Reading pages of metrics, by prometheus-client's own parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""What Prometheus 2.42 accepts, but for what it likes less."""

Samples = dict[tuple[str, ...], float]
"""The name, then the values of the labels in the order of their names -> the value."""


def samples_of(content_type: str, body: bytes) -> Samples:
    is_openmetrics = content_type.startswith("application/openmetrics-text")
    read = read_openmetrics if is_openmetrics else read_text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read(body.decode())
        for sample in family.samples
    }
