"""Monitors, and the service's side of a QMP session."""
