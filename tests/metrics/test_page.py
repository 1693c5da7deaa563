"""docs/metrics.md, the alerts and the dashboard: they name what there is, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.peers import need
from trio_chardev.metrics.options import METRICS_HELP, MetricsOptions
from trio_chardev.metrics.rendering import PROCESS
from trio_chardev.metrics.table import METRICS, PREFIX

DOCS = Path(__file__).parent.parent.parent / "docs"
ALERTS, DASHBOARD = DOCS / "metrics" / "alerts.yml", DOCS / "metrics" / "dashboard.json"

OF_PROCESS = {sample.name for family in PROCESS.collect() for sample in family.samples}
KNOWN = {metric.name for metric in METRICS} | OF_PROCESS | {"up"}


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries(node: Any) -> Iterator[str]:
    """What the dashboard asks Prometheus."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from queries(value)
    elif isinstance(node, list):
        for item in node:
            yield from queries(item)


def names_in(expression: str) -> set[str]:
    """The metrics that *expression* names."""
    return set(re.findall(rf"\b(?:{PREFIX}|process_)\w+\b|\bup\b", expression))


def test_the_page_has_each_metric_with_its_labels_and_what_it_says() -> None:
    page = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(trio_chardev_\w+)` \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (metric.name, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS
    ]
    assert names_in(page) <= KNOWN


def test_the_page_has_each_option() -> None:
    page = (DOCS / "metrics.md").read_text()
    for name in MetricsOptions.__annotations__:
        if isinstance(MetricsOptions().__getattribute__(name), bool):
            assert f"`{name}=on`" in page
            assert f"{name}=on" in METRICS_HELP


def test_alerts_name_what_there_is_and_say_what_it_means() -> None:
    for rule in rules():
        assert names_in(rule["expr"]), rule["alert"]
        assert names_in(rule["expr"]) <= KNOWN
        assert rule["annotations"]["summary"]


def test_the_dashboard_names_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [query for query in queries(dashboard) if query != "prometheus"]
    for query in asked:
        assert names_in(query), query
        assert names_in(query) <= KNOWN
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_prometheus_takes_the_alerts() -> None:
    done = subprocess.run(
        [need("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    promtool = need("promtool")
    asked = [
        query
        for query in queries(json.loads(DASHBOARD.read_text()))
        if "(" in query or "{" in query
    ]
    made = [
        {"record": f"r:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(asked)
        if not query.startswith("label_values")
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "g", "rules": made}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SERIES = [
    ('trio_chardev_blocked_since_timestamp_seconds{id="a"}', "30x20", "ChardevBlocked"),
    ('trio_chardev_state{id="a",state="failed"}', "1x20", "ChardevFailed"),
    ('trio_chardev_last_change_failed{id="a"}', "1x20", "ChangeFailed"),
    ('trio_chardev_console_refused_total{id="a"}', "0+1x20", "ConsoleRefusesClients"),
    ('trio_chardev_console_refused_total{id="a"}', "7x20", None),
    ('trio_chardev_state{id="a",state="waiting"}', "1x20", None),
]


@pytest.mark.parametrize(("series", "values", "alert"), SERIES, ids=range(len(SERIES)))
def test_an_alert_comes_when_it_is_meant_to(
    series: str, values: str, alert: str | None, tmp_path: Path
) -> None:
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "15m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
    }
    one = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "promql_expr_test": [firing],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [one]}))
    done = subprocess.run(
        [need("promtool"), "test", "rules", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
