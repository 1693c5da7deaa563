"""The kinds of backends: each is a file or folder here, and a row in `table`."""
