"""``serve --metrics``: how it is said, and what a page that fails does."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_chardev as tc
from tests.cli.calls import Call
from trio_chardev.cli.endpoints import Endpoints
from trio_chardev.cli.inherited import Inherited
from trio_chardev.cli.options import ServeOptions
from trio_chardev.metrics import endpoint
from trio_chardev.metrics.options import METRICS_HELP, MetricsOptions


def parse(*metrics: str) -> list[MetricsOptions]:
    options = ServeOptions.parse([], [], [], None, print, metrics=metrics)
    return [page.options for page in options.metrics]


def test_it_may_be_given_several_times() -> None:
    assert [options.port for options in parse("9101", "9102")] == ["9101", "9102"]


@pytest.mark.parametrize(
    ("metrics", "error"),
    [
        (["9101", "127.0.0.1:9101"], "--metrics 127.0.0.1:9101: these metrics are there twice"),
        (["*:1"], "--metrics *:1: metrics at '*' need a loopback address, or insecure=on"),
    ],
)
def test_what_is_wrong_is_told_with_the_option(metrics: list[str], error: str) -> None:
    with pytest.raises(tc.OptionsError) as caught:
        parse(*metrics)
    assert str(caught.value) == error


def test_without_prometheus_client_it_is_an_error_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tc.OptionsError, match="--metrics 9101: metrics need prometheus-client: "):
        parse("9101")
    assert parse() == []


def test_its_help_lists_the_addresses(call: Call) -> None:
    assert call("serve", "--metrics", "help") == (0, METRICS_HELP + "\n", "")


async def test_a_page_that_ends_by_itself_is_told_and_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(*_: object, task_status: trio.TaskStatus[str], **options: Any) -> None:
        task_status.started("x")
        await trio.testing.wait_all_tasks_blocked()
        raise RuntimeError("broken")

    monkeypatch.setattr(endpoint, "serve_metrics", serve)
    options = MetricsOptions(path=str(tmp_path / "m"))
    async with tc.open_registry() as registry, trio.open_nursery() as nursery:
        endpoints = Endpoints(registry, Inherited(), nursery)
        await endpoints.open(options, "--metrics x")
        await trio.testing.wait_all_tasks_blocked()
        await endpoints.close(options)
        await endpoints.close(options)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "metrics are served no more"
