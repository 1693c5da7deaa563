"""The QMP commands, as tables."""
