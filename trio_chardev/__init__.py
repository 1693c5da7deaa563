"""QEMU-style character devices whose backend can be changed while in use, on Trio."""

__version__ = "0.1.0"
