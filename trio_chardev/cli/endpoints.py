"""The pages of metrics that `serve` has: made at the start, made anew by a reload."""

from __future__ import annotations

import logging

import attrs
import trio

from trio_chardev.cli.errors import saying
from trio_chardev.cli.inherited import Inherited
from trio_chardev.metrics.options import MetricsOptions
from trio_chardev.registry import Registry

log = logging.getLogger(__name__)


@attrs.define(eq=False, repr=False)
class _Running:
    has_begun: bool = False
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    over: trio.Event = attrs.Factory(trio.Event)


@attrs.define(eq=False, repr=False)
class Endpoints:
    """Those that are being served."""

    _registry: Registry
    _inherited: Inherited
    _nursery: trio.Nursery
    _running: dict[MetricsOptions, _Running] = attrs.Factory(dict)

    async def open(self, options: MetricsOptions, said: str) -> None:
        """Serve a page, which *said* has asked for. Raises ChardevError."""
        running = _Running()
        with saying(said):
            await self._nursery.start(self._run, options, running)
        running.has_begun = True
        self._running[options] = running

    async def _run(  # noqa: ASYNC128 - serve_metrics() calls started()
        self,
        options: MetricsOptions,
        running: _Running,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        from trio_chardev.metrics.endpoint import serve_metrics  # most services have none

        try:
            with running.scope:
                await serve_metrics(
                    self._registry, options, take_fd=self._inherited.take, task_status=task_status
                )
        except Exception:
            if not running.has_begun:  # which is told to who begins it
                raise
            log.exception("metrics are served no more")
        finally:
            running.over.set()

    async def close(self, options: MetricsOptions) -> None:
        """Serve it no more; nothing if it is not served."""
        running = self._running.pop(options, None)
        if running is not None:
            running.scope.cancel()
            await running.over.wait()
