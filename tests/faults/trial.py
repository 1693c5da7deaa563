"""One trial: a service, a scenario, a call that fails, and the check of the promises."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.certificates import authority, server_certificate, write_folder
from tests.faults.calls import Fault, faults_of, injected_in, is_cut, text_of
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.service import LOOK_INTERVAL, PATIENCE, Service, Tracer
from tests.faults.world import BrokenPromiseError, World, soon
from tests.soak.places import Peer, Site
from trio_chardev.backends.parallel import PPCLAIM

COSTS_A_PEER: Final = re.compile(r"\w+\(\d+<(socket|pipe|/dev/)|accept|epoll_")
"""A failure of one of these may cost a peer its connection."""
WRONG_WORDS: Final = ("Traceback (most recent call last)", "raised what it must not")
TIMEOUT: Final = 5 * PATIENCE  # seconds; each wait has its own, so this is for our bugs
PAUSES: Final = {"RETRY_INTERVAL", "ACCEPT_PAUSE", "NO_THREAD_PAUSE", "LONGEST_PAUSE"}
RETRY_INTERVAL: Final = 0.05  # seconds
SETTLE_TIME: Final = 0.1  # seconds
NOTHING: Final = Counter[str]()


@attrs.frozen
class Outcome:
    """The result of a trial."""

    injected: list[str]
    problems: list[str]
    faults: list[Fault]
    """What can be made to fail, if nothing was."""
    descriptors: Counter[str]
    """The descriptors that were open when everything was removed."""
    seconds: float
    is_void: bool = False
    """Did something fail that should not? Then the trial says nothing."""


def hurry() -> None:
    """Retry at once what is otherwise retried each second, as a trial is not about that."""
    for name, module in list(sys.modules.items()):
        if name.startswith("trio_chardev."):
            for pause in PAUSES & vars(module).keys():
                setattr(module, pause, RETRY_INTERVAL)


def prepare() -> None:
    """Prepare the service's process before it begins."""
    hurry()
    fake_devices()


def fake_devices() -> None:
    """Let a file be used as a parallel port."""
    ioctl = fcntl.ioctl

    def pretend(fd: int, request: int, *arguments: Any) -> Any:
        return 0 if request == PPCLAIM else ioctl(fd, request, *arguments)

    fcntl.ioctl = pretend  # type: ignore[assignment]


async def _settled(look: Callable[[], Counter[str]]) -> Counter[str]:
    """Return what *look* returns, once that has not changed for some time."""
    found, since = look(), trio.current_time()
    while trio.current_time() < since + SETTLE_TIME:
        await trio.sleep(LOOK_INTERVAL)
        if (now := look()) != found:
            found, since = now, trio.current_time()
    return found


