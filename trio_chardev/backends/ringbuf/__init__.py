"""Ring buffers."""
