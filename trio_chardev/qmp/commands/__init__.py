"""The QMP commands, in tables."""
