"""The names that `import trio_chardev` gives, each from the module where it is made."""

from trio_chardev.access.authz import AuthzList, AuthzSimple
from trio_chardev.access.sandbox import Sandbox
from trio_chardev.access.secret import Secret
from trio_chardev.access.tls_creds import TlsCredsPsk, TlsCredsX509
from trio_chardev.backends.console.options import ConsoleOptions
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.parallel import ParallelOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import MemoryOptions, RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress, UnixAddress, VsockAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.stdio import StdioOptions
from trio_chardev.backends.stream import open_stream
from trio_chardev.backends.table import Kind
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.direct import Direct
from trio_chardev.core.direct_path import DirectPath
from trio_chardev.core.environment import Environment, Files
from trio_chardev.core.expect import Expected
from trio_chardev.core.frontend import Frontend, FrontendStatistics
from trio_chardev.core.handlers import Calls, Handlers, stateless
from trio_chardev.core.info import ChardevInfo, ChardevState, ChardevStatistics
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.line import Line
from trio_chardev.core.line_change import LineChange, LineState
from trio_chardev.core.line_in_place import LineInPlace
from trio_chardev.core.line_sequence import LineStep
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.core.relay import Relay
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.core.stacking import Stacking
from trio_chardev.core.tap import Tap
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.bridge import BridgeInfo, BridgeOptions, FlowInfo
from trio_chardev.devices.chargen import ChargenOptions
from trio_chardev.devices.discard import DiscardOptions
from trio_chardev.devices.echo import EchoOptions
from trio_chardev.devices.listener import ListenerInfo, ListenerOptions
from trio_chardev.devices.monitor import MonitorOptions
from trio_chardev.devices.registry import Devices, Driver
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    BackendFailedError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevClosedError,
    ChardevError,
    ChardevExistsError,
    ChardevNotFoundError,
    DeviceExistsError,
    DeviceNotFoundError,
    ExpectError,
    ExpectTimeoutError,
    NotSupportedError,
    OptionsError,
    WriteInChangeError,
)
from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines, WindowSize
from trio_chardev.garbage import collect_in_portions
from trio_chardev.notices import (
    ChardevAdded,
    ChardevBreak,
    ChardevChanged,
    ChardevClientAttached,
    ChardevClientDetached,
    ChardevClientTold,
    ChardevClosed,
    ChardevLent,
    ChardevMark,
    ChardevOpened,
    ChardevRemoved,
    ChardevReturned,
    ChardevWriterChanged,
    DeviceDeleted,
    Notice,
)
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.client.client import QmpClient, QmpError, QmpEvent, open_qmp_client
from trio_chardev.qmp.client.conversation import QmpConnectionError, QmpEvents
from trio_chardev.qmp.server.state import StateFile
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import Service, open_service

__all__ = [
    "AuthzList",
    "AuthzSimple",
    "Backend",
    "BackendDisconnectedError",
    "BackendError",
    "BackendEvent",
    "BackendFailedError",
    "BackendOptions",
    "BridgeInfo",
    "BridgeOptions",
    "Calls",
    "CannotSplice",
    "ChangeFailedError",
    "ChangeRefusedError",
    "Chardev",
    "ChardevAdded",
    "ChardevBreak",
    "ChardevBusyError",
    "ChardevChanged",
    "ChardevClientAttached",
    "ChardevClientDetached",
    "ChardevClientTold",
    "ChardevClosed",
    "ChardevClosedError",
    "ChardevError",
    "ChardevExistsError",
    "ChardevInfo",
    "ChardevLent",
    "ChardevMark",
    "ChardevNotFoundError",
    "ChardevOpened",
    "ChardevRemoved",
    "ChardevReturned",
    "ChardevState",
    "ChardevStatistics",
    "ChardevWriterChanged",
    "ChargenOptions",
    "ConsoleOptions",
    "Controls",
    "Device",
    "DeviceDeleted",
    "DeviceExistsError",
    "DeviceInfo",
    "DeviceNotFoundError",
    "DeviceOptions",
    "DeviceRequest",
    "Devices",
    "Direct",
    "DirectPath",
    "DiscardOptions",
    "Driver",
    "EchoOptions",
    "Environment",
    "Event",
    "ExpectError",
    "ExpectTimeoutError",
    "Expected",
    "FdAddress",
    "FileOptions",
    "Files",
    "FlowInfo",
    "Frontend",
    "FrontendStatistics",
    "Handlers",
    "HubOptions",
    "InetAddress",
    "Kind",
    "Leaving",
    "Line",
    "LineChange",
    "LineInPlace",
    "LineSettings",
    "LineState",
    "LineStep",
    "ListenerInfo",
    "ListenerOptions",
    "MemoryOptions",
    "ModemLines",
    "MonitorOptions",
    "MuxOptions",
    "NotSupportedError",
    "Notice",
    "NullOptions",
    "OpenRequest",
    "Opener",
    "OptionsError",
    "Outlook",
    "ParallelOptions",
    "Peer",
    "PipeOptions",
    "PtyOptions",
    "QmpClient",
    "QmpConnectionError",
    "QmpError",
    "QmpEvent",
    "QmpEvents",
    "Registry",
    "Relay",
    "ReplayOptions",
    "RingbufOptions",
    "Sandbox",
    "Secret",
    "SerialOptions",
    "Service",
    "SocketOptions",
    "SplicePipe",
    "Stacking",
    "StateFile",
    "StdioOptions",
    "Tap",
    "TlsCredsPsk",
    "TlsCredsX509",
    "UdpOptions",
    "UnixAddress",
    "VsockAddress",
    "WindowSize",
    "WriteInChangeError",
    "collect_in_portions",
    "open_qmp_client",
    "open_registry",
    "open_service",
    "open_stream",
    "stateless",
]
