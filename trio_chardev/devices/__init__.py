"""Devices: frontends that are made by name; each driver has a file."""
