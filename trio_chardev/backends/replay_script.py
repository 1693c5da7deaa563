"""What the user of a replayed recording is expected to send: its ``i`` events, as one stream of bytes."""

from __future__ import annotations

from trio_chardev.backends.replay_file import Reader

LINES_AT_ONCE = 100  # they take about 0.3 ms
SHOWN = 40  # bytes that an error shows of what was sent, and of what was recorded


class Script:
    """Compares what is sent with what was recorded, up to the first difference."""

    def __init__(self, reader: Reader, loop: bool) -> None:
        self._reader = reader
        self._loop = loop
        self._next = b""
        self._has_input = False
        self.sent = 0
        """Bytes that were sent as expected."""
        self.difference: str | None = None
        """The error, if something else was sent."""

    def follow(self, data: memoryview) -> int:
        """Compare *data*, which is sent, with the recording; return how many bytes agree.

        If not all do, there is a `difference`, or the rest has to be tried again after other tasks
        have run. Raises BackendError.
        """
        taken = 0
        for _ in range(LINES_AT_ONCE):
            sent = bytes(data[taken : taken + len(self._next)])
            expected = self._next[: len(sent)]
            if sent != expected:
                same = next(i for i, byte in enumerate(sent) if byte != expected[i])
                self.difference = (
                    f"{_shown(data[taken + same :])} was sent, but "
                    f"{_shown(self._next[same:])} was recorded, after {self.sent + same} bytes"
                )
                break
            self._next = self._next[len(sent) :]
            taken += len(sent)
            self.sent += len(sent)
            if taken == len(data) or not self._look_on():
                break
        if taken < len(data) and self._is_over:
            self.difference = f"{_shown(data[taken:])} was sent, but no more was recorded"
        return taken

    @property
    def is_waiting(self) -> bool:
        """Must more of the recording be read to know what has to be sent next?"""
        return not self._next and self._reader.is_waiting

    async def read_on(self) -> None:
        """See `Reader.read_on`."""
        await self._reader.read_on()

    @property
    def _is_over(self) -> bool:
        return not self._next and self._reader.is_over and not (self._loop and self._has_input)

    def _look_on(self) -> bool:
        """Read one line, to find what has to be sent next; False if other tasks should run."""
        if self._reader.is_over and not self._is_over:
            self._reader = self._reader.again()
        entry = self._reader.next()
        if entry is not None and entry.code == "i" and entry.data:
            self._next = entry.data
            self._has_input = True
        return entry is not None


def _shown(data: bytes | memoryview) -> str:
    return repr(bytes(data) if len(data) <= SHOWN else bytes(data[:SHOWN]) + b"...")
