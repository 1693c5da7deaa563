"""The kinds of backends: one file or folder a kind, one row in `table`."""
