"""The dialect of JSON that QEMU reads and writes."""
