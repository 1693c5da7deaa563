"""``trio-chardev serve``: from the options to a running service."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import attrs
import click

from trio_chardev.backends import BACKEND, FOREIGN, KINDS
from trio_chardev.backends.addresses import UnixAddress
from trio_chardev.backends.mux import MuxOptions
from trio_chardev.backends.socket import SocketOptions
from trio_chardev.cli.address import default_monitor_path
from trio_chardev.cli.maker import Maker, name_of, saying
from trio_chardev.cli.restore import make_all, plan
from trio_chardev.core.backend import DEFAULT_ESCAPE
from trio_chardev.core.device import DeviceOptions
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import ChardevError, DeviceExistsError, OptionsError, strerror
from trio_chardev.frontends import DEVICE
from trio_chardev.grammar import ChardevGrammar, ChardevSpec, help_text
from trio_chardev.keyval import HelpRequested, parse_bool, parse_number, structure_text
from trio_chardev.legacy import parse_legacy
from trio_chardev.members import TaggedUnion
from trio_chardev.objects import OBJECT, ObjectOptions
from trio_chardev.options import BackendOptions, structure
from trio_chardev.qmp.journal import Journal, open_journal
from trio_chardev.qmp.object_commands import duplicate_object
from trio_chardev.sandbox import EVERYWHERE, Sandbox
from trio_chardev.service import Service, open_service

GRAMMAR = ChardevGrammar({name: kind.options for name, kind in KINDS.items()}, FOREIGN)


@attrs.frozen(kw_only=True)
class MonitorOptions:
    """What ``--monitor`` takes."""

    chardev: str
    """The chardev that it is on."""

    id: str | None = None
    """A name for the monitor."""

    mode: Literal["control"] = "control"
    """QMP; there is no monitor for people."""

    pretty: bool = False
    """Indent what is sent."""

    insecure: bool = False
    """Take whoever comes: any user of this machine, any machine without TLS."""


@attrs.frozen
class QmpListener:
    """What ``--qmp`` takes, if it listens."""

    options: SocketOptions
    insecure: bool = False
    """As a monitor's."""


@attrs.frozen(kw_only=True)
class ServeOptions:
    """The command line, structured and checked as far as that goes without opening anything."""

    chardevs: tuple[tuple[str, BackendOptions], ...] = ()
    monitors: tuple[MonitorOptions, ...] = ()
    listeners: tuple[QmpListener, ...] = ()
    pidfile: str | None = None
    objects: tuple[ObjectOptions, ...] = ()
    sandbox: Sandbox = EVERYWHERE
    """The paths that QMP clients may name."""
    devices: tuple[DeviceOptions, ...] = ()
    escape: int = DEFAULT_ESCAPE
    state: str | None = None
    """The file that keeps what QMP clients do."""

    @classmethod
    def parse(
        cls,
        chardevs: Sequence[str],
        monitors: Sequence[str],
        listeners: Sequence[str],
        pidfile: str | None,
        warn: Callable[[str], object],
        objects: Sequence[str] = (),
        sandbox: Sequence[str] = (),
        devices: Sequence[str] = (),
        echr: str | None = None,
        state: str | None = None,
    ) -> ServeOptions:
        """Raises OptionsError, and HelpRequested for ``--chardev help`` and the like."""
        made = [_parse_variant(OBJECT, "object", text, warn) for text in objects]
        users = [_parse_variant(DEVICE, "device", text, warn) for text in devices]
        added: dict[str, BackendOptions] = {}
        for text in chardevs:
            with saying(f"--chardev {text}"):
                spec = GRAMMAR.parse(text, warn)
                _merge(added, _structure(spec))
        on_chardevs = []
        for text in monitors:
            with saying(f"--monitor {text}"), _only_qmp():
                on_chardevs.append(structure_text(MonitorOptions, text, "chardev", warn))
        sockets = []
        for number, text in enumerate(listeners):
            with saying(f"--qmp {text}"):
                id = f"compat_monitor{number}"
                address, insecure = _split_insecure(text)
                legacy = parse_legacy(GRAMMAR, address, id)
                if legacy is None:
                    continue
                if legacy.spec is None:
                    on_chardevs.append(MonitorOptions(chardev=legacy.id, insecure=insecure))
                    continue
                more = _structure(legacy.spec)
                options = more[id]
                if isinstance(options, SocketOptions) and options.server:
                    sockets.append(QmpListener(options, insecure))
                else:
                    _merge(added, more)
                    on_chardevs.append(MonitorOptions(chardev=id, insecure=insecure))
        return cls(
            chardevs=tuple(added.items()),
            monitors=tuple(on_chardevs),
            listeners=tuple(sockets),
            pidfile=pidfile,
            objects=tuple(made),
            sandbox=_sandbox(sandbox),
            devices=tuple(users),
            escape=DEFAULT_ESCAPE if echr is None else _parse_echr(echr),
            state=state,
        )

    @staticmethod
    def help_text(request: HelpRequested) -> str:
        """What ``--chardev help``, ``--chardev KIND,help`` and the like print."""
        match request.option:
            case "device":
                return help_text("Available devices:", DEVICE.variants, request.subject)
            case "object":
                return help_text(
                    "List of user creatable objects:", OBJECT.variants, request.subject
                )
        return GRAMMAR.help_text(request.subject)


@contextlib.contextmanager
def _only_qmp() -> Iterator[None]:
    """Add why to an error about the ``mode``."""
    try:
        yield
    except OptionsError as exc:
        if "'mode'" in str(exc):
            exc.add_note("Only QMP is spoken here (mode=control): there is no monitor for people.")
        raise


