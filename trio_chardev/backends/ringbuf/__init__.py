"""Kind ringbuf: a ring buffer, in memory or with a file."""
