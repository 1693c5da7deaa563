"""/dev/null in place of a serial line."""

from __future__ import annotations

from trio_chardev.backends.descriptor import DescriptorBackend


class PlainBackend(DescriptorBackend):
    """A descriptor without settings, modem lines or break."""

    @property
    def filename(self) -> str:
        return "serial"

    async def open(self) -> None:
        """Set up what is needed, and become open."""
        self.set_open(True)

    async def aclose(self) -> None:
        """Close, after what takes time has been done."""
        self.close()