@attrs.define
class Trial:
    """Plays *scenario* with *fault*, or without one, to find what can be made to fail."""

    scenario: str
    fault: Fault | None
    reference: Counter[str] = NOTHING
    """The descriptors that are open without a fault when everything is removed."""
    before: Callable[[], object] = prepare
    """Called in the service's process before it begins."""
    _problems: list[str] = attrs.Factory(list)
    _descriptors: Counter[str] = attrs.Factory(Counter)
    _tracer: Tracer | None = None

    def run(self) -> Outcome:
        """Run a service, and check it."""
        begin = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="faults."))
        source, sink = os.pipe()
        scenario = SCENARIOS[self.scenario]()
        service = self._start(scenario, folder, source)  # no fork within trio.run
        try:
            try:
                trio.run(self._main, scenario, service, sink)
            except Exception as exc:
                self._problems.append(f"the trial failed: {exc!r}")
            log = folder / "strace"
            injected = injected_in(log)
            if not injected and "(INJECTED)" in text_of(log):
                self._problems.clear()  # as no kernel gives that error
            faults = faults_of(log) if self.fault is None else []
            is_void = self.fault is not None and is_cut(log, self.fault.call)
        finally:
            service.kill()
            os.close(source)
            os.close(sink)
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(
            injected, self._problems, faults, self._descriptors, time.monotonic() - begin, is_void
        )

    async def _main(self, scenario: Scenario, service: Service, sink: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities
        authority().configure_trust(context)
        async with trio.open_nursery() as nursery:
            world = World(service.folder, service, sink, nursery, context)
            world.site = Site(service.folder, service.path, "x", nursery, context)
            try:
                with trio.fail_after(TIMEOUT):
                    await self._play(scenario, world)
            except BrokenPromiseError as exc:
                self._problems.append(str(exc))
            except Exception as exc:
                self._problems.append(f"the trial failed: {exc!r}")
            finally:
                self._stop_tracing()
                await world.aclose()
                service.kill()
                self._problems += self._wrong_words(service.said)
            nursery.cancel_scope.cancel()

    def _start(self, scenario: Scenario, folder: Path, source: int) -> Service:
        credentials = write_folder(folder / "tls", server=server_certificate())
        service = Service.start(
            folder,
            *("--qmp", f"unix:{folder}/qmp,server=on,wait=off"),
            *(
                "--object",
                f"tls-creds-x509,id=tls,dir={credentials},endpoint=server,verify-peer=off",
            ),
            *("--chardev", f"socket,id=witness,path={folder}/w,server=on,wait=off"),
            *("--device", "echo,id=echo,chardev=witness"),
            *scenario.arguments(folder),
            stdin=source,
            before=self.before,
            is_held=scenario.is_start,
        )
        if scenario.is_start:
            self._trace(service)
            service.go_on()
        return service

    def _trace(self, service: Service) -> None:
        self._tracer = Tracer(service, service.folder / "strace", self.fault)

    def _stop_tracing(self) -> None:
        if self._tracer is not None:
            self._tracer.stop()
            self._tracer = None

    async def _play(self, scenario: Scenario, world: World) -> None:
        if scenario.is_start and not await self._has_started(world):
            return
        await world.connect()
        await scenario.set_up(world)
        if not scenario.is_start:
            self._trace(world.service)
        if scenario.is_end:
            self._end(world.service)
            return
        await scenario.act(world)
        self._stop_tracing()
        injected = injected_in(world.folder / "strace")
        world.may_leave = any(COSTS_A_PEER.match(line) for line in injected)
        await world.connect()  # as the last connection may be what has failed
        await scenario.check(world)
        await self._check_witness(world)
        if not scenario.is_start:
            await self._check_descriptors(scenario, world, injected)
        world.leave()
        self._end(world.service)

    async def _has_started(self, world: World) -> bool:
        """Has it started? If not it must have said why."""
        deadline = trio.current_time() + PATIENCE
        while not world.service.has_ended() and trio.current_time() < deadline:
            with contextlib.suppress(OSError):
                stream = await trio.open_unix_socket(str(world.service.path))
                await stream.aclose()
                self._stop_tracing()
                return True
            await trio.sleep(LOOK_INTERVAL)
        self._stop_tracing()
        if world.service.status is None:
            self._problems.append("it neither starts nor ends")
        elif (status := world.service.status) != 1:
            self._problems.append(f"a start that fails has status {status}")
        lines = [  # the reason; each thread's n-th call fails, so there may be a warning as well
            line
            for line in world.service.said.splitlines()
            if line.startswith("trio-chardev: ") and not line.startswith("trio-chardev: warning: ")
        ]
        if len(lines) != 1:
            self._problems.append(f"a start that fails says {world.service.said!r}")
        return False

    def _end(self, service: Service) -> None:
        service.signal(signal.SIGTERM)
        if (status := service.wait()) != 0:
            self._problems.append(f"it ends with status {status}: {service.said[-300:]!r}")

    async def _check_witness(self, world: World) -> None:
        """Check that the other chardevs work."""
        try:
            peer = Peer(await trio.open_unix_socket(str(world.folder / "w")))
            end = world.meet(peer)
        except OSError as exc:
            raise BrokenPromiseError(f"nobody can come to another chardev: {exc}") from exc
        await end.send(b"others")
        await soon(lambda: end.got == b"others", "another chardev does not work")
        await peer.aclose()

    async def _check_descriptors(
        self, scenario: Scenario, world: World, injected: list[str]
    ) -> None:
        """Remove everything, and check that as many are open as when nothing fails."""
        await scenario.clean_up(world)
        if self.fault is None:
            self._descriptors = await _settled(world.service.descriptors)
            return
        kept = sum(line.startswith("close(") for line in injected)  # strace has kept these open

        def leaked() -> Counter[str]:
            return world.service.descriptors() - self.reference

        with contextlib.suppress(BrokenPromiseError):
            await soon(lambda: leaked().total() <= kept, "")
            return
        raise BrokenPromiseError(f"descriptors are left: {dict(leaked())}")

    def _wrong_words(self, said: str) -> list[str]:
        for words in WRONG_WORDS:
            if words in said:
                return [f"its log has {words!r}: {said[-600:]}"]
        return []
