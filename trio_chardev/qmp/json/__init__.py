"""QMP's JSON, as QEMU reads and writes it."""
