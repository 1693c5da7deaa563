"""Backends that stand on other chardevs, their bases."""
