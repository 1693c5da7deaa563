"""Wire protocols without I/O, for the backends."""
