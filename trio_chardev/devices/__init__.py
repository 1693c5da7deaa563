"""Devices: frontends that are made by name, one file a driver."""
