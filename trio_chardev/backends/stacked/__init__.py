"""Backends that stand on other chardevs."""
