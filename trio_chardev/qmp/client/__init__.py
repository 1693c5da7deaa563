"""The client's side of a QMP session."""