def _parse_variant(
    union: TaggedUnion, option: str, text: str, warn: Callable[[str], object]
) -> Any:
    """An argument of ``--device`` or ``--object``, whose implied key is the tag."""
    with saying(f"--{option} {text}"):
        try:
            return structure_text(union, text, union.tag, warn)
        except HelpRequested as request:
            if request.subject is not None and request.subject not in union.variants:
                structure(union, {union.tag: request.subject})  # says that there is no such thing
            request.option = option
            raise


def _sandbox(folders: Sequence[str]) -> Sandbox:
    if not folders:
        return EVERYWHERE
    with saying("--sandbox"):
        return Sandbox(folders)


def _split_insecure(text: str) -> tuple[str, bool]:
    """*text* without ``insecure=on``, which is the monitor's and not the chardev's."""
    insecure = False
    for match in re.finditer(r"(?<!,)(?:,,)*,insecure=([^,]*)", text):  # ",," is a comma
        insecure = parse_bool("insecure", match[1])
    return re.sub(r"(?<!,)((?:,,)*),insecure=[^,]*", r"\1", text), insecure


def _parse_echr(text: str) -> int:
    """A character by its number, decimal, 0x hexadecimal or 0 octal. Raises OptionsError."""
    try:
        number = parse_number("echr", text)
    except OptionsError:
        number = -1
    if not 0 <= number <= 255:
        raise OptionsError(f"--echr {text}: Bad argument to echr")
    return number


def _structure(spec: ChardevSpec) -> dict[str, BackendOptions]:
    """The chardevs that *spec* stands for, in the order in which to add them."""
    options: BackendOptions = structure(BACKEND, spec.backend, "backend")
    if not spec.mux:
        return {spec.id: options}
    base = f"{spec.id}-base"
    return {base: options, spec.id: MuxOptions(chardev=base)}


def _merge(added: dict[str, BackendOptions], more: dict[str, BackendOptions]) -> None:
    for id in more:
        if id in added:
            raise OptionsError(f"Duplicate ID '{id}' for chardev")
    added |= more


# Python's default thresholds have a full collection, which walks all that lives, every few
# dozen chardev-adds once thousands of chardevs exist; there are next to no cycles to find.
# With these an add among 3,000 takes 85 us instead of 120.
GC_THRESHOLDS = (50_000, 20, 100)


async def serve(options: ServeOptions) -> None:
    """Run a service until a signal or ``quit``. Raises ChardevError if it cannot begin."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    errors: list[ChardevError] = []
    with _pidfile(options.pidfile), _journal(options.state) as journal:
        async with (
            open_service(options.sandbox, journal) as service,
            open_background_nursery() as nursery,
        ):
            await nursery.start(service.watch_signals)
            nursery.start_soon(_begin, service, options, journal, errors)
            await service.run_until_quit()
        if errors:
            raise errors[0]


async def _begin(
    service: Service, options: ServeOptions, journal: Journal, errors: list[ChardevError]
) -> None:
    """Add what the command line names; a signal may come while a chardev waits for a client."""
    try:
        await _add_all(service, options, journal)
    except ChardevError as exc:
        errors.append(exc)
        service.quit("host-error")


async def _add_all(service: Service, options: ServeOptions, journal: Journal) -> None:
    service.registry.escape = options.escape
    maker = Maker(service, options.sandbox)
    objects: dict[str, ObjectOptions] = {}
    for made in options.objects:
        if made.id in objects:
            with saying(f"--object id={made.id}"):
                raise duplicate_object(made.id)
        objects[made.id] = made
    wanted = plan(journal, "objects", objects, OBJECT, _say_of_state)
    await make_all("objects", wanted, OBJECT, maker.make_object, _say_of_state)
    wanted = plan(journal, "chardevs", dict(options.chardevs), BACKEND, _say_of_state)
    await make_all("chardevs", wanted, BACKEND, maker.make_chardev, _say_of_state)
    for monitor in options.monitors:
        with saying(f"--monitor {monitor.chardev}"):
            await service.add_monitor(
                monitor.chardev, pretty=monitor.pretty, insecure=monitor.insecure
            )
    devices = _by_id(options.devices)
    later = sorted(
        plan(journal, "devices", devices, DEVICE, _say_of_state), key=lambda item: item.is_restored
    )
    await make_all("devices", later, DEVICE, maker.make_device, _say_of_state)
    for listener in options.listeners:
        with saying(f"--qmp {listener.options.addr}"):
            await service.listen_qmp(listener.options, insecure=listener.insecure)
    if not options.monitors and not options.listeners:
        path = default_monitor_path()
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(path))))
        click.echo(f"QMP at {path}")


def _by_id(devices: Iterable[DeviceOptions]) -> dict[str, DeviceOptions]:
    """By the ids that they will have."""
    found: dict[str, DeviceOptions] = {}
    numbers = itertools.count()
    for device in devices:
        id = f"#device{next(numbers)}" if device.id is None else device.id
        if id in found:
            with saying(f"--device {name_of(device)}"):
                raise DeviceExistsError(f"Duplicate device ID '{id}'")
        found[id] = device
    return found


def _say_of_state(text: str) -> None:
    click.echo(f"trio-chardev: --state: {text}", err=True)


@contextlib.contextmanager
def _journal(path: str | None) -> Iterator[Journal]:
    if path is None:
        yield Journal()
        return
    with contextlib.ExitStack() as stack:
        with saying(f"--state {path}"):
            journal = stack.enter_context(open_journal(path))
        yield journal


@contextlib.contextmanager
def _pidfile(path: str | None) -> Iterator[None]:
    """Keep the process id in a locked file while the service runs."""
    if path is None:
        yield
        return
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
    except OSError as exc:
        raise OptionsError(f"cannot create PID file '{path}': {strerror(exc)}") from exc
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)
