"""Where the page of metrics is, and what is on it."""

from __future__ import annotations

from typing import Any, Final

import attrs

from trio_chardev.backends.socket.access import is_loopback
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
)
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.errors import OptionsError
from trio_chardev.options.documented import Documented
from trio_chardev.options.keyval import HELP_WORDS, HelpRequested, split_items, typed
from trio_chardev.options.members import type_of
from trio_chardev.options.structure import structure
from trio_chardev.options.where import HOW_TO_LISTEN, read_where

METRICS_HELP: Final = """\
Pages of metrics, for Prometheus, at http://ADDRESS/metrics:
  PORT, HOST:PORT[,OPTIONS]    TCP; without HOST, 127.0.0.1. Any other machine can
                               read what is not at a loopback address, so that
                               needs insecure=on; *:PORT is all addresses.
  unix:PATH[,OPTIONS]          A UNIX socket, for who may write to it.
  fd:NAME[,OPTIONS]            An inherited socket, by number or systemd's name.
OPTIONS: clients=on shows each client of a console, too, rather than sums alone;
insecure=on lets other machines read it."""

PLACES: Final = ("path", "host", "fd")


@attrs.frozen(kw_only=True)
class MetricsOptions(Documented):
    """One page of metrics."""

    path: str | None = None
    """Path of a UNIX socket to listen at."""

    host: str | None = None
    """Host name or address to listen at; empty means all addresses."""

    port: str | None = None
    """Port number or service name; 0 lets the system choose."""

    fd: str | None = None
    """Name or number of a descriptor that is a socket, which listens."""

    clients: bool = False
    """Is each client of a console shown, rather than sums alone?"""

    insecure: bool = False
    """May it be at an address that other machines reach?"""

    @property
    def address(self) -> SocketAddress:
        """Where to listen."""
        if self.path is not None:
            return UnixAddress(self.path)
        if self.fd is not None:
            return FdAddress(self.fd)
        assert self.host is not None and self.port is not None  # noqa: PT018 - `check` has seen to that
        return InetAddress(self.host, self.port)

    @property
    def socket_options(self) -> SocketOptions:
        """The same for a socket that listens."""
        return SocketOptions(addr=self.address, server=True)

    def check(self) -> None:
        """Raise OptionsError unless there is one place, which others do not reach unasked."""
        given = [name for name in PLACES if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionsError("one of 'path', 'host' or 'fd' is required")
        if (self.host is None) != (self.port is None):
            raise OptionsError("'host' and 'port' go together")
        if (
            self.host is not None
            and not self.insecure
            and not (self.host and is_loopback(self.host))
        ):
            raise exposed(self.host or "*")


def exposed(where: str) -> OptionsError:
    """Make the error for metrics that others could read at *where*."""
    return OptionsError(f"metrics at '{where}' need a loopback address, or insecure=on")


def parse_metrics(text: str) -> MetricsOptions:
    """Parse ``ADDRESS[,clients=on][,insecure=on]``. Raises OptionsError, HelpRequested."""
    given: dict[str, str] = {}
    for item in split_items(text, "where"):
        if item.is_help or (item.key == "where" and item.value in HELP_WORDS):
            raise HelpRequested(option="metrics")
        if item.word is not None:
            raise OptionsError(f"'{item.word}' needs a value: {item.word}=on")
        values = read_where(item.value) if item.key == "where" else {item.key: item.value}
        if not values or "vsock" in values:
            raise OptionsError(f"'{item.value}' is neither HOST:PORT nor a path: {HOW_TO_LISTEN}")
        for key in values.keys() & given.keys():
            raise OptionsError(f"'{key}' is there twice")
        given |= values
    if "where" in given or not given:
        raise OptionsError(f"an address is missing: {HOW_TO_LISTEN}")
    values_typed: Any = typed(type_of(MetricsOptions), given)
    options: MetricsOptions = structure(MetricsOptions, values_typed)
    options.check()
    return options


def check_installed() -> None:
    """Raise OptionsError if what makes the page is not installed. It is not imported."""
    import importlib.util  # most services have no metrics

    if importlib.util.find_spec("prometheus_client") is None:
        raise OptionsError("metrics need prometheus-client: install it, or 'trio-chardev[metrics]'")
