"""QEMU-style character devices whose backend can be changed while in use, on Trio.

`open_registry` is where a program begins, `open_service` where one with QMP does.
"""

from trio_chardev.backends import Kind as Kind
from trio_chardev.backends.addresses import (
    FdAddress as FdAddress,
    InetAddress as InetAddress,
    UnixAddress as UnixAddress,
    VsockAddress as VsockAddress,
)
from trio_chardev.backends.file import FileOptions as FileOptions
from trio_chardev.backends.hub import HubOptions as HubOptions
from trio_chardev.backends.mux import MuxOptions as MuxOptions
from trio_chardev.backends.null import NullOptions as NullOptions
from trio_chardev.backends.parallel import ParallelOptions as ParallelOptions
from trio_chardev.backends.pipe import PipeOptions as PipeOptions
from trio_chardev.backends.pty import PtyOptions as PtyOptions
from trio_chardev.backends.replay import ReplayOptions as ReplayOptions
from trio_chardev.backends.ringbuf import (
    MemoryOptions as MemoryOptions,
    RingbufOptions as RingbufOptions,
)
from trio_chardev.backends.serial import SerialOptions as SerialOptions
from trio_chardev.backends.socket import SocketOptions as SocketOptions
from trio_chardev.backends.stdio import StdioOptions as StdioOptions
from trio_chardev.backends.udp import UdpOptions as UdpOptions
from trio_chardev.core.backend import Backend as Backend, OpenRequest as OpenRequest
from trio_chardev.core.chardev import Chardev as Chardev, ChardevInfo as ChardevInfo
from trio_chardev.core.controls import Controls as Controls
from trio_chardev.core.device import (
    Device as Device,
    DeviceInfo as DeviceInfo,
    DeviceOptions as DeviceOptions,
)
from trio_chardev.core.devices import Devices as Devices
from trio_chardev.core.frontend import Frontend as Frontend, stateless as stateless
from trio_chardev.core.registry import (
    ChardevReturn as ChardevReturn,
    Registry as Registry,
)
from trio_chardev.errors import (
    BackendDisconnectedError as BackendDisconnectedError,
    BackendError as BackendError,
    ChangeFailedError as ChangeFailedError,
    ChangeRefusedError as ChangeRefusedError,
    ChardevBusyError as ChardevBusyError,
    ChardevClosedError as ChardevClosedError,
    ChardevError as ChardevError,
    ChardevExistsError as ChardevExistsError,
    ChardevNotFoundError as ChardevNotFoundError,
    DeviceExistsError as DeviceExistsError,
    DeviceNotFoundError as DeviceNotFoundError,
    NotSupportedError as NotSupportedError,
    OptionsError as OptionsError,
    WriteInChangeError as WriteInChangeError,
)
from trio_chardev.events import (
    BackendEvent as BackendEvent,
    Event as Event,
    LineSettings as LineSettings,
    ModemLines as ModemLines,
)
from trio_chardev.frontends.bridge import BridgeInfo as BridgeInfo, BridgeOptions as BridgeOptions
from trio_chardev.frontends.chargen import ChargenOptions as ChargenOptions
from trio_chardev.frontends.discard import DiscardOptions as DiscardOptions
from trio_chardev.frontends.echo import EchoOptions as EchoOptions
from trio_chardev.frontends.monitor import MonitorOptions as MonitorOptions
from trio_chardev.options import BackendOptions as BackendOptions
from trio_chardev.qmp.client import (
    QmpClient as QmpClient,
    QmpError as QmpError,
    QmpEvent as QmpEvent,
    open_qmp_client as open_qmp_client,
)
from trio_chardev.service import (
    Service as Service,
    open_registry as open_registry,
    open_service as open_service,
)
from trio_chardev.version import __version__ as __version__
