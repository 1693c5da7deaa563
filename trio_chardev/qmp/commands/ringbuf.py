"""ringbuf-write and ringbuf-read."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Literal

import attrs

from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend
from trio_chardev.qmp.commands.context import Command, Context
from trio_chardev.qmp.json.utf8 import MAX_LENGTH, count_whole, decode_replacing
from trio_chardev.qmp.server.session import QmpError

DataFormat = Literal["utf8", "base64"]


@attrs.frozen(kw_only=True)
class RingbufWriteArguments:
    """Arguments of ringbuf-write."""

    device: str
    data: str
    format: DataFormat = "utf8"


@attrs.frozen(kw_only=True)
class RingbufReadArguments:
    """Arguments of ringbuf-read."""

    device: str
    size: int
    """The most bytes to return."""
    format: DataFormat = "utf8"


def ringbuf_write(context: Context, arguments: RingbufWriteArguments) -> Any:
    """Write to a ring buffer."""
    ring = _ringbuf(context, arguments.device)
    if arguments.format == "base64":
        ring.write(decode_base64(arguments.data))
    else:
        # QEMU's strings are C strings, so a NUL is modified UTF-8.
        ring.write(arguments.data.encode().replace(b"\0", b"\xc0\x80"))
    return _once_kept(ring, {})


def ringbuf_read(context: Context, arguments: RingbufReadArguments) -> Any:
    """Take the oldest bytes out of a ring buffer."""
    ring = _ringbuf(context, arguments.device)
    if arguments.size <= 0:
        raise QmpError("size must be greater than zero")
    size = min(arguments.size, ring.count)
    if arguments.format == "base64":
        text = base64.b64encode(ring.read(size)).decode()
    else:
        size = count_whole(ring.peek(size + MAX_LENGTH), size)
        text = decode_replacing(ring.read(size))
    return _once_kept(ring, text)


def _has_file(context: Context, arguments: dict[str, Any]) -> bool:
    """Is the chardev that *arguments* name a ring with a file?"""
    device, registry = arguments.get("device"), context.host.registry
    if not (isinstance(device, str) and device in registry and registry[device].is_started):
        return False
    backend = registry[device].backend
    return isinstance(backend, RingbufBackend) and backend.has_file


def _once_kept(ring: RingbufBackend, answer: Any) -> Any:
    """Return *answer*; if the ring has a file, a coroutine that returns it once that is written."""

    async def wait() -> Any:
        await ring.kept()
        return answer

    return wait() if ring.has_file else answer


def _ringbuf(context: Context, device: str) -> RingbufBackend:
    registry = context.host.registry
    if device not in registry:
        raise QmpError(f"Device '{device}' not found")
    backend = registry[device].backend
    if not isinstance(backend, RingbufBackend):
        raise QmpError(f"{device} is not a ringbuf device")
    return backend


def decode_base64(text: str) -> bytes:
    """Decode *text* as GLib, and so QEMU, does; an incomplete group of four is dropped.

    "=" may be anywhere: it is a digit of zeros whose byte is dropped.
    """
    if re.search(r"[^A-Za-z0-9+/=\n]", text):
        raise QmpError("Base64 data contains invalid characters")
    digits = text.replace("\n", "")
    digits = digits[: len(digits) // 4 * 4]
    plain, equals, _ = digits.partition("=")
    data = binascii.a2b_base64(digits.replace("=", "A"))
    if not equals:
        return data
    start = len(plain) // 4 * 3  # before this there is no byte to drop
    return data[:start] + bytes(
        byte
        for at, byte in enumerate(data[start:], start)
        if at % 3 == 0 or digits[at // 3 * 4 + at % 3 + 1] != "="
    )


RINGBUF_COMMANDS = {
    "ringbuf-write": Command(RingbufWriteArguments, ringbuf_write, may_wait=_has_file),
    "ringbuf-read": Command(RingbufReadArguments, ringbuf_read, str, may_wait=_has_file),
}
