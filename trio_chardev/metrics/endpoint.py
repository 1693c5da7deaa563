"""Serves the page of metrics, at one address, by HTTP.

Everything has a bound: a connection's time, a request's size, and how many are there. One page is made
at a time, and those who have come meanwhile get the next, all the same one.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from trio_chardev.backends.socket.addresses import FdAddress, InetAddress
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.listening import listen, listen_on
from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.reception import Reception
from trio_chardev.core.environment import number_as_fd
from trio_chardev.importing import NEEDS_AN_EXTRA
from trio_chardev.metrics.options import MetricsOptions, exposed
from trio_chardev.metrics.rows import look
from trio_chardev.protocols.http_page import PageServer, RefusedRequestError
from trio_chardev.registry import Registry
from trio_chardev.workers import run_in_worker

log = logging.getLogger(__name__)

PATH: Final = "/metrics"
MAX_CLIENTS: Final = 16
"""Connections at the same time; then the oldest is closed for the next."""
TIMEOUT: Final = 10.0  # seconds of a connection
READ_SIZE: Final = 1 << 12  # bytes


async def serve_metrics(
    registry: Registry,
    options: MetricsOptions,
    *,
    take_fd: Callable[[str], int] = number_as_fd,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the metrics of *registry* until cancelled; started() gives the address's name.

    *take_fd* gives the socket of an `FdAddress`. Raises OptionsError, BackendError.
    """
    options.check()
    listener = await _listen(options, take_fd)
    try:
        if not options.insecure and (where := listener.exposed_at) is not None:
            raise exposed(where)
        listener.let_pass_descriptors(False)
        listener.activate()
        listener.set_backlog(MAX_CLIENTS)
        label = f"metrics at {listener.address.name}"
        reception = Reception(options.socket_options, {}, listener, label)
        try:
            async with trio.open_nursery() as nursery:
                pages = Pages(registry, with_clients=options.clients)
                nursery.start_soon(pages.load)
                is_tcp = isinstance(listener.address, InetAddress)
                crowd = _Crowd(label, pages, nursery, is_tcp and not options.insecure)
                task_status.started(listener.address.name)
                while True:
                    await reception.wait()
                    link, _ = reception.take()
                    crowd.admit(link)
        finally:
            reception.close()
    finally:
        await listener.remove_file()  # noqa: ASYNC102 - it shields itself, with a deadline
        listener.close()


async def _listen(options: MetricsOptions, take_fd: Callable[[str], int]) -> Listener:
    address = options.address
    if isinstance(address, FdAddress):
        return listen_on(address, socket_from_fd(take_fd(address.str_), address.str_))
    return await listen(address, None)


@attrs.define(eq=False, repr=False)
class Pages:
    """Makes pages, one at a time."""

    _registry: Registry
    _with_clients: bool = attrs.field(alias="with_clients")
    _lock: trio.Lock = attrs.Factory(trio.Lock)
    _module: Any = None
    """The module that renders, once it is there."""
    _last: tuple[float, str, Any] | None = None
    """When the last page was begun, for which format, and the page."""

    async def load(self) -> None:
        """Import what makes the pages, in a thread, as that takes its time; later ones need it."""
        async with self._lock:
            await self._load()

    async def _load(self) -> None:
        if self._module is None:
            try:
                self._module = await run_in_worker(importlib.import_module, NEEDS_AN_EXTRA)
            except Exception as exc:
                log.error("no metrics: %s: %s", type(exc).__name__, exc)

    async def get(self, accept: str) -> Any:
        """Return a page that was begun after this call, or None if there can't be one."""
        came = trio.current_time()
        async with self._lock:
            if self._last is not None:
                begun, its_accept, page = self._last
                if begun > came and its_accept == accept:
                    return page
            await self._load()
            if self._module is None:
                return None
            begun = trio.current_time()
            rows = await look(self._registry, clients=self._with_clients)
            page = await self._module.render(rows, accept)
            self._last = begun, accept, page
            return page


@attrs.define(eq=False, repr=False)
class _Crowd:
    """The connections of one address."""

    _label: str
    _pages: Pages
    _nursery: trio.Nursery
    _checks_host: bool
    _scopes: dict[Link, trio.CancelScope] = attrs.Factory(dict)  # the oldest comes first

    def admit(self, link: Link) -> None:
        """Serve *link*, which is owned from now on."""
        if len(self._scopes) >= MAX_CLIENTS:
            oldest = next(iter(self._scopes))
            log.info("%s: %s gives way to others", self._label, oldest.name)
            self._scopes.pop(oldest).cancel()
        self._scopes[link] = trio.CancelScope()
        self._nursery.start_soon(self._serve, link, self._scopes[link])

    async def _serve(self, link: Link, scope: trio.CancelScope) -> None:
        """Answer one request; whatever that raises ends this connection only."""
        try:
            with scope, trio.move_on_after(TIMEOUT):
                await self._answer(link)
        except (OSError, trio.ClosedResourceError) as exc:
            log.info("%s: %s: %s", self._label, link.name, exc)
        except Exception:
            log.exception("%s: a client is let go", self._label)
        finally:
            self._scopes.pop(link, None)
            link.close()

    async def _answer(self, link: Link) -> None:
        http = PageServer(PATH, checks_host=self._checks_host)
        try:
            while (asked := http.receive(await _receive(link))) is None:
                pass
        except RefusedRequestError as exc:
            log.info("%s: %s: %s", self._label, link.name, exc)
        else:
            page = await self._pages.get(asked.accept)
            if page is None:
                http.fail("there are no metrics now; the log says why")
            else:
                http.answer(page.content_type, page.body)
        await _send(link, http.outgoing)
        await link.finish(lambda data: None)


async def _receive(link: Link) -> bytes:
    while True:
        await link.wait_readable()
        with suppress(BlockingIOError):
            return link.receive(READ_SIZE)


async def _send(link: Link, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[link.send(rest) :]
        except BlockingIOError:
            await link.wait_writable()
        else:
            await trio.lowlevel.checkpoint()
